"""EST as a page of documentation would have it: openssl and curl alone."""

import subprocess
from pathlib import Path

from birthmark.pki.certificates import Certificate, parse_bundle
from servers import RunningServer


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
