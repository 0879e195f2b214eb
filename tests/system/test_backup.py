"""A backup of a server under load, restored on an empty machine: it verifies, issues, revokes, and repeats nothing."""

import json
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography import x509

from birthmark.pki.certificates import Certificate
from birthmark.server.backup.archive import BUILDING
from support.azure.clients import a_file_device
from support.pki.est_curl import EstByCurl, enroll_by_curl
from support.server.servers import BIRTHMARK, RunningServer, a_server, clean_environment

pytestmark = pytest.mark.system
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "backup.passphrase"
    path.write_text(PASSPHRASE + "\n")
    path.chmod(0o600)
    return path


class Load:
    """Devices that enroll one after the other for as long as it goes on."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        self._server, self._directory = server, directory
        self._is_over = threading.Event()
        self.issued: list[Certificate] = []
        self._thread = threading.Thread(target=self._enroll)

    def __enter__(self) -> Self:
        self._directory.mkdir()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _enroll(self) -> None:
        while not self._is_over.is_set():
            self.issued.append(enroll_by_curl(self._server, self._directory, f"load-{len(self.issued)}"))


def crl_number(pem: str) -> int:
    listed = x509.load_pem_x509_crl(pem.encode())
    return listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_a_server_backed_up_under_load_comes_back_whole(tmp_path: Path, secret: Path) -> None:
    with a_server(tmp_path) as server:
        first = enroll_by_curl(server, tmp_path, "device-1")
        server.run("pki", "revoke", first.thumbprint.hex())
        number = crl_number(server.run("pki", "crl").stdout)
        token = server.rows("pki", "token", "create", "device-9")[0]
        assert token["name"] in {row["name"] for row in server.rows("pki", "user", "ls")}
        with Load(server, tmp_path / "load") as load:
            enough = threading.Event()
            while len(load.issued) < 2:
                enough.wait(0.05)
            out = str(tmp_path / "server.birthmark")
            before = len(load.issued)
            server.run("server", "backup", "--out", out, "--passphrase-file", str(secret))
        later = enroll_by_curl(server, tmp_path, "device-later")
        server.run("pki", "revoke", "--device", "load-0", "--reason", "keyCompromise")
        server.run("pki", "crl")
        told = server.run("server", "audit", "export", "--rows").stdout
        (tmp_path / "audit.jsonl").write_text(told)
        server.stop()

        new = tmp_path / "restored"
        options = ["--data", str(new), "--passphrase-file", str(secret), "--replay", str(tmp_path / "audit.jsonl")]
        done = json.loads(server.run("server", "restore", out, *options, "--json").stdout)
        assert (done["tokens_dropped"], done["revoked_again"], done["came_back"]) == (1, 1, [])
        assert not {"endpoints.json", "server.lock"} & {one.name for one in new.iterdir()}
        assert (new / "ca" / "root.key").stat().st_mode & 0o777 == 0o600
        shutil.rmtree(server.data)
        shutil.move(new, server.data)
        server.start()

        assert server.rows("server", "audit", "verify")[0]["rows"] > 3
        known = {row["device"]: row for row in server.rows("pki", "ls", "--all")}
        assert {f"load-{number}" for number in range(before)} <= known.keys()
        assert known["device-1"]["revoked"]
        assert known["load-0"]["revoked"]
        assert later.subject_cn not in known
        assert crl_number(server.run("pki", "crl").stdout) > number + 1000
        assert token["name"] not in {row["name"] for row in server.rows("pki", "user", "ls")}
        again = enroll_by_curl(server, tmp_path, "device-2")
        server.run("pki", "revoke", again.thumbprint.hex())
        assert server.rows("server", "audit", "verify")


def test_a_key_that_was_taken_back_since_the_backup_gets_no_certificate_after_the_restore(
    tmp_path: Path, secret: Path
) -> None:
    with a_server(tmp_path) as server:
        device, out, told = EstByCurl(server, tmp_path), str(tmp_path / "server.birthmark"), tmp_path / "audit.jsonl"
        before = [device.enrolled(name) for name in ("stolen", "renewed")]
        server.run("server", "backup", "--out", out, "--passphrase-file", str(secret))
        later = device.enrolled("later")
        for one, reason in ((before[0], "keyCompromise"), (later, "keyCompromise"), (before[1], "superseded")):
            server.run("pki", "revoke", one.thumbprint.hex(), "--reason", reason)
        told.write_text(server.run("server", "audit", "export", "--rows").stdout)
        server.stop()
        put_in_its_place(server, out, secret, told)
        server.start()

        for name in ("stolen", "later"):
            assert device.status(name) == 403
            assert server.why(name)["code"] == "ca.key_revoked"
        assert device.renewal_status("renewed") == 403
        assert device.status("renewed") == 200, "only the certificate was superseded"


def test_where_no_server_is_no_passphrase_is_asked_for(tmp_path: Path) -> None:
    command = [BIRTHMARK, "server", "backup", "--data", str(tmp_path), "--out", str(tmp_path / "b")]
    environment = clean_environment(HOME=str(tmp_path))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "server.nothing_to_back_up" in done.stderr, done.stderr


def test_the_file_opens_by_its_passphrase_alone_and_by_common_tools(tmp_path: Path, secret: Path) -> None:
    with a_server(tmp_path) as server:
        out = tmp_path / "server.birthmark"
        server.run("server", "backup", "--out", str(out), "--passphrase-file", str(secret))
        listed = subprocess.run(["tar", "tf", out], check=True, capture_output=True, text=True).stdout.split()
        assert listed == ["key.age", "backup.tar.gz.age"]
        assert out.stat().st_mode & 0o777 == 0o600
        assert not list(server.data.glob(".backup-*"))
        assert server.attempt("server", "backup", "--out", str(out), "--passphrase-file", str(secret)).returncode == 1
        secret.write_text("another\n")
        refused = server.attempt(
            "server", "restore", str(out), "--data", str(tmp_path / "x"), "--passphrase-file", str(secret)
        )
        assert "server.backup_unreadable" in refused.stderr
        assert not (tmp_path / "x").exists()


def test_a_passphrase_that_does_not_open_is_told_the_white_space_around_it(tmp_path: Path, secret: Path) -> None:
    with a_server(tmp_path) as server:
        out, options = str(tmp_path / "b"), ("--passphrase-file", str(secret))
        server.run("server", "backup", "--out", out, *options)
        secret.write_text(f"{secret.read_text().strip()} \n")
        refused = server.attempt("server", "restore", out, "--data", str(tmp_path / "x"), *options)
    assert "white space" in refused.stderr
    assert "sed" in refused.stderr


def test_a_backup_that_is_told_to_end_leaves_nothing_behind(tmp_path: Path, secret: Path) -> None:
    """The database is copied already, and a file follows that takes a while."""
    with a_server(tmp_path) as server:
        place = tmp_path / "backups"
        place.mkdir()
        line = [BIRTHMARK, "server", "backup", "--out", str(place / "b"), "--passphrase-file", str(secret)]
        environment = clean_environment(BIRTHMARK_DATA=str(server.data), HOME=str(tmp_path))
        (server.data / "large").touch()
        os.truncate(server.data / "large", 16 << 30)
        process = subprocess.Popen(line, env=environment)
        while not [one for one in place.glob(BUILDING) if one.stat().st_size]:
            assert process.poll() is None
        assert list(server.data.glob(".backup-*/birthmark.db"))
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
        assert not list(server.data.glob(".backup*"))
        assert not list(place.iterdir())
        (server.data / "large").unlink()
        assert server.run("server", "backup", *line[3:]).returncode == 0


@pytest.mark.parametrize("is_forgotten", [False, True], ids=["file", "variable"])
def test_a_backup_finds_the_database_of_the_server_or_is_refused(
    tmp_path: Path, secret: Path, postgres_url: str, *, is_forgotten: bool
) -> None:
    """A stale file lies where the records were before they moved to PostgreSQL."""
    command = ["server", "backup", "--out", str(tmp_path / "b"), "--passphrase-file", str(secret)]
    with a_server(tmp_path) as before:
        before.stop()
    moved = f'database = "{postgres_url}"\n'
    (tmp_path / "data" / "operator.token").unlink()  # an empty database shall begin under the same CA
    environment = {"BIRTHMARK_DATABASE": postgres_url} if is_forgotten else {}
    with a_server(tmp_path, "" if is_forgotten else moved, environment=environment) as server:
        leaf = enroll_by_curl(server, tmp_path, "in-postgresql")
        done = server.attempt(*command)
        if is_forgotten:
            assert (done.returncode, "server.database_elsewhere" in done.stderr) == (1, True)
            done = server.attempt(*command, BIRTHMARK_DATABASE=postgres_url)
        assert done.returncode == 0, done.stderr
        assert "verify" not in server.run("server", "audit", "verify").stderr
        server.stop()
    restored = tmp_path / "restored"
    server.run("server", "restore", str(tmp_path / "b"), "--data", str(restored), "--passphrase-file", str(secret))
    server.config, server.data, server.environment_of_server = None, restored, {}
    server.start()
    assert server.rows("pki", "ls", leaf.thumbprint.hex())
    server.stop()


def test_all_of_a_server_on_postgresql_comes_back_by_commands_that_know_nothing_before(
    tmp_path: Path, secret: Path, postgres_url: str
) -> None:
    """A warm interpreter has every room loaded, and its commands know more than those that are typed."""

    def cold(*line: str) -> subprocess.CompletedProcess[str]:
        environment = clean_environment(BIRTHMARK_DATA=str(server.data), HOME=str(tmp_path), **passphrase)
        return subprocess.run([BIRTHMARK, *line], check=True, capture_output=True, text=True, env=environment)

    passphrase, out = {"BIRTHMARK_BACKUP_PASSPHRASE_FILE": str(secret)}, str(tmp_path / "b")
    with a_server(tmp_path, f'database = "{postgres_url}"\n', is_warm=False) as server:
        device = a_file_device(tmp_path, "kept-1")
        cold("device", "enroll", "--cert", str(device.certificate_file))
        issued = enroll_by_curl(server, tmp_path, "kept-2")
        cold("server", "backup", "--out", out)
        server.stop()
        restored = tmp_path / "restored"
        cold("server", "restore", out, "--data", str(restored))
        server.config, server.data = None, restored
        server.start()
        files = ("--cert", str(device.certificate_file), "--key", str(device.key_file))
        server.run("device", "register", *files, **server.environment)
        assert server.rows("pki", "ls", issued.thumbprint.hex())
        assert len(server.rows("aws", "key", "ls")) == 1
        assert server.rows("server", "audit", "verify")


def test_a_device_that_was_lost_since_the_backup_is_taken_back_whole_before_the_restored_server_listens(
    tmp_path: Path, secret: Path
) -> None:
    with a_server(tmp_path) as server:
        device, out, told = a_file_device(tmp_path, "lost-1"), str(tmp_path / "b"), tmp_path / "audit.jsonl"
        files = ("--cert", str(device.certificate_file), "--key", str(device.key_file))
        server.run("device", "enroll", "--cert", str(device.certificate_file))
        server.run("device", "register", *files, **server.environment)
        server.run("server", "backup", "--out", out, "--passphrase-file", str(secret))
        server.run("device", "revoke", device.name, "--reason", "keyCompromise", "--yes")
        told.write_text(server.run("server", "audit", "export", "--rows").stdout)
        server.stop()
        assert put_in_its_place(server, out, secret, told)["devices_taken_back_again"] == 1
        server.start()

        states = {(row["place"], row["what"]): row["state"] for row in server.rows("device", "show", device.name)}
        assert states["dps birthmark", "enrollment"] == states["hub birthmark", "device"] == "disabled"
        assert server.attempt("device", "register", *files, **server.environment).returncode != 0
        assert server.attempt("device", "revoke", device.name, "--dry-run").stdout.count("would be") == 0


def test_what_was_switched_off_or_removed_since_the_backup_is_so_after_the_restore(
    tmp_path: Path, secret: Path
) -> None:
    with a_server(tmp_path) as server:
        device, out, told = a_file_device(tmp_path, "off-1"), str(tmp_path / "b"), tmp_path / "audit.jsonl"
        files = ("--cert", str(device.certificate_file), "--key", str(device.key_file))
        server.run("device", "enroll", "--cert", str(device.certificate_file))
        server.run("device", "register", *files, **server.environment)
        server.run("pki", "user", "create", "installer", "--device", "off-2")
        key = server.rows("aws", "key", "create", "nightly")[0]["access_key_id"]
        server.run("server", "backup", "--out", out, "--passphrase-file", str(secret))
        server.run("device", "disable", device.name)
        server.run("hub", "device", "disable", device.name)
        server.run("pki", "user", "rm", "installer", "--yes")
        server.run("aws", "key", "rm", key, "--yes")
        server.run("hub", "key", "--rotate", "primary")
        server.run("server", "audit", "export", "--rows", "--out", str(told))
        server.stop()
        done = put_in_its_place(server, out, secret, told)
        assert done["came_back"] == [{"what": "keys of hub", "name": "birthmark iothubowner primary"}]
        server.start()
        states = {row["what"]: row["state"] for row in server.rows("device", "show", device.name)}
        assert states["enrollment"] == states["device"] == "disabled"
        assert server.attempt("device", "register", *files, **server.environment).returncode != 0
        assert "installer" not in {row["name"] for row in server.rows("pki", "user", "ls")}
        assert key not in {row["access_key_id"] for row in server.rows("aws", "key", "ls")}


def put_in_its_place(server: RunningServer, out: str, secret: Path, told: Path) -> dict[str, Any]:
    """Restore into another directory, which then stands where the server's was."""
    restored = server.data.with_name("restored")
    line = ["server", "restore", out, "--data", str(restored), "--passphrase-file", str(secret), "--replay", str(told)]
    done: dict[str, Any] = json.loads(server.run(*line, "--json").stdout)
    shutil.rmtree(server.data)
    shutil.move(restored, server.data)
    return done
