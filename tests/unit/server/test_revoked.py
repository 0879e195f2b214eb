"""A revocation ends the connections it concerns, and no other."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asgi import FakePeer
from birthmark.ca.events import CertificateRevoked
from birthmark.ca.revocation import CertificateRevokedError, digest_of
from birthmark.net.admission import Closed
from birthmark.pki.certificates import Certificate
from birthmark.server.revoked import EndRevoked
from pki_builders import a_ca, a_device


@dataclass
class Pump:
    peer: FakePeer
    address: str = "192.0.2.1"
    is_over: bool = False

    def close(self, reason: Closed) -> None:
        self.is_over = reason is Closed.ADMINISTRATIVE


@dataclass
class Connection:
    pump: Any


@dataclass
class Room:
    connections: list[Connection] = field(default_factory=list)
    asked_again: int = 0

    def everyone(self) -> Sequence[Connection]:
        return self.connections

    def revoked(self) -> None:
        self.asked_again += 1


CA = a_ca()
FIRST, SECOND = a_device(CA, "first").certificate, a_device(CA, "second").certificate


async def first_is_bad(leaf: Certificate, _bag: Sequence[Certificate]) -> None:
    if leaf == FIRST:
        raise CertificateRevokedError(device_id="first", revoked_at="now", thumbprint="00", what="the certificate")


async def ended_by(**body: Any) -> list[bool]:
    """Which of the connections of FIRST, SECOND and one without a certificate have ended."""

    room = Room([Connection(Pump(FakePeer(leaf))) for leaf in (FIRST, SECOND, None)])
    end = EndRevoked(first_is_bad, [room])
    end(CertificateRevoked("first", **body))
    while end._tasks:
        await asyncio.sleep(0)
    assert room.asked_again == 1
    return [connection.pump.is_over for connection in room.connections]


async def test_by_the_certificate() -> None:
    assert (await ended_by(thumbprint=FIRST.thumbprint)) == [True, False, False]


async def test_by_the_key() -> None:
    assert (await ended_by(key=digest_of(SECOND))) == [False, True, False]


async def test_by_a_ca_above() -> None:
    assert (await ended_by(is_ca=True)) == [True, False, False]


async def test_an_event_without_names_ends_nobody() -> None:
    assert (await ended_by()) == [False, False, False]
