"""A hub on simulated workers: its devices by MQTT, its service by HTTP, and what both write down."""

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs, urlsplit

from birthmark.broker.database_stream import SqlStream
from birthmark.broker.rules.stream_partitions_and_positions import PARTITIONS
from birthmark.iothub import wire
from birthmark.iothub.model import TelemetryMessage, space_of
from birthmark.mqtt.packets import ConnAck, Connect, Packet, PubAck, Publish, SubAck, Subscribe
from simulation.book import Book, Doing
from simulation.lines import Client, Line, peer_of
from simulation.rooms import HOST, HUB, House, RoomWorker
from support.azure.sas_tokens import make_sas
from support.kills.history import (
    Finding,
    Operation,
    Outcome,
    Seen,
    of_grants,
    of_inboxes,
    of_messages,
    of_steps,
    of_versions,
)
from support.pki.pki_builders import Holder, a_device
from support.server.asgi import Answer, request

_KEEP_ALIVE_S = 1177
_YEAR_S = 365 * 86_400
_ALL = 10_000
_MICROS = 1_000_000


class HubDevice(Client):
    """A device as the vendor's SDKs are one: it subscribes anew, and sends again what was not acknowledged."""

    def __init__(self, hub: "Hub", name: str, holder: Holder) -> None:
        super().__init__(name, peer_of(holder.certificate))
        self.hub = hub
        self.holder = holder
        self.unacknowledged: list[str] = []
        self.answers_methods = True
        self._flying: dict[int, str] = {}
        self._asked: dict[str, tuple[Line, Callable[[int, int | None, bytes], None]]] = {}
        self._count, self._texts = itertools.count(1), itertools.count(1)
        self._sent: dict[str, Doing] = {}

    # ---- what it does

    def connect(self, place: int, *, clean: bool = False) -> Line:
        """Begin to connect; nobody tells the worker of the connection before that it is given up."""
        username = wire.render_username(HOST, self.name, "")
        self._flying = {}
        if self.lines:
            self.line.is_over = True
        return self.begin(self.hub.house.worker(place), Connect(self.name, clean, _KEEP_ALIVE_S, username))

    def send(self, count: int = 1) -> None:
        """Send telemetry: what cannot leave now leaves when it is connected again."""
        for _ in range(count):
            text = f"{self.name}.{next(self._texts)}"
            self.unacknowledged.append(text)
            self._sent[text] = self.hub.book.begun("telemetry", self.name, text)
            if self.is_ready:
                self._publish(text)

    def report(self) -> Doing:
        """Report a value."""
        value = f"{self.name}.r{next(self._texts)}"
        doing = self.hub.book.begun("reported", self.name, value)

        def answered(status: int, version: int | None, _body: bytes) -> None:
            doing.end(Outcome.OK if status == 204 else outcome_of(status), version)

        rid = self._ask(answered)
        topic = f"$iothub/twin/PATCH/properties/reported/?$rid={rid}"
        self.line.say(Publish(topic, json.dumps({"n": value}).encode(), 1, packet_id=next(self._count)))
        return doing

    def read(self) -> Doing:
        """Read its twin: what is desired of it, and what it reported."""
        desired = self.hub.book.begun("desired read", self.name, None)
        reported = self.hub.book.begun("reported read", self.name, None)

        def answered(status: int, _version: int | None, body: bytes) -> None:
            shown = json.loads(body) if status == 200 else {}
            for doing, section in ((desired, "desired"), (reported, "reported")):
                found = shown.get(section, {})
                doing.value = found.get("n")
                doing.end(outcome_of(status), found.get("$version"))

        rid = self._ask(answered)
        self.line.say(Publish(f"$iothub/twin/GET/?$rid={rid}", b"", 1, packet_id=next(self._count)))
        return desired

    def _ask(self, answered: Callable[[int, int | None, bytes], None]) -> str:
        rid = f"{self.name}-{next(self._count)}"
        self._asked[rid] = (self.line, answered)
        return rid

    # ---- what it hears

    @property
    def is_ready(self) -> bool:
        """Say whether it is connected, and its filters are known."""
        return self.is_there and bool(self.line.got(SubAck))

    def hear(self, line: Line, packet: Packet) -> None:
        super().hear(line, packet)
        if isinstance(packet, ConnAck) and not packet.code:
            filters = (wire.devicebound(self.name), wire.DESIRED, wire.METHODS, wire.TWIN_RESPONSES)
            line.say(Subscribe(next(self._count), tuple((one, 1) for one in filters)))
        elif isinstance(packet, SubAck) and line is self.line:
            for text in self.unacknowledged:
                self._publish(text)
        elif isinstance(packet, PubAck) and line is self.line:
            taken = self._flying.pop(packet.packet_id, "")
            if taken in self.unacknowledged:
                self.unacknowledged.remove(taken)
                self._sent[taken].end()

    def came(self, line: Line, message: Publish) -> None:
        book, topic, query = self.hub.book, message.topic, _query(message.topic)
        if topic.startswith(wire.devicebound(self.name)[:-1]):
            book.saw("mail", self.name, message.payload.decode())
        elif topic.startswith(wire.DESIRED[:-1]):
            value = json.loads(message.payload).get("n")
            book.saw("desired", self.name, (value, int(query["$version"])))
        elif topic.startswith(wire.METHODS[:-1]):
            value = json.loads(message.payload)
            book.saw("method", self.name, value)
            if self.answers_methods:
                answer = f"$iothub/methods/res/200/?$rid={query['$rid']}"
                line.say(Publish(answer, message.payload, 1, packet_id=next(self._count)))
        elif topic.startswith(wire.TWIN_RESPONSES[:-1]):
            self._twin_answered(line, message, query)

    def _twin_answered(self, line: Line, message: Publish, query: Mapping[str, str]) -> None:
        rid, version = query["$rid"], query.get("$version")
        if rid in self._asked and self._asked[rid][0] is line:
            _, answered = self._asked.pop(rid)
            status = int(message.topic.removeprefix(wire.TWIN_RESPONSES[:-1]).partition("/")[0])
            answered(status, None if version is None else int(version), message.payload)

    def _publish(self, text: str) -> None:
        packet_id = next(self._count)
        self._flying[packet_id] = text
        self.line.say(Publish(wire.telemetry_topic(self.name), text.encode(), 1, packet_id=packet_id))


@dataclass
class Asked:
    """A call by HTTP that was begun at a worker."""

    worker: RoomWorker
    doing: Doing
    answer: Answer | None = None

    @property
    def is_over(self) -> bool:
        """It was answered, or will not be."""
        return self.answer is not None or not self.worker.is_alive


@dataclass
class Hub:
    """See the module."""

    house: House
    book: Book
    key: bytes = field(repr=False)
    devices: dict[str, HubDevice] = field(default_factory=dict)
    _count: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    # ---- devices

    async def device(self, name: str = "pump") -> HubDevice:
        """Put a device on record."""
        device = self.devices[name] = HubDevice(self, name, a_device(common_name=name))
        self.house.on_killed.append(device.killed)
        answer = await self.until_answered(self.put(0, device))
        assert answer is not None
        assert answer.status == 200, answer.text
        for kind in ("desired", "reported"):
            self.book.begun(kind, name, None).end(version=1)  # what a twin begins with
        return device

    async def connected(self, device: HubDevice, place: int, *, clean: bool = False) -> Line:
        """Connect a device; its filters are known then."""
        line = device.connect(place, clean=clean)
        await self.house.until(lambda: device.is_ready or line.is_over)
        assert device.is_ready
        return line

    # ---- the service

    def put(self, place: int, device: HubDevice, *, status: str = "enabled", is_new: bool = True) -> Asked:
        """Put a device on record, or change whether it may connect."""
        thumbprints = {"primaryThumbprint": device.holder.certificate.thumbprint.hex().upper()}
        authentication = {"type": "selfSigned", "x509Thumbprint": thumbprints}
        body = {"deviceId": device.name, "status": status, "authentication": authentication}
        doing = self.book.begun(status, device.name, status)
        headers = {} if is_new else {"if-match": "*"}
        return self._ask(place, "PUT", f"/devices/{device.name}", doing, body, headers=headers)

    def disable(self, place: int, device: HubDevice) -> Asked:
        return self.put(place, device, status="disabled", is_new=False)

    def enable(self, place: int, device: HubDevice) -> Asked:
        return self.put(place, device, is_new=False)

    def delete(self, place: int, device: HubDevice) -> Asked:
        doing = self.book.begun("disabled", device.name, "deleted")
        return self._ask(place, "DELETE", f"/devices/{device.name}", doing, headers={"if-match": "*"})

    def desire(self, place: int, device: HubDevice) -> Asked:
        """Desire a value of a device."""
        value = f"{device.name}.d{next(self._count)}"
        doing = self.book.begun("desired", device.name, value)
        body = {"properties": {"desired": {"n": value}}}
        return self._ask(place, "PATCH", f"/twins/{device.name}", doing, body)

    def send(self, place: int, device: HubDevice) -> Asked:
        """Send a message to a device, and want to know what becomes of it."""
        text = f"{device.name}.m{next(self._count)}"
        doing = self.book.begun("mail", device.name, text)
        headers = {"iothub-messageid": text, "iothub-ack": "full"}
        return self._ask(place, "POST", f"/devices/{device.name}/messages/devicebound", doing, text, headers=headers)

    def call(self, place: int, device: HubDevice, response_s: int = 10, connect_s: int = 0) -> Asked:
        """Call a method."""
        value = f"{device.name}.c{next(self._count)}"
        doing = self.book.begun("method", device.name, value)
        body = {
            "methodName": "blink",
            "payload": value,
            "responseTimeoutInSeconds": response_s,
            "connectTimeoutInSeconds": connect_s,
        }
        return self._ask(place, "POST", f"/twins/{device.name}/methods", doing, body)

    async def read_feedback(self, place: int) -> None:
        """Read all that is told of messages to devices, and say that it is read."""
        path = "/messages/servicebound/feedback"
        while True:
            asked = self._ask(place, "GET", path, Doing(self.book, "", None, 0.0))
            answer = await self.until_answered(asked)
            if answer is None or answer.status != 200:
                return
            for record in json.loads(answer.body):
                value = (record["originalMessageId"], record["statusCode"])
                self.book.begun("settled", record["deviceId"], value).end()
            lock = answer.headers["etag"].strip('"')
            await self.until_answered(self._ask(place, "DELETE", f"{path}/{lock}", Doing(self.book, "", None, 0.0)))

    def _ask(
        self,
        place: int,
        method: str,
        path: str,
        doing: Doing,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Asked:
        worker, asked = self.house.worker(place), Asked(self.house.worker(place), doing)
        expires = int(self.house.world.clock.now().timestamp()) + _YEAR_S
        sas = make_sas(HOST, self.key, expires, "iothubowner")
        content = body.encode() if isinstance(body, str) else b"" if body is None else json.dumps(body).encode()
        sent = {"host": HOST, "authorization": sas, **(headers or {})}
        url = f"https://{HOST}{path}?api-version=2021-04-12"

        async def ask() -> None:
            answer = await request(worker.cloud, method, url, headers=sent, body=content)
            if worker.is_alive:
                asked.answer = answer
                doing.end(outcome_of(answer.status), _version_of(answer))

        worker.process.spawn(ask())
        return asked

    async def until_answered(self, asked: Asked) -> Answer | None:
        """Return the answer, None when its worker was killed meanwhile."""
        await self.house.until(lambda: asked.is_over, most_s=60.0)
        return asked.answer

    async def collected(self) -> None:
        """Let every device come back, send again what was not acknowledged, and take and read what waits."""
        for device in self.devices.values():
            await self.house.until(lambda device=device: self._is_back(device))  # type: ignore[misc] # bound now
        reads = [device.read() for device in self.devices.values()]
        await self.house.live_on(2.0)
        assert all(read.is_over for read in reads)
        await self.read_feedback(0)

    def _is_back(self, device: HubDevice) -> bool:
        """Connect a device that is not here; say whether it is, and has sent everything."""
        if not device.lines or device.line.is_over or device.line.worker.place:
            device.connect(0)
        return device.is_ready and not device.unacknowledged

    # ---- what is there

    async def stream(self) -> list[str]:
        """Return all telemetry there is, by its text."""
        return [text for text, _ in await self._streamed()]

    async def _streamed(self) -> list[tuple[str, float]]:
        """Return all telemetry there is, by its text, and when a worker took it."""
        worker = next(one for one in self.house.workers if one is not None and one.is_ready)
        stream = SqlStream(space_of(HUB), TelemetryMessage, worker.engine, self.house.world.clock)
        clock = self.house.world.clock
        ahead = clock.monotonic() - clock.micros() / _MICROS
        page = await stream.read((0,) * PARTITIONS, _ALL)
        return [(message.body.decode(), message.enqueued_micros / _MICROS + ahead) for message in page.items]

    async def waiting(self, device: HubDevice) -> list[str]:
        """Return what waits in a device's inbox."""
        iothub = self.house.worker(0).rooms.iothub
        letters = await self.house.done(0, iothub.c2d.inboxes.letters(space_of(HUB), device.name))
        return [iothub.c2d.mail_of(letter).payload.decode() for letter in letters]

    # ---- what is proved

    async def findings(self) -> list[Finding]:
        """What no hub that keeps its promises could have done."""
        streamed = await self._streamed()
        desired, reported = self.book.operations("desired"), self.book.operations("reported")
        left = [Seen(d.name, text, math.inf) for d in self.devices.values() for text in await self.waiting(d)]
        return [
            *of_messages(self._telemetry(), [Seen(_device_of(text), text, at) for text, at in streamed]),
            *of_inboxes(self.book.operations("mail"), self.book.seen("mail"), self._settled(), left),
            *of_versions(desired, [*self.book.operations("desired read"), *self._told()]),
            *of_steps(desired, self._told()),
            *of_versions(reported, self.book.operations("reported read")),
            *of_steps(reported, self.book.operations("reported read")),
            *of_messages(self.book.operations("method"), self.book.seen("method"), is_once=True),
            *of_grants(self.book.operations("disabled"), self.book.operations("enabled"), self._used(streamed)),
        ]

    def _telemetry(self) -> list[Operation]:
        """Return what devices sent, one after the other: what one sends on a connection has an order."""
        number: defaultdict[str, int] = defaultdict(int)
        found = []
        for one in self.book.operations("telemetry"):
            at = number[one.device] = number[one.device] + 1
            found.append(replace(one, began=at, ended=at + 0.5))
        return found

    def _settled(self) -> list[Operation]:
        ended = self.book.operations("settled")
        return [replace(one, value=one.value[0]) for one in ended if one.value[1] == "Success"]

    def _told(self) -> list[Operation]:
        """Return what devices heard of their twins: a version is what it is, whenever it is told."""
        told = ((one.device, *one.value) for one in self.book.seen("desired"))
        return [Operation(device, value, -math.inf, math.inf, Outcome.OK, version) for device, value, version in told]

    def _used(self, streamed: Sequence[tuple[str, float]]) -> list[Operation]:
        """Return the telemetry that had an effect, acknowledged or not; it ended when a worker first took it."""
        first = dict(reversed(streamed))
        asked = self.book.operations("telemetry")
        return [replace(one, outcome=Outcome.OK, ended=first[one.value]) for one in asked if one.value in first]


async def a_hub(house: House) -> Hub:
    """Return the hub that every house has."""
    hub = house.worker(0).rooms.iothub.hubs.by_name(HUB)
    return Hub(house, Book(house.world), hub.policies["iothubowner"][0])


def outcome_of(status: int) -> Outcome:
    """Say what an answer means: one that nobody can vouch for may have happened."""
    return Outcome.OK if status < 300 else Outcome.FAILED if status < 500 else Outcome.UNKNOWN


def _version_of(answer: Answer) -> int | None:
    shown = json.loads(answer.body) if answer.body and answer.status < 300 else None
    return shown["properties"]["desired"]["$version"] if isinstance(shown, dict) and "properties" in shown else None


def _query(topic: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(topic).query).items()}


def _device_of(text: str) -> str:
    return text.rpartition(".")[0]
