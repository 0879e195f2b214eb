"""What was seen is known again, with the place where it was."""

from hypothesis import given
from hypothesis import strategies as st

from birthmark.manifests.duplicate_chips import Marks


def test_marks_remember_the_first_place_of_many() -> None:
    marks = Marks()
    assert [marks.add("board", f"B-{n}", n) for n in range(1, 5001)] == [None] * 5000
    assert marks.add("board", "B-4999", 6000) == 4999
    assert marks.place_of("board", "B-17") == 17
    assert marks.place_of("chip", "B-17") is None


@given(st.lists(st.tuples(st.sampled_from(["chip", "key"]), st.binary(max_size=2))))
def test_each_kind_is_remembered_by_itself(values: list[tuple[str, bytes]]) -> None:
    marks, known = Marks(), dict[tuple[str, bytes], int]()
    for place, value in enumerate(values, 1):
        assert marks.add(*value, place) == known.get(value)
        known.setdefault(value, place)
