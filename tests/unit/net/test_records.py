"""A stream of TLS is cut between records, and nothing of it is lost."""

from hypothesis import given
from hypothesis import strategies as st

from birthmark.net.accepted_connection import TlsRecords

RECORDS = st.lists(st.binary(max_size=40).map(lambda body: b"\x17\x03\x03" + len(body).to_bytes(2) + body), max_size=20)


def taken(records: TlsRecords, count: int) -> list[bytes]:
    parts = []
    while part := records.take(count):
        parts.append(part)
    return parts


@given(RECORDS, st.integers(1, 5))
def test_so_many_whole_records_are_taken_at_once(stream: list[bytes], count: int) -> None:
    records = TlsRecords()
    records.add(b"".join(stream))
    assert taken(records, count) == [b"".join(stream[at : at + count]) for at in range(0, len(stream), count)]


@given(RECORDS, st.integers(1, 5), st.integers(1, 30))
def test_nothing_is_lost_however_the_stream_comes(stream: list[bytes], count: int, step: int) -> None:
    records, whole, got = TlsRecords(), b"".join(stream), b""
    for at in range(0, len(whole), step):
        records.add(whole[at : at + step])
        got += b"".join(taken(records, count))
    assert got == whole


def test_what_there_is_of_a_record_is_taken_when_it_is_there() -> None:
    records = TlsRecords()
    records.add(b"\x17\x03\x03\x00\x08abc")
    assert records.take(1) == b"\x17\x03\x03\x00\x08abc"
    records.add(b"defgh\x17\x03")
    assert (records.take(1), records.taken) == (b"defgh", 0)
    assert records.take(1) == b""


@given(st.binary(max_size=200), st.integers(1, 5))
def test_what_is_no_tls_is_handed_on_too(junk: bytes, count: int) -> None:
    records = TlsRecords()
    records.add(junk)
    got = b"".join(taken(records, count))
    assert junk.startswith(got)
    assert len(junk) - len(got) < 5
