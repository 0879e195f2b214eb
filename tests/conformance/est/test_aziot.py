"""What Azure's aziot-certd asks, in its order and form, over TLS: a fleet's device identities and edge CAs by EST.

It is emulated: certificate request and `cacerts` go at once, each on a connection of its own with all credentials there
are; both must be 200 with the PKCS#7 media type, or the whole enrollment fails.
"""

import base64
import http.client
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from birthmark.pki.certificates import Certificate, is_signed_by
from birthmark.pki.certs_only_cms import parse_certs_only
from support.pki.pki_builders import Holder, a_ca, a_csr, a_device, a_key, an_rsa_key, key_pem
from support.server.servers import RunningServer

NOW = datetime.now(UTC)
CONFIG = '[est.labels.edge-ca]\nprofile = "edge_ca"\n'
CLIENT = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
EDGE_CA = (
    (x509.BasicConstraints(ca=True, path_length=0), True),
    (
        x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        ),
        True,
    ),
)


@pytest.fixture(scope="module")
def birthmark_config() -> str:
    return CONFIG


@dataclass
class Certd:
    """One device's certd: its credentials and its files."""

    server: RunningServer
    directory: Path
    basic: tuple[str, str] | None = None
    shown: Path | None = None
    """Certificate and key that TLS shows."""
    statuses: list[int] = field(default_factory=list)

    def enrolled(self, csr: bytes, label: str = "") -> Certificate:
        """Return what is issued; the certificates of `cacerts` must lead from it to a root."""
        text = base64.b64encode(csr)
        body = b"".join(text[n : n + 64] + b"\n" for n in range(0, len(text), 64))
        with ThreadPoolExecutor(2) as pool:
            issued = pool.submit(self._asked, "POST", f"{label}simpleenroll", body)
            cas = pool.submit(self._asked, "GET", f"{label}cacerts", b"")
            (leaf,), above = issued.result(), cas.result()
        chain, current = [leaf], leaf
        while not current.is_self_signed:
            current = next(one for one in above if is_signed_by(current, one))
            chain.append(current)
        return leaf

    def refused(self, csr: bytes, label: str = "") -> int:
        with pytest.raises(AssertionError):
            self.enrolled(csr, label)
        return next(status for status in self.statuses if status != 200)

    def holds(self, leaf: Certificate, key: Any) -> "Certd":
        """Return the same device, showing this certificate."""
        file = self.directory / f"{leaf.serial:x}.pem"
        file.write_text(leaf.pem() + key_pem(key))
        return Certd(self.server, self.directory, self.basic, file)

    def _asked(self, method: str, operation: str, body: bytes) -> list[Certificate]:
        context = ssl.create_default_context(cafile=self.server.endpoints["trust_bundle"])
        if self.shown is not None:
            context.load_cert_chain(self.shown)
        headers = {"Accept": "*/*"}
        if body:
            headers |= {"Content-Type": "application/pkcs10", "Content-Transfer-Encoding": "base64"}
        if self.basic is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(self.basic).encode()).decode()
        connection = http.client.HTTPSConnection(self.server.address, 8085, context=context, timeout=30)
        connection.request(method, f"/.well-known/est/{operation}", body or None, headers)
        answer = connection.getresponse()
        told = answer.read()
        connection.close()
        self.statuses.append(answer.status)
        assert answer.status == 200, told
        assert (answer.getheader("content-type") or "").startswith("application/pkcs7-mime")
        return list(parse_certs_only(base64.b64decode(b"".join(told.split()))))


def a_certd(server: RunningServer, directory: Path, name: str) -> Certd:
    user, password = server.est_credential(name)
    return Certd(server, directory, (user, password))


@pytest.fixture(scope="module")
def maker(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Holder:
    ca = a_ca("Maker of gateways", now=NOW)
    file = tmp_path_factory.mktemp("maker") / "maker.pem"
    file.write_text(ca.certificate.pem())
    server.run("pki", "manufacturer", "create", str(file))
    return ca


def test_a_device_identity_by_password_has_an_rsa_key_and_a_request_without_extensions(
    server: RunningServer, tmp_path: Path
) -> None:
    leaf = a_certd(server, tmp_path, "edge-1").enrolled(a_csr("edge-1", key=an_rsa_key()))
    assert leaf.subject_cn == "edge-1"
    assert set(leaf.extensions.extended_key_usage or ()) == {ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string}


def test_a_wrong_password_fails_the_whole_enrollment(server: RunningServer, tmp_path: Path) -> None:
    assert Certd(server, tmp_path, ("edge-1", "wrong")).refused(a_csr("edge-1", key=a_key())) == 401


@pytest.mark.parametrize("est_key", [a_key(), an_rsa_key(4096)], ids=["ec-p256", "rsa-4096"])
def test_a_bootstrap_certificate_leads_to_an_est_identity_a_device_identity_and_an_edge_ca(
    server: RunningServer, maker: Holder, tmp_path: Path, est_key: Any
) -> None:
    name = f"edge-{type(est_key).__name__.lower()}"
    born = a_device(maker, name, now=NOW)
    bootstrap = Certd(server, tmp_path).holds(born.certificate, born.private_key)
    est = bootstrap.holds(bootstrap.enrolled(a_csr(name, key=est_key, extensions=(CLIENT,))), est_key)
    device = est.enrolled(a_csr(name, key=an_rsa_key()))
    edge = est.enrolled(a_csr("iotedged workload ca", key=an_rsa_key(), extensions=EDGE_CA), "edge-ca/")
    assert (device.subject_cn, edge.is_ca, edge.extensions.path_length) == (name, True, 0)

    # Both are renewed by the EST identity, which renews itself at the same URL with a new key.
    assert est.enrolled(a_csr(name, key=an_rsa_key())) != device
    fresh = a_key()
    again = est.holds(est.enrolled(a_csr(name, key=fresh, extensions=(CLIENT,))), fresh)
    assert again.enrolled(a_csr(name, key=an_rsa_key())).subject_cn == name
    # An identity that was lost: the bootstrap certificate introduces the device again.
    lost = a_key()
    assert bootstrap.enrolled(a_csr(name, key=lost, extensions=(CLIENT,))).subject_cn == name


@pytest.mark.parametrize("name", ["aziot-edge CA", "edge-6"], ids=["of-its-own-name", "of-the-devices-name"])
def test_an_edge_ca_is_not_issued_where_devices_get_their_identities_and_the_way_is_told(
    server: RunningServer, tmp_path: Path, name: str
) -> None:
    device = a_certd(server, tmp_path, "edge-6")
    assert device.refused(a_csr(name, key=an_rsa_key(), extensions=EDGE_CA)) == 403
    told = server.run("why", "edge-6").stdout
    assert "Labels that issue CA certificates: edge-ca." in told
    assert f'`aziot-edged-ca = "https://{server.address}:8085/.well-known/est/edge-ca"`' in told


def test_password_and_certificate_are_shown_together_when_both_are_configured(
    server: RunningServer, maker: Holder, tmp_path: Path
) -> None:
    born = a_device(maker, "edge-both", now=NOW)
    both = a_certd(server, tmp_path, "edge-both").holds(born.certificate, born.private_key)
    assert both.basic is not None
    assert both.enrolled(a_csr("edge-both", key=a_key(), extensions=(CLIENT,))).subject_cn == "edge-both"


def test_one_device_gets_no_certificate_of_another_whatever_it_shows(
    server: RunningServer, maker: Holder, tmp_path: Path
) -> None:
    a_certd(server, tmp_path, "edge-9").enrolled(a_csr("edge-9", key=a_key()))
    born = a_device(maker, "edge-8", now=NOW)
    bootstrap = Certd(server, tmp_path).holds(born.certificate, born.private_key)
    assert bootstrap.refused(a_csr("edge-9", key=a_key(), extensions=(CLIENT,))) == 403
