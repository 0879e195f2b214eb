"""A revocation ends the connections it concerns, and no other."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from birthmark.ca.domain_events import CertificateRevoked
from birthmark.ca.revocation import CertificateRevokedError, digest_of
from birthmark.metric_catalog import Traffic
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.pki.certificates import Certificate
from birthmark.server.revoked_connection_termination import EndConnectionsRequest
from support.pki.other_form import other_form
from support.pki.pki_builders import a_ca, a_device
from support.server.asgi import FakePeer


@dataclass
class Pump:
    peer: FakePeer
    address: str = "192.0.2.1"
    is_over: bool = False

    def close(self, reason: CloseReason) -> None:
        self.is_over = reason is CloseReason.ADMINISTRATIVE


@dataclass
class Connection:
    driver: Any


@dataclass
class Room:
    connections: list[Connection] = field(default_factory=list)
    asked_again: int = 0
    traffic: Traffic = field(default_factory=Traffic)

    def live_connections(self) -> Sequence[Connection]:
        return self.connections

    def recheck_connecting_clients(self) -> None:
        self.asked_again += 1


class Counted(Room):
    """Counts how often all of them are asked for."""

    times = 0

    def live_connections(self) -> Sequence[Connection]:
        self.times += 1
        return super().live_connections()


CA = a_ca()
FIRST, SECOND = a_device(CA, "first").certificate, a_device(CA, "second").certificate


async def first_is_bad(leaf: Certificate, _bag: Sequence[Certificate]) -> None:
    if leaf == FIRST:
        raise CertificateRevokedError(device_id="first", revoked_at="now", thumbprint="00", what="the certificate")


async def over(end: EndConnectionsRequest) -> None:
    await asyncio.sleep(0)
    while end._looking is not None or end._looking_for_twins:
        await asyncio.sleep(0)


async def ended_by(**body: Any) -> list[bool]:
    """Which of the connections of FIRST, SECOND and one without a certificate have ended."""

    room = Room([Connection(Pump(FakePeer(leaf))) for leaf in (FIRST, SECOND, None)])
    end = EndConnectionsRequest(first_is_bad, [room])
    end(CertificateRevoked("first", **body))
    await over(end)
    assert room.asked_again == 1
    return [connection.driver.is_over for connection in room.connections]


async def test_by_the_certificate() -> None:
    assert (await ended_by(thumbprint=FIRST.thumbprint)) == [True, False, False]


async def test_by_the_key() -> None:
    assert (await ended_by(key=digest_of(SECOND))) == [False, True, False]


async def test_by_a_ca_above() -> None:
    assert (await ended_by(is_ca=True)) == [True, False, False]


async def test_an_event_without_names_ends_nobody() -> None:
    assert (await ended_by()) == [False, False, False]


async def test_what_is_revoked_together_asks_each_connection_once() -> None:
    room = Counted([Connection(Pump(FakePeer(leaf))) for leaf in (FIRST, SECOND)])
    end = EndConnectionsRequest(first_is_bad, [room])
    for number in range(50):
        end(CertificateRevoked("another", thumbprint=bytes([number]) * 32, key=bytes([number]) * 32))
        end(CertificateRevoked("another", is_ca=True))
    end(CertificateRevoked("second", thumbprint=SECOND.thumbprint, key=digest_of(SECOND)))
    await over(end)
    assert room.times == 2
    assert [connection.driver.is_over for connection in room.connections] == [True, True]


async def test_a_ca_that_is_revoked_while_another_is_looked_for_is_looked_for_too() -> None:
    bad: list[Certificate] = []

    async def check(leaf: Certificate, _bag: Sequence[Certificate]) -> None:
        if not bad:
            bad.append(FIRST)
            end(CertificateRevoked("later", is_ca=True))
        elif leaf in bad:
            raise CertificateRevokedError(device_id="first", revoked_at="now", thumbprint="00", what="the certificate")

    room = Room([Connection(Pump(FakePeer(leaf))) for leaf in (FIRST, SECOND)])
    end = EndConnectionsRequest(check, [room])
    end(CertificateRevoked("first", is_ca=True))
    await over(end)
    assert [connection.driver.is_over for connection in room.connections] == [True, False]


async def test_the_other_form_of_a_certificate_ends_too_where_its_key_stays_good() -> None:
    other = other_form(FIRST, CA.private_key)
    room = Room([Connection(Pump(FakePeer(other)))])
    end = EndConnectionsRequest(first_is_bad, [room])
    end(CertificateRevoked("first", thumbprint=FIRST.thumbprint))
    await over(end)
    assert room.connections[0].driver.is_over


async def test_others_are_served_while_other_forms_are_looked_for() -> None:
    room = Room([Connection(Pump(FakePeer(SECOND))) for _ in range(2000)])
    end = EndConnectionsRequest(first_is_bad, [room])
    end(CertificateRevoked("first", thumbprint=FIRST.thumbprint))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert end._looking_for_twins
    await over(end)
