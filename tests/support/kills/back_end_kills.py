"""Back ends over AMQP while the server is killed: readers, exclusive readers, messages to devices, feedback."""

import base64
import contextlib
import http.client
import json
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from birthmark.amqp.message import AmqpMessage, DataBody, MessageProperties, read_message
from birthmark.amqp.performatives import ACCEPTED, RECEIVER, Disposition, Source, Transfer
from birthmark.amqp.values import Symbol
from birthmark.auth.sas import hmac_sha256, render_sas
from support.azure.raw_back_end import BackEndRefusedError, RawBackEnd
from support.kills.kills import Kill
from support.server.servers import RunningServer

_LOST = (OSError, BackEndRefusedError, http.client.HTTPException)
PARTITIONS = 4


@dataclass
class Proof:
    """What was acknowledged and what was seen; `wrong` says what is not as it should be."""

    telemetry: set[str] = field(default_factory=set)
    seen: dict[int, dict[int, str]] = field(default_factory=lambda: {number: {} for number in range(PARTITIONS)})
    accepted: set[str] = field(default_factory=set)
    completed: dict[str, int] = field(default_factory=dict)
    deliveries: dict[str, int] = field(default_factory=dict)
    feedback: list[str] = field(default_factory=list)
    epochs: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, int]:
        """Return the counts of a run."""
        return {
            "telemetry acknowledged": len(self.telemetry),
            "events read": sum(map(len, self.seen.values())),
            "messages accepted": len(self.accepted),
            "messages completed": len(self.completed),
            "feedback received": len(set(self.feedback)),
            "exclusive readers": self.epochs,
        }


class BackEnds:
    """All clients of a run, a thread each, until `over` is set; those that send end with `sent`."""

    def __init__(self, server: RunningServer, keys: dict[str, str]) -> None:
        self.server = server
        self.proof = Proof()
        self.over = threading.Event()
        self.sent = threading.Event()
        self._keys = keys
        known = server.endpoints["iothub"]
        self._string, self._ca = known["event_hubs_connection_string"], server.endpoints["trust_bundle"]
        self._port, self._host = known["https_port"], known["host"]

    def threads(self) -> list[threading.Thread]:
        """Return the clients."""
        work: list[Callable[[], None]] = [
            *[self._sends(name) for name in self._keys],
            *[self._reads(number) for number in range(PARTITIONS)],
            self._replaces,
            self._messages,
            self._completes,
            self._listens,
        ]
        return [threading.Thread(target=self._kept_up, args=(one,), daemon=True) for one in work]

    def _kept_up(self, work: Callable[[], None]) -> None:
        """Repeat work on new connections, whatever the kills do to it."""
        while not self.over.is_set():
            with contextlib.suppress(*_LOST):
                work()
            self.over.wait(0.1)

    @contextlib.contextmanager
    def _back_end(self) -> Iterator[RawBackEnd]:
        with RawBackEnd(self.server.address, self._ca, self._string) as back_end:
            back_end.line.settimeout(3)
            yield back_end.claim()

    def _https(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=self._ca)
        return http.client.HTTPSConnection(self.server.address, self._port, context=context, timeout=3)

    def _headers(self, name: str) -> dict[str, str]:
        sign = hmac_sha256(base64.b64decode(self._keys[name]))
        until = datetime.now(UTC) + timedelta(hours=1)
        return {"Authorization": render_sas(f"{self._host}/devices/{name}", sign, until), "Host": self._host}

    def _sends(self, name: str) -> Callable[[], None]:
        count = 0

        def work() -> None:
            nonlocal count
            with contextlib.closing(self._https()) as line:
                while not self.sent.is_set():
                    body, count = f"{name}:{count}", count + 1
                    path = f"/devices/{name}/messages/events?api-version=2021-04-12"
                    line.request("POST", path, body, self._headers(name))
                    answer = line.getresponse()
                    answer.read()
                    if answer.status == 204:
                        self.proof.telemetry.add(body)

        return work

    def _reads(self, number: int) -> Callable[[], None]:
        def work() -> None:
            seen = self.proof.seen[number]
            address = f"birthmark/ConsumerGroups/$Default/Partitions/{number}"
            text = f"amqp.annotation.x-opt-sequence-number > '{max(seen, default=-1)}'"
            source = Source(address, filter={Symbol("apache.org:selector-filter:string"): text})
            with self._back_end() as back_end:
                back_end.attach(address, source=source, credit=100_000)
                while not self.over.is_set():
                    performative, payload = back_end.next()
                    if isinstance(performative, Transfer):
                        self._read(seen, number, read_message(payload))

        return work

    def _read(self, seen: dict[int, str], partition: int, message: AmqpMessage) -> None:
        at = int(message.message_annotations[Symbol("x-opt-sequence-number")])
        body = message.body.payload.decode() if isinstance(message.body, DataBody) else ""
        if at != max(seen, default=-1) + 1:
            self.proof.wrong.append(f"partition {partition}: number {at} follows {max(seen, default=-1)}")
        seen[at] = body

    def _replaces(self) -> None:
        """Take partition 0 of a group with a higher owner level each time."""
        with self._back_end() as back_end:
            epoch = {Symbol("com.microsoft:epoch"): self.proof.epochs}
            back_end.attach("birthmark/ConsumerGroups/exclusive/Partitions/0", credit=10, properties=epoch)
            self.proof.epochs += 1
            self.over.wait(0.2)

    def _messages(self) -> None:
        name = next(iter(self._keys))
        with self._back_end() as back_end:
            link = back_end.attach("/messages/devicebound", receives=False)
            while not self.sent.is_set():
                identifier = f"m{time.monotonic_ns()}"
                properties = MessageProperties(to=f"/devices/{name}/messages/devicebound", message_id=identifier)
                back_end.transfer(link, AmqpMessage(DataBody((b"x",)), properties, {"iothub-ack": "full"}))
                while not isinstance(back_end.next()[0], Disposition):
                    pass
                self.proof.accepted.add(identifier)
                self.over.wait(0.05)

    def _completes(self) -> None:
        """Receive messages as the device, and complete them."""
        name = next(iter(self._keys))
        path = f"/devices/{name}/messages/deviceBound"
        with contextlib.closing(self._https()) as line:
            while not self.over.is_set():
                line.request("GET", f"{path}?api-version=2021-04-12", headers=self._headers(name))
                answer = line.getresponse()
                answer.read()
                if answer.status != 200:
                    self.over.wait(0.05)
                    continue
                identifier = str(answer.headers["iothub-messageid"])
                count = int(answer.headers["iothub-deliverycount"])
                if identifier in self.proof.completed:
                    self.proof.wrong.append(f"{identifier} was delivered after it was completed")
                if count <= self.proof.deliveries.get(identifier, -1):
                    self.proof.wrong.append(f"{identifier} was delivered again with the count {count}")
                self.proof.deliveries[identifier] = count
                lock = answer.headers["ETag"].strip('"')
                line.request("DELETE", f"{path}/{lock}?api-version=2021-04-12", headers=self._headers(name))
                answer = line.getresponse()
                answer.read()
                if answer.status == 204:
                    self.proof.completed[identifier] = count

    def _listens(self) -> None:
        with self._back_end() as back_end:
            back_end.attach("/messages/serviceBound/feedback", credit=100_000)
            while not self.over.is_set():
                performative, payload = back_end.next()
                if isinstance(performative, Transfer):
                    body = read_message(payload).body
                    records: list[dict[str, Any]] = json.loads(body.payload) if isinstance(body, DataBody) else []
                    number = performative.delivery_id or 0
                    back_end.send(Disposition(RECEIVER, number, number, settled=True, state=ACCEPTED))
                    self.proof.feedback += [record["originalMessageId"] for record in records]


def keep_on(server: RunningServer, kills: int, dice: random.Random, kill: Kill) -> Proof:
    """Kill a server a number of times under its back ends, and return what they proved."""
    server.run("hub", "consumer-group", "create", "exclusive")
    devices = [server.cloud.azure_device(f"kill-{number}", at="hub", auth="key") for number in range(4)]
    back_ends = BackEnds(server, {device.name: device.symmetric_key for device in devices})
    proof = back_ends.proof
    threads = back_ends.threads()
    for thread in threads:
        thread.start()
    for _ in range(kills):
        time.sleep(dice.uniform(0.5, 3.0))
        kill(server, dice)
    back_ends.sent.set()
    time.sleep(4)  # what was on its way
    deadline = time.monotonic() + 90  # the lock of a message that was taken as its server died
    while time.monotonic() < deadline and not _is_whole(proof):
        time.sleep(0.2)
    back_ends.over.set()
    for thread in threads:
        thread.join(10)
    read = {body for seen in proof.seen.values() for body in seen.values()}
    proof.wrong += [f"telemetry {body} was acknowledged and not read" for body in sorted(proof.telemetry - read)[:5]]
    told = set(proof.completed) | set(proof.feedback)  # the answer to a completion may be lost, not its feedback
    left = sorted(proof.accepted - told)
    proof.wrong += [f"{identifier} was accepted and not completed" for identifier in left[:5]]
    untold = sorted(set(proof.completed) - set(proof.feedback))
    proof.wrong += [f"{identifier} was completed without feedback" for identifier in untold[:5]]
    return proof


def _is_whole(proof: Proof) -> bool:
    read = {body for seen in proof.seen.values() for body in seen.values()}
    told = set(proof.feedback)
    return proof.accepted <= told and set(proof.completed) <= told and proof.telemetry <= read
