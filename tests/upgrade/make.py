"""Makes the data directory of a release, for the upgrade tests: run with that release's own code installed.

    PYTHONPATH=src python tests/upgrade/make.py OUT.tar.gz

What is in it: a group of its own root and a device that registered by it and sent a message, an individual enrollment
that registered, an EST user for any name and a certificate by it, a revocation.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent.parent
sys.path.insert(0, str(HERE))


from servers import a_server  # noqa: E402 - found only on that path


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
        server.run("ca", "init", "--name", "Upgrade", "--dir", str(directory / "ca"))
        for name in ("by-group", "by-hand", "by-itself"):
            server.run(
                "ca", "issue", name, "--dir", str(directory / "ca"), "--out-dir", str(directory), "--lifetime", "3650d"
            )
        server.run("dps", "ca", "create", "own", str(directory / "ca" / "root.pem"), "--verified")
        server.run("device", "enroll-group", "fleet", "--ca-name", "own")
        server.run("device", "enroll", "by-itself", "--cert", str(directory / "by-itself.cert.pem"))
        for name in ("by-group", "by-itself"):
            files = ["--cert", str(directory / f"{name}.cert.pem"), "--key", str(directory / f"{name}.key.pem")]
            server.run("device", "send", "hello", *files, **server.environment)
        est = server.endpoints["est"]
        netrc = directory / "netrc"
        netrc.touch(mode=0o600)
        netrc.write_text(f"machine {server.address} login {est['username']} password {est['password']}\n")
        for name in ("est-device", "est-revoked"):
            key, csr = directory / f"{name}.key.pem", directory / "csr"
            command: list[str | Path] = [
                "openssl",
                "req",
                "-new",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ]
            subprocess.run(
                [*command, "-keyout", key, "-subj", f"/O=Old/CN={name}", "-outform", "DER", "-out", csr], check=True
            )
            subprocess.run(["openssl", "base64", "-in", csr, "-out", f"{csr}.b64"], check=True)
            post: list[str | Path] = ["curl", "-sSf", "--netrc-file", netrc, "-H", "Content-Type: application/pkcs10"]
            post += ["--data-binary", f"@{csr}.b64", "-o", directory / f"{name}.p7", est["url"] + "/simpleenroll"]
            subprocess.run(post, check=True, env=dict(server.environment))
        (row,) = server.rows("pki", "ls", "est-revoked")
        server.run("pki", "revoke", row["thumbprint"], "--reason", "keyCompromise")
        (directory / "facts.json").write_text(json.dumps({"address": server.address, "est": est}))
        server.stop()
        with tarfile.open(out, "w:gz") as tar:
            for path in (
                "data",
                "ca",
                "facts.json",
                *(p.name for p in directory.glob("*.pem")),
                *(p.name for p in directory.glob("*.p7")),
            ):
                tar.add(directory / path, path, filter=keep)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
