"""What a chip remembers, in both layouts, and what a data object is taken for."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.secure_elements.dps_assignment_codec import (
    Assignment,
    AssignmentMemory,
    Layout,
    read_memory,
    write_memory,
)
from birthmark.secure_elements.errors import (
    ElementDataTooLargeError,
    ElementLayoutTooSmallError,
    ElementMemoryInvalidError,
)
from birthmark.secure_elements.token_object_management import guess
from support.pki.pki_builders import a_ca

_any_text = st.characters(exclude_categories=["Cs"])
words = st.text(_any_text, min_size=1, max_size=30)
serials = st.from_regex(r"[A-Za-z0-9\-.%_*?!(),:=@$']{1,20}", fullmatch=True)
hubs = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9\-.]{0,47}", fullmatch=True)


@given(words, words, st.text(_any_text, max_size=20), st.integers(0, 2**31))
def test_an_assignment_comes_back_as_it_was(hub: str, device: str, scope: str, counter: int) -> None:
    assignment = Assignment(hub, device, scope)
    raw = write_memory(assignment, Layout.BIRTHMARK, AssignmentMemory(counter=counter), 2000, "slot8")
    assert len(raw) == 2000
    found = read_memory(raw)
    assert (found.layout, found.assignment, found.counter) == (Layout.BIRTHMARK, assignment, counter + 1)
    assert read_memory(raw.rstrip(b"\0").ljust(2000, b"\xff")) == found


@given(hubs, serials, st.binary(max_size=300))
def test_the_how_tos_layout_comes_back_with_what_the_firmware_keeps_behind_it(
    hub: str, serial: str, rest: bytes
) -> None:
    raw = write_memory(Assignment(hub, serial, "0ne1"), Layout.HOWTO, AssignmentMemory(rest=rest), 416, "slot8")
    assert raw == serial.encode().ljust(20, b"\0") + hub.encode().ljust(48, b"\0") + rest.ljust(348, b"\0")
    found = read_memory(raw)
    assert (found.layout, found.assignment) == (Layout.HOWTO, Assignment(hub, serial))
    assert found.rest == raw[68:]


def test_a_firmware_that_knows_its_name_and_no_hub_yet_has_no_assignment() -> None:
    raw = b"sn0123456789ABCDEF01".ljust(416, b"\0")
    assert read_memory(raw).layout is Layout.HOWTO
    assert read_memory(raw).assignment is None


@given(words, words, st.text(_any_text, max_size=20))
def test_bytes_of_one_layout_are_never_those_of_the_other(hub: str, device: str, scope: str) -> None:
    ours = write_memory(Assignment(hub, device, scope), Layout.BIRTHMARK, AssignmentMemory(), 416, "slot8")
    assert read_memory(ours).layout is Layout.BIRTHMARK


@pytest.mark.parametrize(
    ("assignment", "named"),
    [
        (Assignment("hub.example", "x" * 21), "device id"),
        (Assignment("hub.example", "Gerät"), "device id"),
        (Assignment("h" * 49, "d"), "hub"),
        (Assignment("hub example", "d"), "hub"),
    ],
)
def test_what_the_how_tos_fields_have_no_room_for_is_refused(assignment: Assignment, named: str) -> None:
    with pytest.raises(ElementLayoutTooSmallError, match="too small") as refused:
        write_memory(assignment, Layout.HOWTO, AssignmentMemory(), 416, "slot8")
    assert refused.value.what == named


def test_a_blank_object_remembers_nothing_and_a_full_one_refuses() -> None:
    assert read_memory(bytes(416)) == AssignmentMemory()
    assert read_memory(b"\xff" * 416) == AssignmentMemory()
    for layout, limit in ((Layout.BIRTHMARK, 20), (Layout.HOWTO, 67)):
        with pytest.raises(ElementDataTooLargeError):
            write_memory(Assignment("h", "d"), layout, AssignmentMemory(), limit, "slot8")


@given(st.binary(max_size=120))
def test_any_bytes_are_a_memory_or_a_refusal(raw: bytes) -> None:
    with contextlib.suppress(ElementMemoryInvalidError):
        read_memory(raw)


@given(st.binary(max_size=120))
def test_any_bytes_are_guessed_in_a_few_printable_words(raw: bytes) -> None:
    assert guess(raw).isprintable()
    assert len(guess(raw)) < 160


@pytest.mark.parametrize(
    "raw",
    [
        b'{"v":2,"n":1,"h":"h","d":"d"}',
        b'{"v":1,"n":1,"h":"","d":"d"}',
        b"[]",
        b"x" * 5000,
        b"serial".ljust(67, b"\0"),
        b"\0" * 20 + b"hub.example".ljust(48, b"\0"),
        b"serial\0x".ljust(20, b"\0") + b"hub.example".ljust(48, b"\0"),
    ],
)
def test_memory_of_another_kind_is_told_apart(raw: bytes) -> None:
    with pytest.raises(ElementMemoryInvalidError):
        read_memory(raw)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (bytes(416), "blank"),
        (write_memory(Assignment("hub1", "d1"), Layout.BIRTHMARK, AssignmentMemory(), 99, ""), "device d1 at hub1"),
        (write_memory(Assignment("hub1", "d1"), Layout.HOWTO, AssignmentMemory(), 99, ""), "serial d1, hub hub1"),
        (b"sn0123".ljust(68, b"\0"), "no hub yet"),
        (a_ca("Own").certificate.der.ljust(1024, b"\0"), "certificate of "),
        (a_ca("Own").certificate.pem().encode(), "PEM"),
        (b'{"ssid": "x"}', "JSON"),
        (b"a word\n", "text"),
        (b"\x01\x02", "bytes of another program"),
        (b"\x30\x82\xff", "bytes of another program"),
    ],
)
def test_people_are_told_what_an_object_holds(raw: bytes, said: str) -> None:
    assert said in guess(raw)
