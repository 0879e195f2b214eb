"""The bus over NATS where NATS, or a worker, is away: nothing is sent late, nobody waits for the dead."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from nats.aio.client import Client

from birthmark.bus import BusAwayError, NoAnswerError
from birthmark.bus.nats import LEASE_S, OPTIONS, NatsBus, connected, create_tls_context
from birthmark.clock_and_entropy import SystemClock
from birthmark.pki.certificate_profiles import SERVER
from birthmark.store import Changes, open_database
from birthmark.store.core_tables import COUNT_OUTBOX
from birthmark.store.reloading_cache import RowCache
from contract.bus.desk import Add, Desk, Hang, Note, Sum
from contract.bus.worlds import KnownMembers, NatsWorld, a_nats_world
from support.pki.pki_builders import Holder, a_ca, a_device
from support.services.nats_server import a_nats_server
from support.services.postgres import free_port
from support.store.store_table import ThingTold

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def a_line_to(server: str) -> AsyncIterator[tuple[str, bytearray]]:
    """Relay to a NATS server; yields the URL of the relay and what its clients have said."""
    said = bytearray()

    async def relayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection(urlsplit(server).hostname, urlsplit(server).port)

        async def upwards() -> None:
            while part := await reader.read(65536):
                said.extend(part)
                to_there.write(part)

        sending = asyncio.create_task(upwards())
        with contextlib.suppress(ConnectionError):
            while part := await there.read(65536):
                writer.write(part)
        sending.cancel()
        to_there.close()
        writer.close()

    listening = await asyncio.start_server(relayed, "127.0.0.1", 0)
    async with listening:
        yield f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}", said


async def test_nats_has_answered_after_it_heard_what_who_joined_listens_to(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        line, said = await stack.enter_async_context(a_line_to(await stack.enter_async_context(a_nats_server())))
        database = await open_database(f"sqlite:///{tmp_path}/world.db", SystemClock(), worker="w0")
        stack.push_async_callback(database.close)
        connection = Client()
        await connection.connect(line, **OPTIONS)
        stack.push_async_callback(connection.close)
        bus = NatsBus(database, connection, "test")
        await bus.join(KnownMembers("w0", {"w0"}, {}))
        stack.push_async_callback(bus.stop)
        assert bytes(said).rindex(b"PING") > bytes(said).rindex(b"SUB ")


async def test_a_nats_that_is_away_is_told_at_once_by_its_first_trouble() -> None:
    async with a_nats_server("--auth", "right") as url:
        for wrong, reason in (
            (f"nats://127.0.0.1:{free_port()}", "connection refused"),
            (url.replace("nats://", "nats://wrong@"), "Authorization"),
        ):
            began = time.monotonic()
            with pytest.raises(BusAwayError) as refused:
                await connected(wrong)
            assert time.monotonic() - began < 5
            assert reason in refused.value.reason
            assert "wrong" not in refused.value.explain_cause()


async def test_a_request_that_is_too_large_is_no_answer_and_ends_nothing(tmp_path: Path) -> None:
    async with a_nats_world(f"sqlite:///{tmp_path}/world.db", 2, Desk().join) as world:
        first, second = world.buses
        with pytest.raises(NoAnswerError):
            await first.ask(second.worker, Note("x" * 2_000_000))
        assert await first.ask(second.worker, Add(1, 1)) == Sum(2)


async def test_a_worker_that_dies_while_it_is_asked_may_have_done_it(tmp_path: Path) -> None:
    async with a_nats_world(f"sqlite:///{tmp_path}/world.db", 2, Desk().join) as world:
        assert isinstance(world, NatsWorld)
        first, second = world.buses
        asking = asyncio.create_task(first.ask(second.worker, Hang(), timeout_s=60))
        await asyncio.sleep(0.1)
        world.leases.discard(second.worker)
        with pytest.raises(NoAnswerError, match="did not respond"):
            await asyncio.wait_for(asking, 5)


async def test_a_worker_that_hears_nothing_is_waited_for_until_its_lease_has_run_out(tmp_path: Path) -> None:
    desk = Desk()
    async with a_nats_world(f"sqlite:///{tmp_path}/world.db", 2, desk.join) as world:
        assert isinstance(world, NatsWorld)
        first, second = world.buses
        await world.connections[second.worker].close()
        confirming = asyncio.create_task(first.confirm(ThingTold("revoked")))
        await asyncio.sleep(0.5)
        assert not confirming.done()
        world.leases.discard(second.worker)
        await asyncio.wait_for(confirming, 5)
        assert desk.heard == {first.worker: ["revoked"]}


async def test_who_commits_is_answered_when_the_lease_of_one_that_hears_nothing_is_over(tmp_path: Path) -> None:
    desk = Desk()
    async with a_nats_world(f"sqlite:///{tmp_path}/world.db", 2, desk.join) as world:
        assert isinstance(world, NatsWorld)
        await world.connections[world.buses[1].worker].close()
        began = time.monotonic()
        await asyncio.wait_for(world.databases[0].commit(Changes().event(ThingTold("revoked"))), 10)
        assert time.monotonic() - began >= LEASE_S


async def test_what_a_worker_did_not_hear_it_reads_before_it_lives_on(tmp_path: Path) -> None:
    desk = Desk()
    async with a_nats_world(f"sqlite:///{tmp_path}/world.db", 2, desk.join) as world:
        assert isinstance(world, NatsWorld)
        second = world.buses[1]
        await world.connections[second.worker].close()
        await world.databases[0].commit(Changes().event(ThingTold("meanwhile")))
        assert desk.heard[second.worker] == []
        await second.catch_up()
        assert desk.heard[second.worker] == ["meanwhile"]


async def test_who_remembers_rows_forgets_them_when_another_worker_changed_them(tmp_path: Path) -> None:
    async with a_nats_world(f"sqlite:///{tmp_path}/world.db", 2, Desk().join) as world:
        remembered = RowCache(world.databases[1], ThingTold)
        await remembered.all(COUNT_OUTBOX, dict)
        assert len(remembered) == 1
        await world.databases[0].commit(Changes().event(ThingTold("changed")))
        assert len(remembered) == 0


async def test_a_worker_that_may_be_deaf_acts_on_nothing_that_it_remembers(tmp_path: Path) -> None:
    async with a_nats_world(f"sqlite:///{tmp_path}/world.db", 2, Desk().join) as world:
        remembered = RowCache(world.databases[1], ThingTold)
        world.databases[1].sharing.is_fresh = lambda: False
        await remembered.all(COUNT_OUTBOX, dict)
        assert len(remembered) == 0


def files_of(directory: Path, name: str, holder: Holder) -> tuple[str, str]:
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    certificate.write_text(holder.certificate.pem())
    key.write_text(holder.key_pem)
    return str(certificate), str(key)


@contextlib.asynccontextmanager
async def a_closed_nats(directory: Path) -> AsyncIterator[tuple[str, str, tuple[str, str]]]:
    """A NATS that asks for certificates; yields its URL, the CA's file, and the files of who may come."""
    now = SystemClock().now()
    ca = a_ca("bus CA", now=now)
    trust = directory / "bus-ca.pem"
    trust.write_text(ca.certificate.pem())
    here = (x509.IPAddress(IPv4Address("127.0.0.1")),)
    certificate, key = files_of(directory, "nats", a_device(ca, "nats", profile=SERVER, now=now, san=here))
    asking = ("--tls", "--tlscert", certificate, "--tlskey", key, "--tlsverify", "--tlscacert", str(trust))
    async with a_nats_server(*asking) as url:
        yield url.replace("nats://", "tls://"), str(trust), files_of(directory, "worker", a_device(ca, "w", now=now))


async def test_a_worker_shows_its_certificate_to_a_nats_that_asks_for_one(tmp_path: Path) -> None:
    async with a_closed_nats(tmp_path) as (url, ca, (certificate, key)):
        connection = await connected(url, create_tls_context(ca, certificate, key))
        assert connection.is_connected
        await connection.close()


async def test_who_shows_none_or_trusts_another_ca_is_told_that_the_bus_is_away(tmp_path: Path) -> None:
    async with a_closed_nats(tmp_path) as (url, ca, (certificate, key)):
        for tls in (create_tls_context(ca, None, None), create_tls_context(certificate, certificate, key), None):
            with pytest.raises(BusAwayError):
                await connected(url, tls)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(BusAwayError) as told:
        create_tls_context(str(tmp_path / "none.pem"), None, None)
    assert "none.pem" in told.value.explain_cause()
