"""Which key exchange a server takes: the hybrid one of whoever offers a share for it, no extra round trip for others.

The client is the library within `cryptography`; Debian's own OpenSSL 3.0 knows no ML-KEM.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL._util import lib

from birthmark.net.tls import server_context
from birthmark.pki import certificate_profiles
from support.pki.pki_builders import a_ca, a_device

HYBRID = b"X25519MLKEM768"
pytestmark = pytest.mark.integration


def shake(offered: bytes) -> tuple[str, Sequence[int]]:
    """Return the group that was taken, and the bytes of each flight."""
    leaf = a_device(a_ca("key exchange"), "server", profile=certificate_profiles.SERVER, now=datetime.now(UTC))
    key = load_pem_private_key(leaf.key_pem.encode(), None)
    certificate = x509.load_pem_x509_certificate(leaf.certificate.pem().encode())
    served, asking = server_context([certificate], key), SSL.Context(SSL.TLS_CLIENT_METHOD)
    assert lib.SSL_CTX_set1_curves_list(asking._context, offered) == 1
    server, client = SSL.Connection(served, None), SSL.Connection(asking, None)
    server.set_accept_state()
    client.set_connect_state()
    flights = []
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            try:
                one.do_handshake()
            except SSL.WantReadError:
                pass
            try:
                flights.append(len(data := one.bio_read(65536)))
            except SSL.WantReadError:
                continue
            other.bio_write(data)
    return server.get_group_name() or "", flights


def test_who_offers_the_hybrid_exchange_gets_it() -> None:
    group, flights = shake(HYBRID + b":X25519")
    assert group == "X25519MLKEM768"
    assert len(flights) <= 4
    assert flights[0] < 1700  # bytes: what fits into two packets of a usual line
    assert flights[1] > 1088  # the server's share


@pytest.mark.parametrize(
    ("offered", "group"),
    [(b"X25519", "x25519"), (b"P-256", "secp256r1"), (b"P-384", "secp384r1"), (b"*P-256:X25519", "secp256r1")],
)
def test_who_does_not_offer_it_is_served_as_before_and_begins_only_once(offered: bytes, group: str) -> None:
    found, flights = shake(offered)
    assert found == group
    assert flights[1] > 256, "a HelloRetryRequest"


def test_who_only_knows_it_is_not_asked_to_begin_again() -> None:
    found, flights = shake(b"*X25519:" + HYBRID)  # the star marks the one that a share is sent for
    assert found == "x25519"
    assert flights[1] > 256, "a HelloRetryRequest"
