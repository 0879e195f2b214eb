"""Routes of a hub: what goes where, once to each endpoint, from the stream and in the commit that makes it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark.broker import Broker
from birthmark.broker.rules.stream_partitions_and_positions import key_of
from birthmark.errors import BirthmarkError, ChangedMeanwhileError
from birthmark.iothub import wire
from birthmark.iothub.connections import HubConnections
from birthmark.iothub.model import TelemetryMessage
from birthmark.iothub.rules.routes import configuration_changes
from birthmark.iothub.service.routing_endpoint_sinks import sinks_of
from birthmark.iothub.wire.stored_routing_configuration import (
    Endpoint,
    Enrichment,
    Fallback,
    FileEndpoint,
    HubRoute,
    RouteSource,
    Routing,
    StreamEndpoint,
    WebhookEndpoint,
)
from birthmark.message_routing.delivery_model import Delivery
from birthmark.message_routing.failed_delivery_queue import Queue
from birthmark.mqtt.packets import WillMessage
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.outbound.http_client import HttpSender
from birthmark.outbound.ssrf_guard import networks_of
from birthmark.store import Changes
from birthmark.supervised_tasks import cancel_and_wait, start_supervised
from support.azure.hub_world import ON_RECORD, World, a_world
from support.services.receivers import Receiver

pytestmark = pytest.mark.integration
ARCHIVE, LIVE = FileEndpoint("archive", "archive"), StreamEndpoint("live")
JSON = {"content-type": "application/json", "content-encoding": "utf-8"}


@dataclass
class Routed:
    """A hub whose routes lead somewhere."""

    world: World
    buckets: Path
    queue: Queue
    refused: list[BirthmarkError] = field(default_factory=list)

    async def have(self, *endpoints: Endpoint, routes: tuple[HubRoute, ...] = (), **more: Any) -> None:
        made = Routing(endpoints, routes, **more)
        await self.world.iothub.routes.change(
            self.world.hub, lambda _: configuration_changes.validate_routing(made, "main"), "test", "x", actor="test"
        )

    async def send(self, body: Any, device: str = "device-1", **properties: str) -> None:
        message = TelemetryMessage(
            device, self.world.clock.micros(), json.dumps(body).encode(), dict(JSON), dict(properties)
        )
        await self.world.iothub.telemetry.write(self.world.hub, key_of(device), (message,), 1)

    def passes(self) -> bool:
        """Let a second pass."""
        self.world.clock.move(timedelta(seconds=1))
        return True

    def lines(self, folder: str = "archive") -> list[Any]:
        files = sorted((self.buckets / "hub@main" / folder).rglob("[0-9]*"))
        return [json.loads(line) for one in files if one.is_file() for line in one.read_text().splitlines()]

    async def streamed(self, name: str = "live") -> list[Any]:
        stream = await self.world.iothub.routes.stream(f"main/{name}")
        return [json.loads(one.body) for one in await stream.latest(100)]


@contextlib.asynccontextmanager
async def routed(directory: Path, url: str | None = None) -> AsyncIterator[Routed]:
    async with a_world(directory, url) as world:
        routes, buckets = world.iothub.routes, directory / "buckets"
        await routes.load()
        queue = Queue(world.database, world.clock)
        sender = HttpSender(networks_of(["127.0.0.0/8"]), None)
        ways = sinks_of(routes, outside=sender, buckets=buckets, servers={})
        routes.begin(queue, ways, check_url=sender.check, servers={})
        made = Routed(world, buckets, queue)
        routes.record = made.refused.append
        tasks = start_supervised("routes", routes.run_engines_loop), start_supervised("queue", queue.keep_running)
        try:
            yield made
        finally:
            await cancel_and_wait(*tasks)


async def until(condition: Any, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while True:
            told = condition()
            if await told if asyncio.iscoroutine(told) else told:
                return
            await asyncio.sleep(0.02)


async def test_a_message_goes_where_conditions_say_and_once_to_each_endpoint(tmp_path: Path, database_url: str) -> None:
    async with routed(tmp_path, database_url) as hub:
        hot = HubRoute("hot", ("archive", "live"), condition="level = 'hot' AND $body.t > 20")
        await hub.have(ARCHIVE, LIVE, routes=(hot, HubRoute("all", ("live",))))
        await hub.send({"t": 21}, level="hot")
        await hub.send({"t": 19}, level="hot")
        await until(hub.lines)
        await until(lambda: _has(hub, 2))
        assert [one["Body"] for one in hub.lines()] == [{"t": 21}]
        assert sorted(one["Body"]["t"] for one in await hub.streamed()) == [19, 21]
        told = hub.lines()[0]
        assert told["Properties"] == {"level": "hot"}
        assert told["SystemProperties"]["connectionDeviceId"] == "device-1"
        assert told["SystemProperties"]["contentType"] == "application/json"


async def _has(hub: Routed, count: int) -> bool:
    return len(await hub.streamed()) == count


async def test_what_no_route_takes_goes_where_the_fallback_leads_and_monitor_sees_all(
    tmp_path: Path, database_url: str
) -> None:
    async with routed(tmp_path, database_url) as hub:
        hot = HubRoute("hot", ("live",), condition="level = 'hot'")
        await hub.have(ARCHIVE, LIVE, routes=(hot,), fallback=Fallback(("archive",)))
        await hub.send(1, level="hot")
        await hub.send(2)
        await until(hub.lines)
        await until(lambda: _has(hub, 1))
        assert [one["Body"] for one in hub.lines()] == [2]
        assert len(await hub.world.iothub.telemetry.stream(hub.world.hub).latest(10)) == 2


async def test_what_came_before_the_first_route_is_not_routed(tmp_path: Path, database_url: str) -> None:
    async with routed(tmp_path, database_url) as hub:
        await hub.send("before")
        await hub.have(ARCHIVE, routes=(HubRoute("all", ("archive",)),))
        await hub.send("after")
        await until(hub.lines)
        assert [one["Body"] for one in hub.lines()] == ["after"]


async def test_a_route_that_is_off_takes_nothing(tmp_path: Path) -> None:
    async with routed(tmp_path) as hub:
        await hub.have(
            ARCHIVE, LIVE, routes=(HubRoute("off", ("archive",), is_enabled=False), HubRoute("on", ("live",)))
        )
        await hub.send(1)
        await until(lambda: _has(hub, 1))
        assert hub.lines() == []


async def test_a_twin_that_changes_says_what_was_set_and_what_is_gone(tmp_path: Path, database_url: str) -> None:
    async with routed(tmp_path, database_url) as hub:
        world = hub.world
        twins = world.iothub.twins
        await twins.desire(
            world.hub, "device-1", {"properties": {"desired": {"old": 1, "kept": 2}}}, None, replaces=False, actor="t"
        )
        await hub.have(ARCHIVE, routes=(HubRoute("twins", ("archive",), RouteSource.TWINS),))
        patch = {"properties": {"desired": {"old": None, "a": {"b": 3}}}, "tags": {"site": "n"}}
        await twins.desire(world.hub, "device-1", patch, None, replaces=False, actor="t")
        device = await world.iothub.registry.device(world.hub, "device-1")
        await twins.report(world.hub, device, {"t": 5}, None)
        await twins.desire(world.hub, "device-1", {"tags": {"x": 1}}, None, replaces=True, actor="t")
        await until(lambda: len(hub.lines()) == 3)
        first, second, third = hub.lines()
        assert first["Properties"]["opType"] == "updateTwin"
        assert first["Properties"]["iothub-message-schema"] == "twinChangeNotification"
        assert first["Properties"]["hubName"] == "main"
        assert first["Properties"]["deviceId"] == "device-1"
        assert first["SystemProperties"]["iothub-message-source"] == "twinChangeEvents"
        desired = first["Body"]["properties"]["desired"]
        assert {name: value for name, value in desired.items() if name[0] != "$"} == {"old": None, "a": {"b": 3}}
        assert first["Body"]["tags"] == {"site": "n"}
        assert "reported" not in first["Body"]["properties"]
        assert second["Body"]["properties"]["reported"]["t"] == 5
        assert second["Body"]["properties"]["reported"]["$version"] == 2
        assert third["Properties"]["opType"] == "replaceTwin"
        assert third["Body"]["tags"] == {"x": 1}


async def test_devices_and_modules_that_come_on_record_and_go_say_so(tmp_path: Path, database_url: str) -> None:
    async with routed(tmp_path, database_url) as hub:
        world = hub.world
        registry = world.iothub.registry
        await hub.have(ARCHIVE, routes=(HubRoute("life", ("archive",), RouteSource.LIFECYCLE),))
        twin = {"tags": {"site": "north"}}
        device = await registry.put(
            world.hub, "pump", wire.DeviceBody("pump"), ON_RECORD, None, twin=twin, actor="test"
        )
        await registry.modules.put(device, "camera", ON_RECORD, actor="test")
        await registry.remove(world.hub, "pump", None, actor="test")
        await until(lambda: len(hub.lines()) == 4)
        told = [(one["Properties"]["opType"], one["Properties"].get("moduleId")) for one in hub.lines()]
        made, module = ("createDeviceIdentity", None), ("createModuleIdentity", "camera")
        assert told[:2] == [made, module]
        assert set(told[2:]) == {("deleteDeviceIdentity", None), ("deleteModuleIdentity", "camera")}
        assert hub.lines()[0]["Body"]["tags"] == {"site": "north"}


async def test_who_comes_and_goes_is_told_in_order(tmp_path: Path) -> None:
    async with routed(tmp_path) as hub:
        await hub.have(ARCHIVE, routes=(HubRoute("state", ("archive",), RouteSource.CONNECTIONS),))
        await hub.world.connected()
        link, _ = await hub.world.connected()
        link.close(CloseReason.SERVER)
        await until(lambda: len(hub.lines()) == 4)
        told = sorted((one["Body"]["sequenceNumber"], one["Properties"]["opType"]) for one in hub.lines())
        assert [what for _, what in told] == ["deviceConnected", "deviceDisconnected"] * 2


async def test_nothing_is_noted_of_what_no_route_asks_for(tmp_path: Path) -> None:
    async with routed(tmp_path) as hub:
        await hub.have(ARCHIVE, routes=(HubRoute("twins", ("archive",), RouteSource.TWINS),))
        await hub.world.connected()
        assert await hub.world.iothub.routes.telling.stream("main").latest(10) == []


async def test_enrichments_add_texts_the_hub_and_what_the_twin_says(tmp_path: Path) -> None:
    async with routed(tmp_path) as hub:
        world = hub.world
        added = (
            Enrichment("plant", "7", ("archive",)),
            Enrichment("hub", "$iothubname", ("archive",)),
            Enrichment("site", "$twin.tags.site", ("archive",)),
            Enrichment("none", "$twin.tags.none", ("archive",)),
            Enrichment("floor", "$twin.tags.floor", ("archive",)),
            Enrichment("all", "$twin.tags.plan", ("archive",)),
        )
        tags = {"site": "north", "floor": 2, "plan": {"is": "no primitive value"}}
        await world.iothub.twins.desire(world.hub, "device-1", {"tags": tags}, None, replaces=False, actor="t")
        await hub.have(ARCHIVE, LIVE, routes=(HubRoute("all", ("archive", "live")),), enrichments=added)
        await hub.send(1)
        await until(hub.lines)
        await until(lambda: _has(hub, 1))
        told = {"plant": "7", "hub": "main", "site": "north", "floor": "2"}
        as_they_stand = {"none": "$twin.tags.none", "all": "$twin.tags.plan"}
        assert hub.lines()[0]["Properties"] == told | as_they_stand
        assert (await hub.streamed())[0]["Properties"] == {}


async def test_a_webhook_is_signed_and_one_that_answers_500_gets_it_later(tmp_path: Path, database_url: str) -> None:
    with Receiver(status=500) as receiver:
        async with routed(tmp_path, database_url) as hub:
            await hub.have(WebhookEndpoint("hook", receiver.url("/in")), routes=(HubRoute("all", ("hook",)),))
            await hub.send(1)
            await until(lambda: receiver.bodies("/in"))
            receiver.status = 200
            await until(lambda: hub.passes() and len(receiver.bodies("/in")) == 2)
            first, second = receiver.got
            assert json.loads(first.body)["Body"] == 1
            assert first.headers["webhook-id"] == second.headers["webhook-id"]
            assert first.headers["webhook-signature"].startswith("v1,")
            lanes = await hub.world.iothub.routes.lanes(hub.world.hub)
            await until(lambda: _nothing_waits(hub))
            assert all(lane.dead == 0 for lane in lanes.values())


async def _nothing_waits(hub: Routed) -> bool:
    return not await hub.world.iothub.routes.lanes(hub.world.hub)


async def test_a_webhook_that_redirects_puts_it_aside_and_is_told_until_it_is_tried_again(
    tmp_path: Path, database_url: str
) -> None:
    with Receiver(status=302, location="http://127.0.0.1:1/") as receiver:
        async with routed(tmp_path, database_url) as hub:
            routes, main = hub.world.iothub.routes, hub.world.hub
            await hub.have(WebhookEndpoint("hook", receiver.url("/in")), routes=(HubRoute("all", ("hook",)),))
            await hub.send(1)
            await until(lambda: hub.refused)
            assert hub.refused[0].code == "iothub.route_failed"
            async with asyncio.timeout(10):  # it is told before it is written
                while not (problems := await routes.problems(main, "all", 10)):
                    await asyncio.sleep(0.01)
            assert "302" in problems[0]["problem"]
            receiver.status = 200
            await routes.retry(main, "all", actor="test")
            await until(lambda: hub.passes() and len(receiver.bodies("/in")) == 2)


async def test_a_webhook_that_hangs_keeps_no_other_endpoint_waiting(tmp_path: Path) -> None:
    with Receiver(delay_s=3) as receiver:
        async with routed(tmp_path) as hub:
            await hub.have(
                WebhookEndpoint("hook", receiver.url("/in")), LIVE, routes=(HubRoute("all", ("hook", "live")),)
            )
            await hub.send(1)
            await until(lambda: _has(hub, 1), 2)
            await hub.send(2)
            await until(lambda: _has(hub, 2), 2)


async def test_a_link_out_of_the_folder_is_followed_by_nobody(tmp_path: Path) -> None:
    async with routed(tmp_path) as hub:
        await hub.have(ARCHIVE, routes=(HubRoute("all", ("archive",)),))
        (tmp_path / "elsewhere").mkdir()
        folder = hub.buckets / "hub@main" / "archive"
        folder.mkdir(parents=True)
        (folder / "main").symlink_to(tmp_path / "elsewhere")
        await hub.send(1)
        await until(lambda: hub.refused)
        assert not [one for one in (tmp_path / "elsewhere").rglob("*") if one.is_file()]


async def test_a_hub_that_is_removed_takes_its_routes_along(tmp_path: Path, database_url: str) -> None:
    with Receiver(status=500) as receiver:
        async with routed(tmp_path, database_url) as hub:
            iothub = hub.world.iothub
            every_source = tuple(HubRoute(one.value, ("hook", "live"), one) for one in RouteSource)
            await hub.have(WebhookEndpoint("hook", receiver.url("/in")), LIVE, routes=every_source)
            await hub.send(1)
            await until(lambda: receiver.got)
            await iothub.hubs.delete("main", actor="test")
            hub.world.hub = await iothub.hubs.create("main", "hub.example", actor="test")
            assert await iothub.routes.routing(hub.world.hub) == Routing()
            assert await _nothing_waits(hub)
            receiver.got.clear()
            await hub.have(ARCHIVE, routes=(HubRoute("all", ("archive",)),))
            await hub.send(2)
            await until(hub.lines)
            assert [one["Body"] for one in hub.lines()] == [2]


async def test_of_two_who_change_the_routing_that_they_read_one_is_told(tmp_path: Path, database_url: str) -> None:
    async with routed(tmp_path, database_url) as hub:
        routes, main = hub.world.iothub.routes, hub.world.hub

        def change(name: str) -> Any:
            made = FileEndpoint(name, "archive")
            return routes.change(
                main,
                lambda known: configuration_changes.with_endpoint(known, made, "main"),
                "test",
                name,
                actor="t",
                revision=0,
            )

        told = await asyncio.gather(change("one"), change("two"), return_exceptions=True)
        assert sum(isinstance(one, ChangedMeanwhileError) for one in told) == 1
        assert len((await routes.routing(main)).endpoints) == 1


async def test_ten_who_add_at_once_add_ten_and_no_eleventh(tmp_path: Path, database_url: str) -> None:
    async with routed(tmp_path, database_url) as hub:
        routes, main = hub.world.iothub.routes, hub.world.hub

        async def add(number: int) -> None:
            made = FileEndpoint(f"e{number}", "archive")
            await routes.change(
                main,
                lambda known: configuration_changes.with_endpoint(known, made, "main"),
                "test",
                made.name,
                actor="t",
            )

        await asyncio.gather(*(add(number) for number in range(8)))
        told = await asyncio.gather(*(add(number) for number in range(8, 14)), return_exceptions=True)
        assert len((await routes.routing(main)).endpoints) == 10
        assert sum(isinstance(one, configuration_changes.TooManyRoutesError) for one in told) == 4


async def test_of_a_worker_that_was_killed_another_says_who_went(tmp_path: Path, database_url: str) -> None:
    async with routed(tmp_path, database_url) as hub:
        await hub.have(ARCHIVE, routes=(HubRoute("state", ("archive",), RouteSource.CONNECTIONS),))
        await hub.world.connected(clean=False, will=WillMessage("devices/device-1/messages/events/", b"gone"))
        await until(hub.lines)
        after = Broker(hub.world.database, hub.world.clock, "the next")
        connections = HubConnections(hub.world.iothub, after, hub.world.clock)
        await connections.begin()
        await after.start()
        await until(lambda: len(hub.lines()) == 2)
        assert [one["Properties"]["opType"] for one in hub.lines()] == ["deviceConnected", "deviceDisconnected"]


async def test_how_far_routes_are_behind_is_known_also_while_nobody_leads(tmp_path: Path, database_url: str) -> None:
    async with routed(tmp_path, database_url) as hub:
        routes = hub.world.iothub.routes

        async def nobody() -> bool:
            return False

        routes.leads = nobody
        await hub.have(ARCHIVE, routes=(HubRoute("all", ("archive",)),))
        assert await routes.lags() == {"main": 0.0}
        await hub.send(1)
        hub.world.clock.move(timedelta(seconds=7))
        assert await routes.lags() == {"main": 7.0}


async def test_lanes_of_one_hub_that_hang_leave_others_room(tmp_path: Path) -> None:
    with Receiver(delay_s=2) as receiver:
        async with routed(tmp_path) as hub:
            hooks = tuple(WebhookEndpoint(f"h{n}", receiver.url("/in")) for n in range(9))
            slow = tuple(HubRoute(f"r{n}", tuple(one.name for one in hooks), condition=f"n = '{n}'") for n in range(10))
            await hub.have(*hooks, routes=slow)
            for number in range(10):
                await hub.send(number, n=str(number))
            await until(lambda: len(receiver.got) >= 32)
            changes = Changes()
            address = {"hub": "none", "endpoint": "none", "stream": "none/none"}
            other = Delivery("other/0", "hub-stream", address, b"{}", {"route": "x", "device": "d"})
            hub.queue.add(changes, "other", other)
            await hub.world.database.commit(changes)
            hub.queue.wake()
            await until(lambda: hub.refused, 1.5)


async def test_what_is_tried_again_by_a_person_waits_for_no_pause(tmp_path: Path) -> None:
    with Receiver(status=410) as receiver:
        async with routed(tmp_path) as hub:
            routes, main = hub.world.iothub.routes, hub.world.hub
            await hub.have(WebhookEndpoint("hook", receiver.url("/in")), routes=(HubRoute("all", ("hook",)),))
            await hub.send(1)
            await until(lambda: hub.refused)
            await until(_dead(hub))
            receiver.status = 200
            await routes.retry(main, "all", actor="test")
            await until(lambda: len(receiver.bodies("/in")) == 2)


def _dead(hub: Routed) -> Any:
    async def look() -> bool:
        return any(lane.dead for lane in (await hub.world.iothub.routes.lanes(hub.world.hub)).values())

    return look
