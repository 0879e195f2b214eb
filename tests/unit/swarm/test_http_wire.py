"""Answers of HTTP/1.1 in any chunking."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.device_transports.ports import HttpResponse
from birthmark.swarm.http_wire import AnswerBrokenError, AnswerReader, render_request

BODY = st.binary(max_size=200)


def read(data: bytes, cuts: list[int], most: int = 1000) -> HttpResponse | None:
    reader, places = AnswerReader(most), sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        if (answer := reader.receive(data[start:end])) is not None:
            return answer
    return reader.end()


@given(body=BODY, cuts=st.lists(st.integers(0, 1000), max_size=5))
def test_a_body_with_a_length_is_read_in_any_chunking(body: bytes, cuts: list[int]) -> None:
    head = f"HTTP/1.1 201 Created\r\nContent-Length: {len(body)}\r\nX-One:  two \r\n\r\n".encode()
    answer = read(b"HTTP/1.1 100 Continue\r\n\r\n" + head + body, cuts)
    assert answer is not None
    assert (answer.status, answer.headers["x-one"], answer.body) == (201, "two", body)


@given(pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=5), cuts=st.lists(st.integers(0, 1000), max_size=5))
def test_a_chunked_body_is_read_in_any_chunking(pieces: list[bytes], cuts: list[int]) -> None:
    chunks = b"".join(b"%x;a=b\r\n%s\r\n" % (len(one), one) for one in pieces)
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: x\r\n\r\n"
    answer = read(data, cuts)
    assert answer is not None
    assert answer.body == b"".join(pieces)


def test_a_body_without_a_length_lasts_until_the_end() -> None:
    answer = read(b"HTTP/1.1 200 OK\r\n\r\nhello", [])
    assert answer is not None
    assert answer.body == b"hello"


def test_an_answer_that_is_cut_off_is_none() -> None:
    assert read(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", []) is None
    assert read(b"HTTP/1.1 200 O", []) is None


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1001),
        b"a" * 40_000,
    ],
)
def test_what_is_no_answer_or_too_much_of_one_is_refused(data: bytes) -> None:
    with pytest.raises(AnswerBrokenError):
        read(data, [])


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_anything_else_is_refused_or_waited_for_and_never_more(data: bytes, cuts: list[int]) -> None:
    for start in (b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        try:
            answer = read(start + data, cuts, most=100)
        except AnswerBrokenError:
            continue
        assert answer is None or len(answer.body) <= 100


def test_a_request_says_how_long_it_is_and_that_the_server_may_close() -> None:
    told = render_request("PUT", "/a", "host:1", {"X": "y"}, b"hello")
    assert told == b"PUT /a HTTP/1.1\r\nX: y\r\nHost: host:1\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
    assert b"Content-Length" not in render_request("GET", "/", "h", {}, b"")
