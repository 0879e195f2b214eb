"""Makes the archive of a release, for the upgrade tests: run with that release's own code installed.

    PYTHONPATH=src python tests/upgrade/make.py OUT.tar.gz

What is in it: a server's data directory with something of each room, the devices' files, an agent's root, the journal
of an enrolled list, and a backup. That of 0.1.0 has less, under the names of then. Paths are written as `@HERE@`.
"""

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))


from support.agent.device import AgentOnDevice  # noqa: E402 - found only on that path
from support.server.servers import RunningServer, a_server  # noqa: E402 - as above

NAMES = ("by-group", "by-hand", "by-itself", "lost", "thing", "listed-1", "listed-2")
WITH_PATHS = ("agent/etc", "agent/var", "run.journal", "data/database.json", "data/endpoints.json")


def keep(tar: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out what says where and when it was made."""
    tar.uid = tar.gid = tar.mtime = 0
    tar.uname = tar.gname = ""
    return None if tar.name.endswith("bundle.pem") else tar


def main(out: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as text,
        a_server(Path(text), "[est]\ndevice_lifetime_s = 315360000\n") as server,
    ):
        directory = Path(text)
        at_azure(server, directory)
        at_aws(server, directory)
        by_est(server, directory)
        a_journal(server, directory)
        passphrase = directory / "backup.passphrase"
        passphrase.touch(mode=0o600)
        passphrase.write_text("of an upgrade's test\n")
        backup = ["server", "backup", "--out", str(directory / "server.birthmark")]
        server.run(*backup, "--passphrase-file", str(passphrase))
        (directory / "facts.json").write_text(json.dumps({"address": server.address}))
        server.stop()
        without_paths(directory)
        with tarfile.open(out, "w:gz") as tar:
            for path in sorted(directory.iterdir()):
                if path.name not in {"csr", "csr.b64", "data.log"}:
                    tar.add(path, path.name, filter=keep)


def at_azure(server: RunningServer, directory: Path) -> None:
    """A group of its own root, individual enrollments, telemetry, a twin, and a device that was lost."""
    server.run("ca", "init", "--name", "Upgrade", "--dir", str(directory / "ca"))
    for name in NAMES:
        made = ["--dir", str(directory / "ca"), "--out-dir", str(directory), "--lifetime", "3650d"]
        server.run("ca", "issue", name, *made)
    server.run("dps", "ca", "create", "own", str(directory / "ca" / "root.pem"), "--verified")
    server.run("device", "enroll-group", "fleet", "--ca-name", "own")
    for name in ("by-itself", "lost"):
        server.run("device", "enroll", name, "--cert", str(directory / f"{name}.cert.pem"))
    for name in ("by-group", "by-itself", "lost"):
        files = ["--cert", str(directory / f"{name}.cert.pem"), "--key", str(directory / f"{name}.key.pem")]
        server.run("device", "send", "hello", *files, **server.environment)
    server.run("hub", "twin", "by-group", "--desired", '{"interval": 5}', "--tags", '{"plant": "north"}')
    server.run("device", "revoke", "lost", "--yes")


def at_aws(server: RunningServer, directory: Path) -> None:
    """A thing with its certificate and a shadow."""
    thing = ["thing", "--to", "aws", "--cert", str(directory / "thing.cert.pem")]
    server.run("device", "enroll", *thing)
    server.run("aws", "shadow", "thing", "--desired", '{"interval": 7}')


def by_est(server: RunningServer, directory: Path) -> None:
    """A user for any name, certificates by it of which one is revoked, and an agent that applied."""
    (user,) = server.rows("pki", "user", "create", "factory", "--any-name")
    netrc = directory / "netrc"
    netrc.touch(mode=0o600)
    netrc.write_text(f"machine {server.address} login factory password {user['password']}\n")
    for name in ("est-device", "est-revoked"):
        key, csr = directory / f"{name}.key.pem", directory / "csr"
        made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key)]
        asked = ["openssl", "req", "-new", *made, "-subj", f"/O=Old/CN={name}", "-outform", "DER", "-out", str(csr)]
        subprocess.run(asked, check=True)
        subprocess.run(["openssl", "base64", "-in", csr, "-out", f"{csr}.b64"], check=True)
        post = ["curl", "-sSf", "--netrc-file", str(netrc), "-H", "Content-Type: application/pkcs10"]
        post += ["--data-binary", f"@{csr}.b64", "-o", str(directory / f"{name}.p7")]
        url = server.endpoints["est"]["url"] + "/simpleenroll"
        subprocess.run([*post, url], check=True, env=dict(server.environment))
    (row,) = server.rows("pki", "ls", "est-revoked")
    server.run("pki", "revoke", row["thumbprint"], "--reason", "keyCompromise", "--yes")
    server.run("dps", "ca", "create", "est-root", str(server.data / "ca" / "issuing.pem"), "--verified")
    server.run("device", "enroll-group", "est-group", "--ca-name", "est-root")
    AgentOnDevice(server, directory / "agent", "edge-1").configure().row("apply")


def a_journal(server: RunningServer, directory: Path) -> None:
    """A list of certificates that was enrolled, with the journal by which it can be taken back."""
    chips = directory / "chips"
    chips.mkdir()
    for name in ("listed-1", "listed-2"):
        shutil.copy(directory / f"{name}.cert.pem", chips / f"{name}.pem")
    known = ["--trust-root", str(directory / "ca" / "root.pem")]
    server.run("device", "enroll-list", str(chips), *known, "--journal", str(directory / "run.journal"))


def without_paths(directory: Path) -> None:
    """Write `@HERE@` where a file says in which directory all of this was made."""
    for place in WITH_PATHS:
        files = [one for one in (directory / place).rglob("*") if one.is_file()] or [directory / place]
        for path in files:
            if path.is_file():
                content = path.read_bytes()
                path.write_bytes(content.replace(str(directory).encode(), b"@HERE@"))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
