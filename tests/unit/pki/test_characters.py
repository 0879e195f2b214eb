"""PEM with a character that looks like one of PEM is told that character and its line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from birthmark.errors import BirthmarkError
from birthmark.keys.file_key import FileKey
from birthmark.pki.certificates import parse_bundle
from birthmark.pki.pem_armor import unarmor
from birthmark.server.custom_certificate import OwnCertificate
from support.fakes import NOON, FakeClock
from support.pki.pki_builders import a_device

DEVICE = a_device()
CERTIFICATE, KEY = DEVICE.certificate.pem(), DEVICE.key_pem


def edited(pem: str, edit: str) -> str:
    lines = pem.splitlines(keepends=True)
    if edit == "a blank":
        lines[0] = lines[0].replace("BEGIN ", "BEGIN\u00a0")
    elif edit == "a dash":
        lines[0] = lines[0].replace("-----", "\u2013---", 1)
    else:
        lines[1] = f"{lines[1][:9]}\u200b{lines[1][9:]}"
    return "".join(lines)


def key(directory: Path, raw: bytes) -> None:
    (path := directory / "key.pem").touch(0o600)
    path.write_bytes(raw)
    FileKey.load(path)


def own(directory: Path, raw: bytes) -> None:
    (directory / "own.key").write_bytes(raw)
    (directory / "own.pem").write_text(CERTIFICATE)
    OwnCertificate(directory / "own.pem", directory / "own.key", FakeClock(NOON), "hub.example").load()


READERS: dict[str, tuple[str, Callable[[Path, bytes], object]]] = {
    "a certificate": (CERTIFICATE, lambda _directory, raw: parse_bundle(raw)),
    "a key": (KEY, key),
    "an encrypted key": (KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"), key),
    "the server's own key": (KEY, own),
    "a request": (CERTIFICATE.replace("CERTIFICATE", "CERTIFICATE REQUEST"), lambda _directory, raw: unarmor(raw)),
}
EDITS = {"a blank": "line 1 has U+00A0", "a dash": "line 1 has U+2013", "an unseen one": "line 2 has U+200B"}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("what", READERS)
def test_each_reader_tells_the_line_and_the_character(tmp_path: Path, what: str, edit: str) -> None:
    pem, read = READERS[what]
    with pytest.raises(BirthmarkError) as refused:
        read(tmp_path, edited(pem, edit).encode())
    assert EDITS[edit] in refused.value.explain_cause()


@pytest.mark.parametrize("edit", ["a blank", "a dash"])
def test_the_code_page_of_windows_is_told_the_same(edit: str) -> None:
    with pytest.raises(BirthmarkError, match=EDITS[edit].replace("+", r"\+")):
        parse_bundle(edited(CERTIFICATE, edit).encode("cp1252"))


@pytest.mark.parametrize("edit", EDITS)
def test_no_certificate_of_a_chain_is_left_out(edit: str) -> None:
    with pytest.raises(BirthmarkError, match="which PEM does not allow"):
        parse_bundle(CERTIFICATE + edited(CERTIFICATE, edit))


def test_what_is_said_outside_the_blocks_is_free() -> None:
    assert len(parse_bundle(f"Ger\u00e4t \u2013 1\n{CERTIFICATE}    friendlyName: Gerät\n{CERTIFICATE}")) == 2
