"""What `--out` names is there whole, or stays as it was: a broker reads the list of who was revoked meanwhile."""

import errno
import os
import threading
from pathlib import Path

import pytest

from birthmark.cli.output.command_output import FileExistsAlreadyError, print_errors, replacing, write_result
from birthmark.fleet.device_outcome_report import FleetRun, Report
from support.fakes import NOON
from support.pki.pki_builders import a_key, key_pem


def full(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_write_that_fails_leaves_the_earlier_file_and_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "issuing.crl.pem"
    write_result(out, "earlier\n")
    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(Exception, match="1"), print_errors():
        write_result(out, "later\n")
    told = capsys.readouterr().err
    assert f"{out} cannot be used: no space left on device." in told
    assert "standard output" not in told
    assert out.read_text() == "earlier\n"
    assert [one.name for one in tmp_path.iterdir() if "crl" in one.name] == [out.name]


def test_nobody_sees_half_of_it(tmp_path: Path) -> None:
    out = tmp_path / "list.pem"
    write_result(out, "earlier\n")
    with out.open() as reader:
        write_result(out, "later, and longer\n")
        assert reader.read() == "earlier\n"
    assert out.read_text() == "later, and longer\n"


def test_the_file_keeps_who_may_read_it(tmp_path: Path) -> None:
    out = tmp_path / "list.pem"
    out.touch()
    for mode in (0o600, 0o664):
        out.chmod(mode)
        write_result(out, "text")
        assert out.stat().st_mode & 0o777 == mode
    if os.geteuid() == 0:
        os.chown(out, 1234, 1235)
        write_result(out, "text")
        assert (out.stat().st_uid, out.stat().st_gid) == (1234, 1235)


def test_a_new_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    write_result(tmp_path / "made/list.pem", "text")
    (tmp_path / "other").touch()
    assert (tmp_path / "made/list.pem").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_link_leads_to_the_file_and_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("earlier")
    (tmp_path / "link").symlink_to("kept")
    write_result(tmp_path / "link", "later")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "kept").read_text() == "later"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a link of another user")
def test_a_link_of_another_user_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("earlier")
    (tmp_path / "link").symlink_to("kept")
    os.lchown(tmp_path / "link", 65534, 65534)
    with pytest.raises(FileExistsAlreadyError):
        write_result(tmp_path / "link", "later")
    assert (tmp_path / "kept").read_text() == "earlier"


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_result(tmp_path / "pipe", "text")
    reader.join()
    assert heard == ["text"]
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_file_in_a_directory_of_another_user_is_written_where_it_is(tmp_path: Path) -> None:
    out = tmp_path / "list.pem"
    out.touch()
    os.chown(out, 65534, 65534)
    tmp_path.chmod(0o755)
    there = out.stat().st_ino
    directory = os.open(tmp_path, os.O_RDONLY)  # which leads there whoever may enter those above
    was = Path.cwd()
    os.fchdir(directory)
    os.seteuid(65534)
    try:
        write_result(Path("list.pem"), "text")
    finally:
        os.seteuid(0)
        os.chdir(was)
        os.close(directory)
    assert (out.read_text(), out.stat().st_ino) == ("text", there)


def test_an_earlier_result_is_kept_under_another_name_that_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "device.pem"
    for text in ("first", "second", "third"):
        write_result(out, text)
    assert [(tmp_path / name).read_text() for name in ("device.pem", "device.pem.old", "device.pem.old-2")] == [
        *("third", "first", "second")
    ]
    assert f"The previous device.pem was kept as {out}.old-2." in capsys.readouterr().err


def test_the_same_result_again_changes_nothing(tmp_path: Path) -> None:
    write_result(tmp_path / "device.pem", "text")
    seen = (tmp_path / "device.pem").stat()
    write_result(tmp_path / "device.pem", "text")
    assert (tmp_path / "device.pem").stat() == seen
    assert len(list(tmp_path.iterdir())) == 1


def test_a_list_replaces_the_earlier_one(tmp_path: Path) -> None:
    for text in ("-----BEGIN X509 CRL-----\nfirst", "-----BEGIN X509 CRL-----\nsecond"):
        write_result(tmp_path / "ca.crl", text, keeps=False)
    assert [one.read_text() for one in tmp_path.iterdir()] == [text]


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_private_key_is_never_replaced(tmp_path: Path, encoding: str, *, keeps: bool) -> None:
    (tmp_path / "device.key").write_text(pem := key_pem(a_key()), encoding=encoding)
    with pytest.raises(FileExistsAlreadyError):
        write_result(tmp_path / "device.key", "text", keeps=keeps)
    assert (tmp_path / "device.key").read_text(encoding=encoding) == pem


def test_what_is_written_line_by_line_keeps_the_earlier_one_too(tmp_path: Path) -> None:
    for text in (b"first", b"second"):
        with replacing(tmp_path / "head.json") as file:
            file.write(text)
    assert (tmp_path / "head.json.old").read_text() == "first"


def test_a_report_keeps_the_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text("my list")
    with Report(tmp_path / "run.csv", FleetRun("target", NOON, dry_run=False, command="x", title="Move"), lambda: NOON):
        pass
    assert (tmp_path / "run.csv.old").read_text() == "my list"
    assert (tmp_path / "run.csv").read_text().startswith("device,")


@pytest.mark.parametrize("earlier", [b"a table", b"\x30\x82\x01", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_revocation_list_takes_the_place_of_a_list_alone(tmp_path: Path, earlier: bytes) -> None:
    (out := tmp_path / "list.pem").write_bytes(earlier)
    for text in ("-----BEGIN X509 CRL-----\n1\n", "-----BEGIN X509 CRL-----\n2\n"):
        write_result(out, text, keeps=False)
    assert out.read_text() == text
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {text.encode(), earlier}
