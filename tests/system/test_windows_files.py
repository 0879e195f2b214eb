"""Files as Windows writes them: each is read, or refused with commands that lead to one that is."""

import base64
import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs7, pkcs12

from support.pki.pki_builders import a_ca, a_device
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system

NOW = datetime.now(UTC)
CA = a_ca("Werk CA", now=NOW)
DEVICE = a_device(CA, "werk-1", now=NOW, lifetime=timedelta(days=1))
CHAIN = [CA.certificate.parsed, DEVICE.certificate.parsed]


def armored(label: str, der: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


def pfx(*, has_key: bool) -> bytes:
    """Return PKCS#12 without a password, as the test types none."""
    key = DEVICE.private_key if has_key else None
    leaf = DEVICE.certificate.parsed if has_key else None
    return pkcs12.serialize_key_and_certificates(None, key, leaf, CHAIN[:1] if has_key else CHAIN, NoEncryption())


P7B = pkcs7.serialize_certificates(CHAIN, Encoding.DER)
DERS = {"P7B": P7B, "PFX": pfx(has_key=True), "PFX without key": pfx(has_key=False), "DER": DEVICE.certificate.der}
WRITERS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "in base64": base64.b64encode,
    "by certutil -encode": lambda der: armored("CERTIFICATE", der).replace("\n", "\r\n").encode(),
    "by certutil -encode in UTF-16": lambda der: armored("CERTIFICATE", der).encode("utf-16"),
}
FORMS = {
    "PEM, CA first": (CA.certificate.pem() + DEVICE.certificate.pem()).encode(),
    "P7B of OpenSSL": armored("PKCS #7 SIGNED DATA", P7B).encode(),
} | {f"{kind} {name}": write(der) for kind, der in DERS.items() for name, write in WRITERS.items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def typed(fix: str, directory: Path) -> Path:
    """Type the first command of a fix, without a password, and return the file that it writes."""
    command = fix.split("`")[1].replace(" pkcs12 ", " pkcs12 -passin pass: ")
    subprocess.run(["sh", "-c", command], cwd=directory, check=True)
    return directory / shlex.split(command.rpartition("> ")[2].rstrip(")"))[0]


@pytest.mark.parametrize("form", FORMS)
def test_the_printed_commands_lead_to_a_file_that_enrolls_the_device(
    server: RunningServer, tmp_path: Path, form: str
) -> None:
    (file := tmp_path / "a file.cer").write_bytes(FORMS[form])
    for _ in range(3):
        done = server.attempt("device", "enroll", "--cert", str(file), "--dry-run", "--json")
        if done.returncode == 0:
            break
        file = typed(json.loads(done.stderr)["fix"], tmp_path)
    assert json.loads(done.stdout)["thumbprint"] == DEVICE.certificate.thumbprint.hex(), done.stderr


def test_a_ca_before_several_devices_is_none_of_them(server: RunningServer, tmp_path: Path) -> None:
    every = [CA, DEVICE, a_device(CA, "werk-2", now=NOW)]
    (file := tmp_path / "all.pem").write_text("".join(one.certificate.pem() for one in every))
    done = server.attempt("device", "enroll", "--cert", str(file), "--force")
    assert "certificates of several devices; use one file for each" in " ".join(done.stderr.split())


def test_a_ca_is_not_offered_to_be_enrolled_by_force(server: RunningServer, tmp_path: Path) -> None:
    (file := tmp_path / "ca.pem").write_text(CA.certificate.pem())
    done = server.attempt("device", "enroll", "--cert", str(file))
    assert done.returncode == 6
    assert "--force" not in done.stderr
    assert "Use the device's own certificate" in " ".join(done.stderr.split())


@pytest.mark.parametrize("service", ["hub", "dps"])
def test_a_device_in_the_place_of_a_ca_is_offered_by_its_own_file(
    server: RunningServer, tmp_path: Path, service: str
) -> None:
    given, other = tmp_path / "given of werk.pem", tmp_path / "other.pem"
    given.write_text(DEVICE.certificate.pem())
    other.write_text(a_device(CA, "werk-2", now=NOW, lifetime=timedelta(days=1)).certificate.pem())
    done = server.attempt(service, "ca", "create", "no-ca", str(given), X509_CERT_FILE=str(other))
    assert done.returncode != 0
    assert f"--cert {shlex.quote(str(given))}" in " ".join(done.stderr.split())
    assert service == "dps" or "device create werk-1 " in done.stderr
