"""Devices on multiplexed AMQP connections under a mixed load, while the server is killed."""

import asyncio
import contextlib
import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from birthmark.amqp.events import DeliveryReceived
from birthmark.amqp.message import AmqpMessage, DataBody, MessageProperties, read_message, write_message
from birthmark.amqp.performatives import (
    ACCEPTED,
    RELEASED,
    AcceptedOutcome,
    Disposition,
    Flow,
    Outcome,
    RejectedOutcome,
    Source,
    Transfer,
)
from birthmark.amqp.values import Int, Symbol
from support.azure.amqp_multiplexer import (
    DEVICEBOUND,
    EVENTS,
    METHODS,
    TWIN,
    DeviceListener,
    HubAddress,
    MultiplexedConnection,
    MultiplexedDevice,
    keep_connected,
)
from support.azure.hub_service import HubService, lost_lines
from support.azure.raw_back_end import BackEndRefusedError, RawBackEnd
from support.kills.kills import Kill
from support.server.servers import RunningServer

DEVICES = 40
CONNECTIONS = 2
PARTITIONS = 4
_KEY = b"k" * 32
_REJECTED = RejectedOutcome()
_MAX_ABANDONED = 5
"""Deliveries after which a message is not abandoned again: the tenth would be its last."""
_CALLERS = 4
_TICK_S = 0.02
_FRESH_S, _SETTLED_S = 90.0, 120.0
_EVERYTHING = ("telemetry", "reported", "called", "ended")


@dataclass
class Proof:
    """What was acknowledged and what was seen; `wrong` says what is not as it should be."""

    kills: Counter[str] = field(default_factory=Counter)
    telemetry: set[str] = field(default_factory=set)
    reported: dict[str, int] = field(default_factory=dict)
    """The last number of each device that the hub acknowledged."""
    patched: dict[str, int] = field(default_factory=dict)
    """The last number of each device that was sent."""
    reports: int = 0
    accepted: dict[str, str] = field(default_factory=dict)
    """Messages to devices, with the device of each."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """The latest outcome of each message, as its device sent it."""
    confirmed: set[str] = field(default_factory=set)
    """Messages whose completion or rejection the hub has confirmed."""
    deliveries: Counter[str] = field(default_factory=Counter)
    lost_locks: int = 0
    calls: Counter[int] = field(default_factory=Counter)
    """How often each call was delivered."""
    answered: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    fresh: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Devices of which something of each kind was acknowledged since the last kill."""
    events: int = 0
    connects: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def ended(self) -> set[str]:
        """Messages that their device has completed or rejected last."""
        return {identifier for identifier, outcome in self.outcomes.items() if outcome is not RELEASED}

    @property
    def figures(self) -> dict[str, object]:
        """Return the counts of a run."""
        return {
            "kills": dict(self.kills),
            "connects": self.connects,
            "telemetry acknowledged": len(self.telemetry),
            "events read": self.events,
            "reports acknowledged": self.reports,
            "messages accepted": len(self.accepted),
            "messages delivered": sum(self.deliveries.values()),
            "messages ended": len(self.ended),
            "ends confirmed": len(self.confirmed),
            "locks lost": self.lost_locks,
            "calls delivered": len(self.calls),
            "calls answered": self.answered,
            "statuses": dict(self.statuses),
            "seconds": round(self.seconds),
        }


class AmqpDevices(DeviceListener):
    """All devices of a run, in one event loop."""

    def __init__(self, hub: HubAddress, dice: random.Random, proof: Proof) -> None:
        self.proof = proof
        self._dice = dice
        self.devices = [
            MultiplexedDevice(f"soak-{number}", _KEY, (EVENTS, DEVICEBOUND, TWIN, METHODS), confirms=number % 2 == 0)
            for number in range(DEVICES)
        ]
        self.connections = [
            MultiplexedConnection(hub, self.devices[number::CONNECTIONS], self) for number in range(CONNECTIONS)
        ]
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self.sent = threading.Event()
        self._number = 0
        self._telemetry: dict[tuple[str, int], str] = {}
        self._reports: dict[str, tuple[str, int]] = {}
        self._outcomes: dict[tuple[str, int], tuple[str, Outcome]] = {}

    def run(self) -> None:
        """Keep all connected and sending until `end`."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(keep_connected(one, self._over)) for one in self.connections]
            while not self._over.is_set():
                if not self.sent.is_set():
                    for _ in range(3):
                        self._send(self._pick("telemetry"))
                    self._report(self._pick("reported"))
                await asyncio.sleep(_TICK_S)
            for one in self.connections:
                one.stop()
            for task in running:
                task.cancel()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)

    def _pick(self, kind: str) -> MultiplexedDevice:
        fresh = self.proof.fresh[kind]
        return self._dice.choice([one for one in self.devices if one.name not in fresh] or self.devices)

    # ---- telemetry

    def _send(self, device: MultiplexedDevice) -> None:
        if device.capacity(EVENTS):
            self._number += 1
            body = f"{device.name}:{self._number}"
            delivery_id = device.send(EVENTS, write_message(AmqpMessage(DataBody((body.encode(),)))))
            self._telemetry[device.name, delivery_id] = body

    def settled(self, device: MultiplexedDevice, delivery_id: int, outcome: Outcome | None) -> None:
        body = self._telemetry.pop((device.name, delivery_id))
        if isinstance(outcome, AcceptedOutcome):
            self.proof.telemetry.add(body)
            self.proof.fresh["telemetry"].add(device.name)
        else:
            self.proof.statuses[f"telemetry {_condition(outcome)}"] += 1

    # ---- reported properties

    def _report(self, device: MultiplexedDevice) -> None:
        if device.name in self._reports or not device.capacity(TWIN):
            return
        self._number += 1
        self.proof.patched[device.name] = self._number
        identifier = str(uuid4())
        self._reports[device.name] = identifier, self._number
        annotations = {Symbol("operation"): "PATCH", Symbol("resource"): "/properties/reported"}
        body = DataBody((json.dumps({"n": self._number}).encode(),))
        message = AmqpMessage(body, MessageProperties(correlation_id=identifier), message_annotations=annotations)
        device.send(TWIN, write_message(message))

    def _twin_answered(self, device: MultiplexedDevice, message: AmqpMessage) -> None:
        identifier, number = self._reports.pop(device.name, ("", 0))
        if message.properties.correlation_id != identifier:
            self.proof.wrong.append(f"{device.name} got the twin response {message.properties.correlation_id}")
            return
        status = int(message.message_annotations[Symbol("status")])
        if status == HTTPStatus.NO_CONTENT:
            self.proof.reports += 1
            self.proof.reported[device.name] = number
            self.proof.fresh["reported"].add(device.name)
        else:
            self.proof.statuses[f"reported {status}"] += 1

    # ---- what devices receive

    def received(self, device: MultiplexedDevice, feature: str, event: DeliveryReceived) -> None:
        message = read_message(event.payload)
        if feature == TWIN:
            self._twin_answered(device, message)
        elif feature == METHODS:
            self._called(device, message)
        else:
            self._mailed(device, event, message)

    def _mailed(self, device: MultiplexedDevice, event: DeliveryReceived, message: AmqpMessage) -> None:
        proof, identifier = self.proof, str(message.properties.message_id)
        if identifier in proof.confirmed:
            proof.wrong.append(f"{identifier} was delivered after the hub had confirmed its end")
        if _text(message) != f"{device.name} {identifier}":
            proof.wrong.append(f"{identifier} was delivered to {device.name}: {_text(message)}")
        proof.deliveries[identifier] += 1
        outcomes = (ACCEPTED, _REJECTED, RELEASED)
        count = int(message.message_annotations[Symbol("iothub-deliverycount")])
        weights = (6, 1, 2) if count < _MAX_ABANDONED else (6, 1, 0)
        outcome = self._dice.choices(outcomes, weights)[0]
        proof.outcomes[identifier] = outcome
        self._outcomes[device.name, event.delivery_id] = identifier, outcome
        device.settle(event, outcome)
        if outcome is not RELEASED and not device.confirms:
            proof.fresh["ended"].add(device.name)

    def confirmed(self, device: MultiplexedDevice, delivery_id: int, state: Any) -> None:
        identifier, outcome = self._outcomes.pop((device.name, delivery_id))
        if isinstance(state, RejectedOutcome) and state.error is not None:
            self.proof.lost_locks += 1  # it is delivered again
        elif outcome is not RELEASED:
            self.proof.confirmed.add(identifier)
            self.proof.fresh["ended"].add(device.name)

    def _called(self, device: MultiplexedDevice, message: AmqpMessage) -> None:
        payload = json.loads(_text(message))
        number = payload["n"]
        self.proof.calls[number] += 1
        if self.proof.calls[number] > 1:
            self.proof.wrong.append(f"call {number} was delivered {self.proof.calls[number]} times")
        if payload["device"] != device.name:
            self.proof.wrong.append(f"call {number} of {payload['device']} was delivered to {device.name}")
        properties = MessageProperties(correlation_id=message.properties.correlation_id)
        answer = write_message(
            AmqpMessage(DataBody((_text(message).encode(),)), properties, {"IoThub-status": Int(200)})
        )

        def respond() -> None:
            if device.capacity(METHODS):
                device.send(METHODS, answer)

        if self._dice.random() < 0.7:
            respond()
        else:
            self._loop.call_later(self._dice.uniform(0, 1.0), respond)

    def lost(self, device: MultiplexedDevice) -> None:
        self._reports.pop(device.name, None)
        self._telemetry = {key: body for key, body in self._telemetry.items() if key[0] != device.name}
        self._outcomes = {key: found for key, found in self._outcomes.items() if key[0] != device.name}


class Services:
    """Those who call methods and send messages to the devices, a thread each, until `sent` is set."""

    def __init__(self, server: RunningServer, hub: HubAddress, devices: AmqpDevices) -> None:
        self._hub, self._devices, self._proof = hub, devices, devices.proof
        known = server.endpoints["iothub"]
        self._string, self._back_ends = known["service_connection_string"], known["event_hubs_connection_string"]
        self._port = known["https_port"]
        self._numbers = iter(range(1, 10**9))
        self._lock = threading.Lock()
        self._dice = random.Random(1)

    def threads(self) -> list[threading.Thread]:
        work = [*[self._calls] * _CALLERS, self._mails, self._mails_over_amqp]
        return [threading.Thread(target=self._kept_up, args=(one,), daemon=True) for one in work]

    def service(self) -> HubService:
        return HubService(self._hub, self._string, self._port)

    def back_end(self) -> RawBackEnd:
        return RawBackEnd(self._hub.address, self._hub.ca_file, self._back_ends).claim()

    @property
    def _sent(self) -> threading.Event:
        return self._devices.sent

    def _kept_up(self, work: Callable[[], None]) -> None:
        while not self._sent.is_set():
            with lost_lines(), contextlib.suppress(BackEndRefusedError):
                work()
            self._sent.wait(0.1)

    def _next(self, kind: str) -> tuple[str, int]:
        with self._lock:
            fresh = self._proof.fresh[kind]
            names = [one.name for one in self._devices.devices]
            return self._dice.choice([name for name in names if name not in fresh] or names), next(self._numbers)

    def _calls(self) -> None:
        with self.service() as service:
            while not self._sent.is_set():
                name, number = self._next("called")
                payload = {"n": number, "device": name}
                body = {"methodName": "count", "payload": payload}
                times = {"connectTimeoutInSeconds": 3, "responseTimeoutInSeconds": 6}
                status, told = service.ask("POST", f"/twins/{name}/methods", body | times)
                if status != HTTPStatus.OK:
                    self._proof.statuses[f"call {status}"] += 1
                elif told != {"status": 200, "payload": payload}:
                    self._proof.wrong.append(f"call {number} of {name} was answered with {told}")
                else:
                    self._proof.answered += 1
                    self._proof.fresh["called"].add(name)
                self._sent.wait(0.02)

    def _mails(self) -> None:
        with self.service() as service:
            while not self._sent.is_set():
                name, number = self._next("ended")
                identifier = f"h{number}"
                status = service.send_text(name, f"{name} {identifier}", identifier)
                if status == HTTPStatus.CREATED:
                    self._proof.accepted[identifier] = name
                else:
                    self._proof.statuses[f"message {status}"] += 1
                self._sent.wait(0.05)

    def _mails_over_amqp(self) -> None:
        with self.back_end() as back_end:
            back_end.line.settimeout(10)
            link = back_end.attach("/messages/devicebound", receives=False)
            while not self._sent.is_set():
                name, number = self._next("ended")
                identifier = f"a{number}"
                properties = MessageProperties(to=f"/devices/{name}/messages/devicebound", message_id=identifier)
                back_end.transfer(link, AmqpMessage(DataBody((f"{name} {identifier}".encode(),)), properties))
                while not isinstance(back_end.next()[0], Disposition):
                    pass
                self._proof.accepted[identifier] = name
                self._sent.wait(0.05)

    # ---- after the last kill

    def twins(self) -> dict[str, dict[str, Any]]:
        """Return the twin of each device; nothing while the server does not answer."""
        found: dict[str, dict[str, Any]] = {}
        with lost_lines(), self.service() as service:
            for device in self._devices.devices:
                status, told = service.ask("GET", f"/twins/{device.name}")
                if status == HTTPStatus.OK:
                    found[device.name] = told
        return found

    def stream(self) -> Counter[str]:
        """Return how often each telemetry message is in the stream."""
        found = Counter[str]()
        for number in range(PARTITIONS):
            with self.back_end() as back_end, contextlib.suppress(TimeoutError):
                back_end.line.settimeout(3)
                address, seen = f"birthmark/ConsumerGroups/$Default/Partitions/{number}", 0
                text = "amqp.annotation.x-opt-sequence-number > '-1'"
                source = Source(address, filter={Symbol("apache.org:selector-filter:string"): text})
                back_end.attach(address, source=source, credit=1_000_000)
                while True:
                    performative, payload = back_end.next()
                    if isinstance(performative, Transfer):
                        found[_text(read_message(payload))] += 1
                        seen += 1
                        if seen % 1000 == 0:  # renews the session's window
                            back_end.send(Flow(seen, 2048, 0, 2048))
        return found


def keep_on(server: RunningServer, kills: int, dice: random.Random, kill: Kill) -> Proof:
    """Kill a server a number of times under its devices, and return what they proved."""
    known, proof, began = server.endpoints["iothub"], Proof(), time.monotonic()
    hub = HubAddress(server.address, known["host"], server.endpoints["trust_bundle"], known["amqps_port"])
    devices = AmqpDevices(hub, random.Random(dice.random()), proof)
    services = Services(server, hub, devices)
    with services.service() as service:
        service.create_devices([one.name for one in devices.devices], _KEY)
    threads = [threading.Thread(target=devices.run, daemon=True), *services.threads()]
    for thread in threads:
        thread.start()
    _await_all(devices)
    for _ in range(kills):
        time.sleep(dice.uniform(0.5, 3.0))
        proof.kills[kill(server, dice)] += 1
    proof.fresh.clear()
    _await_all(devices)
    devices.sent.set()
    for thread in threads[1:]:
        thread.join(30)
    _check(services, devices)
    devices.end()
    threads[0].join(10)
    proof.seconds = time.monotonic() - began
    return proof


def _await_all(devices: AmqpDevices) -> None:
    """Wait until something of each kind was acknowledged of each device."""
    proof, deadline = devices.proof, time.monotonic() + _FRESH_S
    while any(len(proof.fresh[kind]) < DEVICES for kind in _EVERYTHING):
        if time.monotonic() > deadline:
            missing = {kind: DEVICES - len(proof.fresh[kind]) for kind in _EVERYTHING}
            away = [one.name for one in devices.devices if not one.is_attached]
            proof.wrong.append(f"devices without a success in {_FRESH_S:g} s: {missing}; not attached: {away}")
            return
        time.sleep(0.1)


def _check(services: Services, devices: AmqpDevices) -> None:
    proof, deadline = devices.proof, time.monotonic() + _SETTLED_S
    while True:
        twins = services.twins()
        waiting = {name: count for name, told in twins.items() if (count := told["cloudToDeviceMessageCount"])}
        left = sorted(proof.accepted.keys() - proof.ended)
        away = [one.name for one in devices.devices if not one.is_attached]
        away += [name for name, told in twins.items() if told["connectionState"] != "Connected"]
        if (len(twins) == DEVICES and not (waiting or left or away)) or time.monotonic() > deadline:
            break
        time.sleep(1)
    proof.wrong += [f"{identifier} was accepted, but not completed or rejected" for identifier in left[:5]]
    proof.wrong += [f"{name} has {count} messages left" for name, count in waiting.items()]
    proof.wrong += [f"{name} is not connected" for name in away]
    stream = services.stream()
    proof.events = stream.total()
    proof.wrong += [
        f"telemetry {body} was acknowledged and is lost" for body in sorted(proof.telemetry - stream.keys())[:5]
    ]
    proof.wrong += [f"telemetry {body} is stored {count} times" for body, count in stream.items() if count > 1][:5]
    for device in devices.devices:
        number = twins.get(device.name, {}).get("properties", {}).get("reported", {}).get("n", 0)
        acknowledged, last = proof.reported.get(device.name, 0), proof.patched.get(device.name, 0)
        if not acknowledged <= number <= last:
            proof.wrong.append(f"{device.name} reported {number}; {acknowledged} was acknowledged, {last} sent last")
    for one in devices.connections:
        proof.connects += one.connects
        proof.statuses.update(one.troubles)


def _text(message: AmqpMessage) -> str:
    return message.body.payload.decode() if isinstance(message.body, DataBody) else ""


def _condition(outcome: Outcome | None) -> str:
    if isinstance(outcome, RejectedOutcome) and outcome.error is not None:
        return str(outcome.error.condition)
    return type(outcome).__name__
