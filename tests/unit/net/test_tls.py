"""What a handshake proved, with clients that show more than a device has."""

import time
import warnings
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto

from birthmark.net import tls
from birthmark.net.errors import ChainTooLargeError
from birthmark.net.tls import WAY, peer_of, server_context
from birthmark.net.tls_pipe import TlsPipe
from birthmark.pki.certificate_profiles import EDGE_ISSUING_CA, SERVER
from birthmark.pki.certificates import CertificateInvalidError
from support.fakes import NOON
from support.pki.pki_builders import Holder, a_ca, a_device

YEAR = timedelta(days=365)


def a_handshake(client: Holder, *extra: Holder, der: bytes | None = None) -> TlsPipe:
    """Return the server's side of a finished handshake with a client that shows these certificates (or `der`)."""
    server = a_device()
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    shown = crypto.load_certificate(crypto.FILETYPE_ASN1, der or client.certificate.der)
    with warnings.catch_warnings():  # what `cryptography` would take is not enough here
        warnings.simplefilter("ignore", DeprecationWarning)
        context.use_certificate(shown)
    context.use_privatekey(client.private_key)
    for holder in extra:
        context.add_extra_chain_cert(holder.certificate.parsed)
    near = WAY.accept(server_context([server.certificate.parsed], server.private_key))
    far = SSL.Connection(context, None)
    far.set_connect_state()
    for _ in range(4):
        try:
            far.do_handshake()
        except SSL.WantReadError:
            pass
        try:
            while True:
                near.feed(far.bio_read(65536))
        except SSL.WantReadError:
            pass
        near.handshake()
        if said := near.drain():
            far.bio_write(said)
    return near


def a_large_one(size: int = 16_000) -> Holder:
    names = tuple(x509.DNSName(f"host-{n:06}.example") for n in range(size // 21))
    made = a_device(profile=SERVER, common_name="large", san=names)
    assert len(made.certificate.der) > size
    return made


def test_leaf_and_intermediates_are_told_apart() -> None:
    root = a_ca()
    device = a_device(root)
    peer = peer_of(a_handshake(device, root))
    assert (peer.leaf, peer.chain) == (device.certificate, (root.certificate,))


def test_more_certificates_than_any_device_has_are_refused() -> None:
    with pytest.raises(ChainTooLargeError):
        peer_of(a_handshake(a_device(), *(a_large_one() for _ in range(3))))


def test_a_large_certificate_is_read_and_not_remembered() -> None:
    large = a_large_one()
    before = tls._parse_again.cache_info().currsize
    peer = peer_of(a_handshake(large))
    assert peer.leaf == large.certificate
    assert tls._parse_again.cache_info().currsize == before


VERSION_3 = b"\xa0\x03\x02\x01\x02"


@pytest.mark.parametrize("version", [0, 1, 3, 9])
def test_a_certificate_of_a_version_that_does_not_exist_is_a_refusal(version: int) -> None:
    device = a_device()
    der = device.certificate.der.replace(VERSION_3, VERSION_3[:-1] + bytes([version]), 1)
    try:
        leaf = peer_of(a_handshake(device, der=der)).leaf
    except CertificateInvalidError:
        return
    assert leaf is not None  # version 2, or 1 with extensions, may be read; what it is worth the rooms decide
    assert leaf.version in {1, 2}


def test_a_certificate_with_an_impossible_date_is_a_refusal() -> None:
    device = a_device()
    date = device.certificate.not_before.strftime("%y%m%d%H%M%SZ").encode()
    der = device.certificate.der.replace(date, date[:2] + b"1399" + date[6:], 1)
    assert der != device.certificate.der
    with pytest.raises(CertificateInvalidError):
        peer_of(a_handshake(device, der=der))


def test_an_unreadable_extra_certificate_is_no_issuer() -> None:
    root = a_ca()
    device = a_device(root)
    assert peer_of(a_handshake(device, root)).chain == (root.certificate,)


def test_whatever_the_parser_trips_over_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def trip(_der: bytes) -> None:
        raise AttributeError("_value")

    shown = a_handshake(a_device())
    monkeypatch.setattr(tls, "_parse_again", trip)
    with pytest.raises(CertificateInvalidError):
        peer_of(shown)


def test_names_are_not_compared_with_an_issuers_constraints_in_the_handshake() -> None:
    """The library takes one issuer of what was sent, and a third of a second for names by constraints of a million."""
    ca, names = a_ca(), [x509.UniformResourceIdentifier(f"u://zz{number}/".ljust(250, "p")) for number in range(100)]
    shown = a_device(ca, profile=SERVER, common_name="large", san=tuple(names))
    subtrees = [x509.UniformResourceIdentifier(f"{number:x}") for number in range(4000)]
    subject = ca.certificate.subject
    made = (
        x509.CertificateBuilder(subject, subject, ca.private_key.public_key(), 1, NOON - YEAR, NOON + YEAR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.NameConstraints(None, subtrees), critical=True)
        .sign(ca.private_key, hashes.SHA256())
    )
    issuer: Any = SimpleNamespace(certificate=SimpleNamespace(parsed=made))

    def cost(*above: Any) -> float:
        began = time.process_time()
        a_handshake(shown, *above)
        return time.process_time() - began

    assert min(cost(issuer) for _ in range(3)) < 0.05 + 5 * min(cost() for _ in range(3))


def test_the_signatures_of_a_chain_are_left_to_those_who_judge_it() -> None:
    server = a_device()
    context = server_context([server.certificate.parsed], server.private_key)
    assert context.get_verify_depth() == -2
    above = [a_ca("top")]
    for number in range(3):
        above.append(a_ca(f"below {number}", parent=above[-1], profile=EDGE_ISSUING_CA))
    device = a_device(above[-1])
    assert peer_of(a_handshake(device, *above)).chain == tuple(one.certificate for one in above)
