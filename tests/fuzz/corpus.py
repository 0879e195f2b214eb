"""What mutation begins with: good inputs of every kind, made by our own builders.

What holds signatures lies in `corpus/` as files, so that input N of a seed is the same everywhere; written anew by
`PYTHONPATH=tests python -m fuzz.corpus` when a builder changes. The keys are no secret: they follow from a number.
"""

import ipaddress
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from birthmark.keys.se050_reference_keys import render_reference_key
from birthmark.pki import certificate_profiles
from birthmark.pki.certificates import Certificate
from birthmark.pki.certs_only_cms import render_certs_only
from birthmark.pki.crl_encoder import Revocation, RevocationReason, build_crl
from support.fakes import NOON
from support.pki.ocsp_requests import a_request, together
from support.pki.odd_certificates import a_certificate, usage
from support.pki.pki_builders import Holder, a_ca, a_csr, a_device, an_rsa_key

FOLDER = Path(__file__).parent / "corpus"


def key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, ec.SECP256R1())


ROOT_KEY, ISSUING_KEY, DEVICE_KEY, SIGNER_KEY = key(1001), key(1002), key(1003), key(1004)


def read(kind: str) -> tuple[bytes, ...]:
    """Return the files of one kind, in the order of their names."""
    found = tuple(path.read_bytes() for path in sorted(FOLDER.glob(f"{kind}-*")))
    assert found, kind
    return found


def one(kind: str, name: str) -> bytes:
    return (FOLDER / f"{kind}-{name}").read_bytes()


def _certificates() -> Iterator[tuple[str, Holder]]:
    root = a_ca("Fuzz Root", key=ROOT_KEY)
    issuing = a_ca("Fuzz Issuing", parent=root, profile=certificate_profiles.ISSUING_CA, key=ISSUING_KEY)
    san = (
        x509.DNSName("d.example"),
        x509.RFC822Name("d@example"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.UniformResourceIdentifier("urn:d"),
        x509.RegisteredID(NameOID.COMMON_NAME),
        x509.OtherName(NameOID.COMMON_NAME, b"\x0c\x01a"),
        x509.DirectoryName(root.certificate.subject),
    )
    yield "1root", root
    yield "2issuing", issuing
    yield "3device", a_device(issuing, key=DEVICE_KEY)
    yield "4names", a_certificate((x509.SubjectAlternativeName(san), False), signer=issuing, key=DEVICE_KEY)
    yield "5chip", a_device(issuing, "sn0123AABBCCDDEEFF01", key=DEVICE_KEY)
    yield "6signer", a_ca("Fuzz Manifest Signer", key=SIGNER_KEY)
    yield "7rsa", a_device(issuing, key=an_rsa_key())
    ed = ed25519.Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
    yield "8ed25519", a_device(issuing, key=ed)  # type: ignore[arg-type]  # a key the builder does not promise
    subtrees = [x509.DNSName("example"), x509.IPAddress(ipaddress.ip_network("192.0.2.0/24"))]
    point = x509.DistributionPoint([x509.UniformResourceIdentifier("http://x/crl")], None, None, None)
    notice = x509.UserNotice(x509.NoticeReference("o", [1]), "text")
    access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://x"))
    yield (
        "9everything",
        a_certificate(
            (x509.NameConstraints(subtrees, [x509.RFC822Name("a@b")]), True),
            (usage("key_cert_sign", "crl_sign", "key_agreement", "encipher_only"), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
            (x509.CertificatePolicies([x509.PolicyInformation(NameOID.COMMON_NAME, ["http://x", notice])]), False),
            (x509.PolicyConstraints(0, 1), True),
            (x509.InhibitAnyPolicy(0), True),
            (x509.CRLDistributionPoints([point]), False),
            (x509.AuthorityInformationAccess([access]), False),
            (x509.TLSFeature([x509.TLSFeatureType.status_request]), False),
            (x509.IssuerAlternativeName(san), False),
            (x509.SubjectAlternativeName(san), False),
            subject="Fuzz All",
            key=key(1005),
            is_ca=True,
        ),
    )


def _requests() -> Iterator[tuple[str, bytes]]:
    san = x509.SubjectAlternativeName([x509.DNSName("d.example"), x509.OtherName(NameOID.COMMON_NAME, b"\x0c\x01a")])
    feature = x509.TLSFeature([x509.TLSFeatureType.status_request])
    basic = x509.BasicConstraints(ca=False, path_length=None)
    yield "1plain", a_csr(key=DEVICE_KEY)
    yield "2names", a_csr(key=DEVICE_KEY, extensions=((san, False), (feature, False), (basic, True)))
    yield "3challenge", a_csr(key=DEVICE_KEY, attributes=((AttributeOID.CHALLENGE_PASSWORD, b"c2VjcmV0"),))
    yield "4rsa", a_csr(key=an_rsa_key())


def _ocsp_requests(device: Certificate, issuer: Certificate) -> Iterator[tuple[str, bytes]]:
    yield "1plain", a_request(device, issuer)
    yield "2nonce", a_request(device, issuer, algorithm=hashes.SHA256(), nonce=b"n" * 32)
    yield "3several", together([a_request(device, issuer, nonce=b"n"), a_request(7, issuer)])


def make() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    holders = dict(_certificates())
    for name, holder in holders.items():
        (FOLDER / f"certificate-{name}").write_bytes(holder.certificate.der)
    for name, der in _requests():
        (FOLDER / f"request-{name}").write_bytes(der)
    for name, der in _ocsp_requests(holders["3device"].certificate, holders["2issuing"].certificate):
        (FOLDER / f"ocsp-{name}").write_bytes(der)
    chain = [holders["3device"].certificate, holders["2issuing"].certificate]
    (FOLDER / "cms-1one").write_bytes(render_certs_only(chain[:1]))
    (FOLDER / "cms-2chain").write_bytes(render_certs_only(chain))
    revoked = [Revocation(77, NOON), Revocation(78, NOON, RevocationReason.KEY_COMPROMISE)]
    for name, listed in (("1empty", []), ("2two", revoked)):
        issuer = holders["2issuing"].as_issuer
        made = build_crl(issuer, listed, number=1, now=NOON, lifetime=timedelta(days=7))
        der = made if made[:1] == b"\x30" else x509.load_pem_x509_crl(made).public_bytes(Encoding.DER)
        (FOLDER / f"crl-{name}").write_bytes(der)
    for name, public in (("1ec", DEVICE_KEY.public_key()), ("2rsa", an_rsa_key().public_key())):
        (FOLDER / f"reference-{name}").write_text(render_reference_key(public, 0xF0000001))
    assert isinstance(chain[0].parsed.signature_hash_algorithm, hashes.SHA256)


if __name__ == "__main__":
    make()
