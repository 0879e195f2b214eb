"""`openssl verify -crl_check_all` and `openssl ocsp` agree with a running server on good, revoked and unknown.

Every certificate says where to ask; openssl asks there, over plain HTTP, and over TLS by the EST and HTTPS ports.
"""

import base64
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509

from birthmark.ca.server_certificates import excluding
from birthmark.pki import certificate_profiles
from birthmark.pki.certificates import Certificate, parse_pem
from birthmark.pki.issuance import issue
from birthmark.pki.names_and_registration_ids import name_of
from support.fakes import NOON
from support.pki.est_curl import enroll_by_curl
from support.pki.ocsp_requests import a_request
from support.pki.pki_builders import Holder, a_ca, a_device, a_key
from support.server.servers import RunningServer, a_server, free_address

pytestmark = pytest.mark.system
PORT = 8087
GOOD, REVOKED, UNKNOWN = "device-good", "device-revoked", "device-unknown"


@dataclass(frozen=True)
class World:
    """A server, and one device of each kind; the unknown one is of a serial number that was never issued."""

    server: RunningServer
    directory: Path
    devices: dict[str, Certificate]

    def file(self, name: str) -> Path:
        return self.directory / f"{name}.pem"

    @property
    def url(self) -> str:
        return f"http://{self.server.address}:{PORT}"

    def openssl(self, *arguments: str | Path) -> str:
        """Run openssl and return what it says; it must succeed."""
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def curl(self, *arguments: str) -> bytes:
        trust = str(self.server.data / "trust.pem")
        done = subprocess.run(["curl", "-sSf", "--cacert", trust, *arguments], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory, address = tmp_path_factory.mktemp("pki"), free_address()
    config = f'[ports]\npki = {PORT}\n[ca]\npublic_url = "http://{address}:{PORT}"\nrevocation_beyond = "1h"\n'
    with a_server(directory, config, address=address) as server:
        devices = {name: enroll_by_curl(server, directory, name) for name in (GOOD, REVOKED)}
        for name, certificate in devices.items():
            (directory / f"{name}.pem").write_text(certificate.pem())
        server.run("pki", "revoke", devices[REVOKED].thumbprint.hex(), "--reason", "keyCompromise")
        for name in ("issuing", "root"):
            (directory / f"{name}.pem").write_text((server.data / "ca" / f"{name}.pem").read_text())
        yield World(server, directory, devices)


def crls(world: World) -> Path:
    """Fetch the lists that the certificates name."""
    text = ""
    for name in (GOOD, "issuing"):
        certificate = parse_pem(world.file(name).read_text()).parsed
        point = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value[0]
        assert point.full_name is not None
        (world.directory / "one.crl").write_bytes(world.curl(str(point.full_name[0].value)))
        text += world.openssl("crl", "-inform", "DER", "-in", world.directory / "one.crl")
    lists = world.directory / "all.crl.pem"
    lists.write_text(text)
    return lists


@pytest.mark.parametrize("depth", ["-crl_check", "-crl_check_all"])
def test_rfc5280_6_3_openssl_verifies_by_our_lists(world: World, depth: str) -> None:
    command = ["openssl", "verify", "-x509_strict", depth, "-CRLfile", str(crls(world))]
    command += ["-CAfile", str(world.file("root")), "-untrusted", str(world.file("issuing"))]
    good, revoked = (
        subprocess.run([*command, str(world.file(name))], capture_output=True, text=True, check=False)
        for name in (GOOD, REVOKED)
    )
    assert good.returncode == 0, good.stderr
    assert revoked.returncode != 0
    assert "certificate revoked" in revoked.stderr


@pytest.mark.parametrize("digest", ["-sha1", "-sha256"])
@pytest.mark.parametrize("nonce", ["-nonce", "-no_nonce"])
def test_rfc6960_openssl_asks_by_post_and_believes_the_answer(world: World, digest: str, nonce: str) -> None:
    command: list[str | Path] = ["ocsp", nonce, "-issuer", world.file("issuing"), "-CAfile", world.file("root")]
    command += ["-verify_other", world.file("issuing"), "-url", f"{world.url}/ocsp", digest]
    command += ["-cert", world.file(GOOD), digest, "-cert", world.file(REVOKED), digest, "-serial", "0x1234567"]
    told = world.openssl(*command)
    assert "Response verify OK" in told
    assert f"{world.file(GOOD)}: good" in told
    assert f"{world.file(REVOKED)}: revoked" in told
    assert "Reason: keyCompromise" in told
    assert "0x1234567: unknown" in told
    assert "WARNING" not in told


@pytest.mark.parametrize("name", [GOOD, REVOKED, UNKNOWN])
def test_rfc6960_a_1_by_get_it_is_the_same(world: World, name: str) -> None:
    issuer = parse_pem(world.file("issuing").read_text())
    request = world.directory / "request.der"
    request.write_bytes(a_request(world.devices.get(name, 5), issuer))
    asked = base64.b64encode(request.read_bytes()).decode()
    (world.directory / "answer.der").write_bytes(world.curl(f"{world.url}/ocsp/{quote(asked, safe='')}"))
    told = world.openssl(
        "ocsp",
        *("-reqin", request, "-respin", world.directory / "answer.der", "-text"),
        *("-CAfile", world.file("root"), "-verify_other", world.file("issuing")),
    )
    assert "Response verify OK" in told
    assert f"Cert Status: {name.removeprefix('device-')}" in told


def test_rfc6960_the_root_answers_for_its_cas_and_its_server(world: World) -> None:
    served = world.directory / "server.pem"
    served.write_text((world.server.data / "tls" / "server.pem").read_text())
    for file in (world.file("issuing"), served):
        command: list[str | Path] = ["ocsp", "-issuer", world.file("root"), "-cert", file, "-url", f"{world.url}/ocsp"]
        assert f"{file}: good" in world.openssl(*command, "-CAfile", world.file("root"))


def test_rfc5280_4_2_2_1_a_certificate_says_where_to_ask(world: World) -> None:
    told = world.openssl("x509", "-in", world.file(GOOD), "-noout", "-ocsp_uri")
    assert told.strip() == f"{world.url}/ocsp"
    access = world.devices[GOOD].parsed.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    issuer = world.curl(str(access[1].access_location.value))
    assert issuer == parse_pem(world.file("issuing").read_text()).der


@pytest.mark.parametrize("port", [8085, 8443])
def test_the_same_is_served_over_tls(world: World, port: int) -> None:
    at = f"https://{world.server.address}:{port}"
    (world.directory / "tls.crl").write_bytes(world.curl(f"{at}/crl/issuing.crl"))
    assert "Issuing CA" in world.openssl(
        "crl", "-inform", "DER", "-in", world.directory / "tls.crl", "-noout", "-issuer"
    )
    assert world.curl(f"{at}/ca/root.cer") == parse_pem(world.file("root").read_text()).der


def test_a_revocation_is_told_by_both_at_once(world: World) -> None:
    leaf = enroll_by_curl(world.server, world.directory, "device-late")
    (world.directory / "late.pem").write_text(leaf.pem())
    ask: list[str | Path] = ["ocsp", "-no_nonce", "-issuer", world.file("issuing"), "-cert", world.file("late")]
    ask += ["-url", f"{world.url}/ocsp", "-CAfile", world.file("root"), "-verify_other", world.file("issuing")]
    assert "late.pem: good" in world.openssl(*ask)
    world.server.run("pki", "revoke", "--device", "device-late")
    assert "late.pem: revoked" in world.openssl(*ask)
    listed = x509.load_der_x509_crl(world.curl(f"{world.url}/crl/issuing.crl"))
    assert listed.get_revoked_certificate_by_serial_number(leaf.serial) is not None


def test_what_is_no_request_is_malformed_and_explained(world: World) -> None:
    answer = world.curl("-H", "Content-Type: application/ocsp-request", "--data-binary", "junk", f"{world.url}/ocsp")
    assert answer == bytes.fromhex("30030a0101")
    assert world.server.why("pki.ocsp_malformed")


@pytest.mark.parametrize("host", ["est.example.org", "192.0.2.7", "gateway.example.org"])
def test_the_ca_of_a_gateway_names_no_server_but_its_own_kind(tmp_path: Path, host: str) -> None:
    root = a_ca()
    signer = a_ca("Edge", parent=root, profile=certificate_profiles.EDGE_ISSUING_CA)
    own = excluding(["est.example.org", "192.0.2.7", "localhost", "127.0.0.1", "0.0.0.0"])
    key = a_key()
    gateway = issue(
        certificate_profiles.EDGE_CA,
        name_of("gateway CA"),
        key.public_key(),
        issuer=signer.as_issuer,
        serial=1,
        now=NOON,
        excluded=own,
    )
    is_address = host[0].isdigit()
    name = x509.IPAddress(ip_address(host)) if is_address else x509.DNSName(host)
    leaf = a_device(Holder(gateway, key), host, profile=certificate_profiles.SERVER, san=(name,)).certificate
    (tmp_path / "root.pem").write_text(root.certificate.pem())
    (tmp_path / "bag.pem").write_text(signer.certificate.pem() + gateway.pem())
    (tmp_path / "leaf.pem").write_text(leaf.pem())
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-attime", str(int(NOON.timestamp()))]
    command += ["-CAfile", str(tmp_path / "root.pem"), "-untrusted", str(tmp_path / "bag.pem")]
    command += ["-verify_ip" if is_address else "-verify_hostname", host, str(tmp_path / "leaf.pem")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (host == "gateway.example.org"), done.stdout + done.stderr
