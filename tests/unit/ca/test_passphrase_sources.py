"""The passphrase of a CA's keys: where it may be, and how it moves."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from birthmark import atomic_files
from birthmark.ca import ca_directory
from birthmark.ca.ca_directory import load
from birthmark.ca.hierarchy_files import finish
from birthmark.ca.key_files import SecretExposedError, SecretUnreadableError, read_pair
from birthmark.ca.passphrase_rotation import move
from birthmark.ca.passphrase_sources import (
    NewPassphraseError,
    Passphrase,
    PassphraseMissingError,
    SourceInvalidError,
    check_source,
)
from birthmark.errors import BirthmarkError
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.issuance import LeafIssuer
from support.fakes import NOON, SeededEntropy
from support.pki.pki_builders import a_ca


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    made = ca_directory.create(tmp_path / "ca", "Test", now=NOON, entropy=SeededEntropy())
    made.issuer(Purpose.EST, now=NOON, entropy=SeededEntropy(1))
    made.keeper.pair("ocsp-test", lambda _: True, a_responder)
    return tmp_path / "ca"


def a_responder() -> LeafIssuer:
    return a_ca("OCSP").as_issuer


def a_file(path: Path, text: str = "correct horse battery staple\n", mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return f"file:{path}"


@pytest.mark.parametrize("source", ["file:/a", "credential:ca", "fd:3", "prompt"])
def test_a_source_has_one_of_four_forms(source: str) -> None:
    assert check_source(source) == source


@pytest.mark.parametrize(
    "source",
    ["", "file:", "file:a", "secret", "fd:x", "fd:-1", "fd:1234567", "credential:", "credential:a/b", "prompt:x"],
)
def test_what_names_no_source_is_told_the_forms(source: str) -> None:
    with pytest.raises(SourceInvalidError, match="credential:NAME"):
        check_source(source)


def from_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Passphrase:
    reading, writing = os.pipe()
    os.write(writing, b"correct horse battery staple\n")
    os.close(writing)
    return Passphrase(tmp_path, f"fd:{reading}")


def from_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Passphrase:
    return Passphrase(tmp_path, a_file(tmp_path / "secret"))


def from_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Passphrase:
    a_file(tmp_path / "ca", mode=0o440)  # as systemd makes them
    return Passphrase(tmp_path, "credential:ca", {"CREDENTIALS_DIRECTORY": str(tmp_path)})


def from_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Passphrase:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    return Passphrase(tmp_path, "prompt", ask=lambda _: "correct horse battery staple")


@pytest.mark.parametrize("make", [from_descriptor, from_file, from_credential, from_prompt])
def test_each_source_gives_it_once_and_the_same_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path, pytest.MonkeyPatch], Passphrase]
) -> None:
    found = make(tmp_path, monkeypatch)
    assert found.reveal() == found.reveal() == b"correct horse battery staple"
    assert b"horse" not in repr(found).encode()


def a_typed_one(directory: Path, *typed: str, is_new: bool = False) -> Passphrase:
    answers = iter(typed)
    return Passphrase(directory, "prompt", ask=lambda _: next(answers), is_new=is_new)


def test_a_new_one_is_asked_for_twice_and_refused_where_the_two_differ(
    ca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    for of_new_keys in (a_typed_one(ca, "horse", "hose", is_new=True), a_typed_one(tmp_path / "new", "horse", "hose")):
        with pytest.raises(PassphraseMissingError) as refused:
            of_new_keys.reveal()
        assert "the second entry differs" in refused.value.explain_cause()
    assert a_typed_one(ca, "horse", "horse", is_new=True).reveal() == b"horse"


def test_one_that_keys_have_is_asked_for_once(ca: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert a_typed_one(ca, "horse").reveal() == b"horse"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "stored elsewhere"),
        ("file:/nowhere/at/all", "cannot be used"),
        ("credential:ca", "CREDENTIALS_DIRECTORY"),
        ("fd:9999", "bad file descriptor"),
        ("prompt", "not a terminal"),
    ],
)
def test_what_cannot_be_had_is_told_with_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None, reason: str
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with pytest.raises(PassphraseMissingError) as refused:
        Passphrase(tmp_path, source, {}).reveal()
    assert reason in refused.value.explain_cause()


def test_a_file_that_others_can_read_is_refused_and_so_is_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(SecretExposedError):
        Passphrase(tmp_path, a_file(tmp_path / "open", mode=0o644)).reveal()
    with pytest.raises(PassphraseMissingError):
        Passphrase(tmp_path, a_file(tmp_path / "empty", text="\n")).reveal()


@pytest.mark.parametrize("coded", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_passphrase_is_the_same_however_an_editor_writes_its_file(ca: Path, tmp_path: Path, coded: str) -> None:
    before = load(ca)
    new = Passphrase(ca, a_file(tmp_path / "secret"))
    move(ca, Passphrase(ca), new, SeededEntropy(5))
    (tmp_path / "secret").write_bytes("correct horse battery staple\r\n".encode(coded))
    assert load(ca, Passphrase(ca, new.source)).issuers == before.issuers


def test_a_passphrase_of_two_lines_is_refused(tmp_path: Path) -> None:
    source = a_file(tmp_path / "secret", text="correct horse\r\nbattery staple\r\n")
    with pytest.raises(PassphraseMissingError) as refused:
        Passphrase(tmp_path, source).reveal()
    assert "more than one line" in refused.value.explain_cause()


def test_a_new_one_that_cannot_be_it_is_told_as_the_new_one(ca: Path, tmp_path: Path) -> None:
    given = tmp_path / "secret"
    for content, reason in (
        (b"a\nb\n", "has more than one line"),
        (b"", "is empty"),
        ("gr\u00f6\u00dfe eins".encode("cp1252"), "is not UTF-8"),
        ("geheim\u00a0".encode(), "begins or ends with white space"),
        ("geheim\u200b\r\n".encode(), "begins or ends with U+200B"),
    ):
        given.write_bytes(content)
        given.chmod(0o600)
        with pytest.raises(NewPassphraseError) as refused:
            Passphrase(ca, f"file:{given}", is_new=True).reveal()
        assert str(refused.value.facts["reason"]).startswith(reason)
        assert ("secret.trimmed" in refused.value.explain_fix()) == reason.startswith("begins or ends")
        assert "gr\u00f6" not in str(refused.value) + refused.value.explain_cause() + refused.value.explain_fix()


@pytest.mark.parametrize("coded", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_keys_that_an_earlier_release_made_with_the_bytes_of_the_file_open(
    tmp_path: Path, coded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = a_file(tmp_path / "secret", text="")
    (tmp_path / "secret").write_bytes("correct\r\nhorse\r\n".encode(coded))
    with monkeypatch.context() as earlier:
        earlier.setattr(Passphrase, "_of_text", lambda _, data: data.strip())
        made = ca_directory.create(
            tmp_path / "ca", "Test", now=NOON, entropy=SeededEntropy(), passphrase=Passphrase(tmp_path / "ca", source)
        )
    assert load(tmp_path / "ca", Passphrase(tmp_path / "ca", source)).issuers == made.issuers


def test_all_keys_move_and_the_old_passphrase_opens_nothing(ca: Path, tmp_path: Path) -> None:
    before = load(ca)
    old = (ca / "passphrase").read_bytes().strip()
    new = Passphrase(ca, f"file:{tmp_path}/new/secret")
    assert move(ca, Passphrase(ca), new, SeededEntropy(5)) == 4
    assert (tmp_path / "new" / "secret").stat().st_mode & 0o777 == 0o600
    assert not (ca / "passphrase").exists()
    with pytest.raises(PassphraseMissingError):
        load(ca)
    with pytest.raises(SecretUnreadableError):
        read_pair(ca / "ocsp-test.pem", old)
    assert load(ca, new).issuers == before.issuers
    assert not list(ca.glob(".*"))


def test_it_comes_back_beside_them(ca: Path, tmp_path: Path) -> None:
    before, new = load(ca), Passphrase(ca, a_file(tmp_path / "secret"))
    move(ca, Passphrase(ca), new, SeededEntropy(5))
    move(ca, new, Passphrase(ca), SeededEntropy(6))
    assert load(ca).issuers == before.issuers
    assert (ca / "passphrase").stat().st_mode & 0o777 == 0o600


def test_what_is_made_afterwards_is_opened_by_the_new_one(ca: Path, tmp_path: Path) -> None:
    new = Passphrase(ca, a_file(tmp_path / "secret"))
    move(ca, Passphrase(ca), new, SeededEntropy(5))
    made = load(ca, new).issuer(Purpose.EDGE, now=NOON, entropy=SeededEntropy(7))
    assert load(ca, new).issuers[Purpose.EDGE] == made


def test_who_opened_the_keys_before_they_moved_makes_none_with_the_old_one(ca: Path, tmp_path: Path) -> None:
    before, new = load(ca), Passphrase(ca, a_file(tmp_path / "secret"))
    move(ca, Passphrase(ca), new, SeededEntropy(5))
    with pytest.raises(SecretUnreadableError):
        before.issuer(Purpose.EDGE, now=NOON, entropy=SeededEntropy(7))
    assert not (ca / "edge.key").exists()
    assert Purpose.EDGE not in load(ca, new).issuers


def test_nor_does_who_comes_before_a_move_that_counts_was_finished(
    ca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, new = load(ca), Passphrase(ca, a_file(tmp_path / "secret"))
    rename = Path.replace

    def cut(path: Path, target: Path) -> Path:
        if (ca / ".moving").exists():
            raise PowerCutError
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(PowerCutError):
        move(ca, Passphrase(ca), new, SeededEntropy(5))
    monkeypatch.undo()
    with pytest.raises(SecretUnreadableError):
        before.issuer(Purpose.EDGE, now=NOON, entropy=SeededEntropy(7))
    assert Purpose.EDGE not in load(ca, new).issuers


class PowerCutError(Exception):
    """The machine stops here."""


def test_a_power_cut_at_any_step_leaves_all_keys_with_one_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [0]
    replace = atomic_files.replace
    rename, unlink = Path.replace, Path.unlink

    def counted(action: Callable[..., object]) -> Callable[..., object]:
        def act(*arguments: object, **options: object) -> object:
            steps[0] -= 1
            if steps[0] == 0:
                raise PowerCutError
            return action(*arguments, **options)

        return act

    for cut_at in range(1, 40):
        ca = tmp_path / str(cut_at) / "ca"
        made = ca_directory.create(ca, "Test", now=NOON, entropy=SeededEntropy())
        new = Passphrase(ca, a_file(tmp_path / str(cut_at) / "secret"))
        with monkeypatch.context() as patched:
            patched.setattr(atomic_files, "replace", counted(replace))
            patched.setattr(Path, "replace", counted(rename))
            patched.setattr(Path, "unlink", counted(unlink))
            steps[0] = cut_at
            try:
                move(ca, Passphrase(ca), new, SeededEntropy(5))
                is_over = True
            except PowerCutError:
                is_over = False
        finish(ca)
        opened_by = Passphrase(ca) if (ca / "passphrase").exists() else new
        assert load(ca, opened_by).issuers == made.issuers, cut_at
        if is_over:
            break
    assert is_over


def test_a_new_one_is_told_how_its_file_becomes_right(tmp_path: Path) -> None:
    (file := tmp_path / "secret").touch(0o600)
    for content, advice in (
        (b"", "Put only the passphrase in the file, on one line."),
        (b"one\ntwo\n", "Put only the passphrase in the file, on one line."),
        ("Ger\u00e4te genug".encode("cp1252"), "Save it as UTF-8 in the editor that created it."),
    ):
        file.write_bytes(content)
        for is_new in (False, True):
            with pytest.raises(BirthmarkError) as refused:
                Passphrase(tmp_path / "ca", f"file:{file}", is_new=is_new).reveal()
            assert advice in refused.value.explain_fix()
