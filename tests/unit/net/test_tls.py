"""What a handshake proved, with clients that show more than a device has."""

import pytest
from cryptography import x509
from OpenSSL import SSL

from birthmark.net import tls
from birthmark.net.tls import ChainTooLargeError, peer_of, server_context
from birthmark.pki.profiles import SERVER
from pki_builders import Holder, a_ca, a_device


def a_handshake(client: Holder, *extra: Holder) -> SSL.Connection:
    """Return the server's side of a finished handshake with a client that shows these certificates."""
    server = a_device()
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.use_certificate(client.certificate.parsed)
    context.use_privatekey(client.private_key)  # type: ignore[arg-type]
    for holder in extra:
        context.add_extra_chain_cert(holder.certificate.parsed)
    near = SSL.Connection(server_context([server.certificate.parsed], server.private_key), None)
    near.set_accept_state()
    far = SSL.Connection(context, None)
    far.set_connect_state()
    for _ in range(4):
        for one, other in ((far, near), (near, far)):
            try:
                one.do_handshake()
            except SSL.WantReadError:
                pass
            try:
                while True:
                    other.bio_write(one.bio_read(65536))
            except SSL.WantReadError:
                pass
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
