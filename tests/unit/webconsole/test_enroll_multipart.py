"""The form with files that a browser sends: its headers are read in time that grows with their length."""

from pathlib import Path

import pytest

from birthmark.webconsole.enroll.multipart import DropRefusedError, Receiver, parse_header


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("multipart/form-data; boundary=x", ("multipart/form-data", {"boundary": "x"})),
        ('Multipart/Form-Data ;  boundary="a b"', ("multipart/form-data", {"boundary": "a b"})),
        ('form-data; name="files"; filename="a;b.pem"', ("form-data", {"name": "files", "filename": "a;b.pem"})),
        (r'form-data; name="files"; filename="a\"b"', ("form-data", {"name": "files", "filename": 'a"b'})),
        ('form-data; name="files"; filename=""', ("form-data", {"name": "files", "filename": ""})),
        ("form-data", ("form-data", {})),
        ("form-data; name=", ("form-data", {"name": ""})),
        ('form-data; name="x', ("form-data", {"name": ""})),
    ],
)
def test_a_header_has_a_value_and_parameters(text: str, expected: tuple[str, dict[str, str]]) -> None:
    assert parse_header(text) == expected


@pytest.mark.parametrize("rest", ['a="' + ";" * 31_000, ";" * 31_000, "a=" * 15_000, "a=b;" * 8_000, '"\\' * 15_000])
def test_a_header_that_is_too_long_is_not_read(rest: str, tmp_path: Path) -> None:
    with pytest.raises(DropRefusedError):
        Receiver(tmp_path, lambda _: None).begin(f"multipart/form-data; boundary=x; {rest}")


@pytest.mark.parametrize("header", ["X: " + "x" * 3000, "".join(f"X-{number}: 1\r\n" for number in range(40))])
def test_the_headers_of_a_part_are_bounded(header: str, tmp_path: Path) -> None:
    receiver = Receiver(tmp_path, lambda _: None)
    receiver.begin("multipart/form-data; boundary=x")
    with pytest.raises(DropRefusedError):
        receiver.take(f"--x\r\n{header}\r\n\r\n".encode())
