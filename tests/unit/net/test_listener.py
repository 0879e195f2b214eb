"""Who is turned away when there are too many."""

from typing import Any, cast

import pytest

from birthmark.errors import BirthmarkError
from birthmark.net.accepted_connection import Connection
from birthmark.net.listener import Listeners
from birthmark.net.listener_limits import Limits
from birthmark.net.tls import NO_PEER, TlsPeer
from support.fakes import FakeClock
from support.pki.pki_builders import a_device


class Caller:
    is_tls = False
    """A connection as the count of them sees it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.peer = NO_PEER
        self.owner = address
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


@pytest.fixture
def refused() -> list[BirthmarkError]:
    return []


async def some_listeners(refused: list[BirthmarkError], **limits: Any) -> Listeners:
    return Listeners(FakeClock(), Limits(**limits), lambda error, _address, _peer: refused.append(error))


def admitted(listeners: Listeners, address: str) -> Caller:
    caller = Caller(address)
    listeners.admit(cast("Connection", caller))
    return caller


async def test_handshakes_that_are_never_finished_do_not_keep_others_out(refused: list[BirthmarkError]) -> None:
    listeners = await some_listeners(refused, max_pending_handshakes=2)
    idle = [admitted(listeners, "192.0.2.1") for _ in range(2)]
    newcomer = admitted(listeners, "192.0.2.2")
    assert [caller.is_aborted for caller in (*idle, newcomer)] == [True, False, False]
    assert [error.code for error in refused] == ["net.too_many_connections"]


async def test_a_slow_handshake_outlives_those_of_who_begins_many(refused: list[BirthmarkError]) -> None:
    listeners = await some_listeners(refused, max_pending_handshakes=4)
    slow = admitted(listeners, "192.0.2.9")
    many = [admitted(listeners, f"192.0.2.{number % 2}") for number in range(40)]
    assert not slow.is_aborted
    assert [caller.is_aborted for caller in many].count(False) == 3


async def test_who_is_beyond_its_own_share_pushes_nobody_out(refused: list[BirthmarkError]) -> None:
    listeners = await some_listeners(refused, max_pending_handshakes=3, max_unauthenticated_per_peer=1)
    others = [admitted(listeners, f"192.0.2.{number}") for number in range(3)]
    assert admitted(listeners, "192.0.2.0").is_aborted
    assert not any(caller.is_aborted for caller in others)


async def test_a_finished_handshake_is_not_in_the_queue(refused: list[BirthmarkError]) -> None:
    listeners = await some_listeners(refused, max_pending_handshakes=2)
    for _ in range(5):
        caller = admitted(listeners, "192.0.2.1")
        listeners.established(cast("Connection", caller))
    assert not refused
    assert len(listeners._connections) == 5


async def test_one_address_has_its_share(refused: list[BirthmarkError]) -> None:
    listeners = await some_listeners(refused, max_connections_per_peer=2)
    callers = [admitted(listeners, "192.0.2.1") for _ in range(3)]
    assert [caller.is_aborted for caller in callers] == [False, False, True]
    for caller in callers:
        listeners.dismiss(cast("Connection", caller))
    assert len(listeners._connections) == 0
    assert not admitted(listeners, "192.0.2.1").is_aborted


async def test_the_addresses_of_one_ipv6_network_have_one_share(refused: list[BirthmarkError]) -> None:
    listeners = await some_listeners(refused, max_connections_per_peer=2)
    first, second = (admitted(listeners, f"2001:db8::{number}") for number in (1, 2))
    third, other = admitted(listeners, "2001:db8::3"), admitted(listeners, "2001:db8:0:1::3")
    assert [caller.is_aborted for caller in (first, second, third, other)] == [False, False, True, False]
    assert refused[0].facts["scope"] == "2001:db8::/64"


async def test_strangers_of_one_ipv6_network_have_one_share(refused: list[BirthmarkError]) -> None:
    listeners = await some_listeners(refused, max_unauthenticated_per_peer=2)
    callers = [admitted(listeners, f"2001:db8::{number}") for number in (1, 2, 3)]
    assert [caller.is_aborted for caller in callers] == [False, False, True]


async def test_one_certificate_has_its_share_wherever_its_connections_come_from(refused: list[BirthmarkError]) -> None:
    listeners = await some_listeners(refused, max_connections_per_key=2)
    leaf, other = a_device().certificate, a_device().certificate
    callers = []
    for number, shown in enumerate((leaf, leaf, other, leaf)):
        caller = admitted(listeners, f"192.0.2.{number}")
        caller.peer, caller.owner = TlsPeer(shown, (), b"", "", ""), shown.thumbprint.hex()
        listeners.mark_authenticated(cast("Connection", caller))
        callers.append(caller)
    assert [caller.is_aborted for caller in callers] == [False, False, False, True]
    assert leaf.thumbprint.hex() in refused[0].explain_cause()
    for caller in callers:
        listeners.dismiss(cast("Connection", caller))
    assert not listeners._per_key


async def test_who_proved_itself_by_something_else_has_no_share_by_what_it_shows(refused: list[BirthmarkError]) -> None:
    """It may show any certificate beside its token, another device's public one too."""
    listeners = await some_listeners(refused, max_connections_per_key=1)
    for number in range(3):
        caller = admitted(listeners, f"192.0.2.{number}")
        caller.peer, caller.owner = TlsPeer(a_device().certificate, (), b"", "", ""), "device hub/device-1"
        listeners.mark_authenticated(cast("Connection", caller))
    assert not refused
    assert not listeners._per_key
