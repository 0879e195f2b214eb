"""A file is cut into entries before anything is read of them."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.manifests.errors import MalformedEntryError, ManifestError, PackedManifestError
from birthmark.manifests.manifest_chunks import MAX_ENTRY_BYTES, count_of, pieces_of


def cut(data: bytes) -> list[bytes]:
    return [entry for piece in pieces_of(io.BytesIO(data)) for entry in piece.entries()]


@pytest.mark.parametrize("between", [b",", b", ", b"\n,\n", b" ,\r\n\t"])
def test_entries_are_cut_however_they_are_laid_out(between: bytes) -> None:
    entries = [b'{"a":"%d"}' % number for number in range(5)]
    assert cut(b" [ " + between.join(entries) + b"\n]\n") == entries


def test_a_certificate_by_itself_is_told_from_a_list() -> None:
    with pytest.raises(MalformedEntryError, match="a certificate, not a list") as refused:
        cut(b"-----BEGIN CERTIFICATE-----\n")
    assert "`birthmark device enroll --cert FILE`" in refused.value.explain_fix()


def test_an_empty_list_has_no_entries() -> None:
    assert cut(b"[ ]\n") == []


@given(st.lists(st.integers(min_value=0, max_value=3000), min_size=1, max_size=300))
def test_every_entry_is_found_whatever_its_size_and_where_the_reading_stops(sizes: list[int]) -> None:
    entries = [b'{"a":"' + b"x" * size + b'"}' for size in sizes]
    data = b"[" + b",\n".join(entries) + b"]"
    pieces = list(pieces_of(io.BytesIO(data)))
    assert [entry for piece in pieces for entry in piece.entries()] == entries
    assert [piece.place for piece in pieces] == [
        1 + sum(one.count for one in pieces[:number]) for number in range(len(pieces))
    ]
    assert count_of(io.BytesIO(data)) == len(entries)


def test_what_one_broken_entry_says_does_not_reach_the_next() -> None:
    entries = [b'{"a":"1"}', b'{"a":"x"y"}', b'{"a":"{[","b":"}"}', b'{"a":"4"}']
    assert cut(b"[" + b",".join(entries) + b"]") == entries


@pytest.mark.parametrize("data", [b"", b"{}", b"no list", b'"[', b"\xff\xfe[\x00"])
def test_what_does_not_begin_as_a_list_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedEntryError, match="Entry 1"):
        cut(data)


def test_a_list_of_enrollments_of_dps_is_told_as_one() -> None:
    with pytest.raises(MalformedEntryError, match="a list of DPS enrollments"):
        cut(b'[{"attestation": {"type": "x509"}, "registrationId": "pump-1"}]')


@pytest.mark.parametrize(
    ("magic", "unpack"), [(b"\x1f\x8b\x08", "gunzip"), (b"PK\x03\x04", "unzip"), (b"BZh9", "bunzip2")]
)
def test_a_packed_file_is_never_unpacked_but_named(magic: bytes, unpack: str) -> None:
    with pytest.raises(PackedManifestError) as refusal:
        cut(magic + bytes(1000))
    assert unpack in refusal.value.explain_fix()


def test_a_file_that_is_cut_off_gives_what_is_whole_and_says_where_it_ends() -> None:
    pieces = pieces_of(io.BytesIO(b'[{"a":"1"},{"a":"2"},{"a":"'))
    assert list(next(pieces).entries()) == [b'{"a":"1"}', b'{"a":"2"}']
    with pytest.raises(MalformedEntryError, match="Entry 3"):
        next(pieces)


def test_a_comma_at_the_end_is_told_after_the_entries() -> None:
    pieces = pieces_of(io.BytesIO(b'[{"a":"1"},]'))
    assert list(next(pieces).entries()) == [b'{"a":"1"}']
    with pytest.raises(MalformedEntryError, match="Entry 2: a comma is not followed by an entry"):
        next(pieces)


def test_an_endless_entry_is_refused_without_being_held() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return b'[{"payload":"' if self.given == size else b"a" * size

    endless = Endless()
    with pytest.raises(MalformedEntryError, match=f"Entry 1: an entry is larger than {MAX_ENTRY_BYTES}"):
        list(pieces_of(endless))  # type: ignore[arg-type]  # reads as a file does
    assert endless.given < 2**20


@given(st.binary(max_size=600))
def test_any_bytes_are_cut_or_refused(data: bytes) -> None:
    for candidate in (data, b"[" + data, b"[{" + data + b"}]"):
        try:
            assert all(isinstance(entry, bytes) for entry in cut(candidate))
        except ManifestError as error:
            assert error.explain_cause()


def test_what_stands_behind_the_last_entry_spoils_none() -> None:
    pieces = pieces_of(io.BytesIO(b'[{"a":1},{"b":2},null]'))
    assert list(next(pieces).entries()) == [b'{"a":1}', b'{"b":2}']
    with pytest.raises(MalformedEntryError, match="the text after the last entry, null, is not an entry"):
        next(pieces)
