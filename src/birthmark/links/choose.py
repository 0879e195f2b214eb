"""Which adapter serves which key."""

from typing import assert_never

from birthmark.clock import Clock
from birthmark.links.identity import FileIdentity, Identity, TokenIdentity, Trust
from birthmark.links.openssl import OpensslLinks
from birthmark.links.ports import Links


def open_links(identity: Identity | None, trust: Trust, clock: Clock) -> Links:
    """Return links for this identity; None connects without a client certificate."""
    match identity:
        case None | FileIdentity():
            return OpensslLinks(identity, trust, clock)
        case TokenIdentity():
            # Imported late: its native library takes a while to load, and file keys do not need it.
            from birthmark.links.crt import CrtLinks  # noqa: PLC0415

            return CrtLinks(identity, trust)
        case _:
            assert_never(identity)
