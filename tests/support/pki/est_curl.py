"""EST as a page of documentation would have it: openssl and curl alone."""

import subprocess
from pathlib import Path

from birthmark.est.wire import parse_certs_only
from birthmark.pki.certificates import Certificate, parse_bundle
from support.server.servers import RunningServer


def enroll_by_curl(server: RunningServer, directory: Path, name: str) -> Certificate:
    """Enroll by EST with openssl and curl alone, and return the certificate."""
    key, csr, user = directory / "est.key", directory / "est.csr", directory / "est.netrc"
    environment = dict(server.environment)
    command = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(key), "-subj", f"/CN={name}", "-outform", "DER", "-out", str(csr)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    subprocess.run(["openssl", "base64", "-in", str(csr), "-out", str(csr) + ".b64"], check=True, env=environment)
    est, credential = server.endpoints["est"], server.est_credential(name)
    user.write_text(f"machine {server.address} login {credential.name} password {credential.password}\n")
    user.chmod(0o600)
    post = ["curl", "-sSf", "--netrc-file", str(user), "-H", "Content-Type: application/pkcs10"]
    post += ["--data-binary", f"@{csr}.b64", "-o", str(directory / "est.p7"), est["url"] + "/simpleenroll"]
    done = subprocess.run(post, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    pem = "-----BEGIN PKCS7-----\n" + (directory / "est.p7").read_text().strip() + "\n-----END PKCS7-----\n"
    out = subprocess.run(
        ["openssl", "pkcs7", "-print_certs"], input=pem, check=True, capture_output=True, text=True, env=environment
    )
    return parse_bundle(out.stdout)[0]


class EstByCurl:
    """A device that has openssl and curl, and a server to ask; its files lie in a directory."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        self.server = server
        self.directory = directory

    def enrolled(self, name: str) -> Certificate:
        """Get a first certificate by a password, and keep it."""
        credential = self.server.est_credential(name)
        status, body = self._post("simpleenroll", name, "-u", f"{credential.name}:{credential.password}")
        assert status == 200, body
        return self._kept(name, body)

    def renewed(self, name: str) -> Certificate:
        """Renew by the certificate there is."""
        status, body = self._post("simplereenroll", name, *self._pair(name))
        assert status == 200, body
        return self._kept(name, body)

    def status(self, name: str, password: str | None = None, *, san: str | None = None) -> int:
        """Return how a first request ends; `san` as openssl writes it."""
        if password is None:
            password = ":".join(self.server.est_credential(name))
        return self._post("simpleenroll", name, "-u", password, san=san)[0]

    def renewal_status(self, name: str) -> int:
        """Return how a renewal ends."""
        return self._post("simplereenroll", name, *self._pair(name))[0]

    def cacerts(self) -> tuple[Certificate, ...]:
        """Return the CAs that the server hands out."""
        out = self.directory / "cacerts.b64"
        url = f"{self.server.endpoints['est']['url']}/cacerts"
        subprocess.run(["curl", "-sSf", "--cacert", self._trust, "-o", str(out), url], check=True)
        return parse_certs_only(out.read_bytes())

    @property
    def _trust(self) -> str:
        return str(self.server.endpoints["trust_bundle"])

    def _pair(self, name: str) -> tuple[str, ...]:
        return ("--cert", str(self.directory / f"{name}.pem"), "--key", str(self.directory / f"{name}.key"))

    def _post(self, operation: str, name: str, *proof: str, san: str | None = None) -> tuple[int, bytes]:
        key, csr, out = (self.directory / f"{name}.{kind}" for kind in ("key", "csr", "answer"))
        made = ["openssl", "req", "-new", "-subj", f"/CN={name}", "-outform", "DER", "-out", str(csr)]
        made += [] if san is None else ["-addext", f"subjectAltName={san}"]
        fresh = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key)]
        subprocess.run([*made, *(["-key", str(key)] if key.exists() else fresh)], check=True, capture_output=True)
        encoded = subprocess.run(["openssl", "base64", "-in", str(csr)], check=True, capture_output=True).stdout
        post = ["curl", "-sS", "--cacert", self._trust, *proof, "-H", "Content-Type: application/pkcs10"]
        post += ["--data-binary", "@-", "-o", str(out), "-w", "%{http_code}"]
        url = f"{self.server.endpoints['est']['url']}/{operation}"
        done = subprocess.run([*post, url], input=encoded, check=True, capture_output=True)
        return int(done.stdout), out.read_bytes()

    def _kept(self, name: str, body: bytes) -> Certificate:
        (leaf,) = parse_certs_only(body)
        (self.directory / f"{name}.pem").write_text(leaf.pem())
        return leaf
