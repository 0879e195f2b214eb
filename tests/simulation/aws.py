"""An AWS account on simulated workers: its things by MQTT, its operator by HTTP, and what both write down."""

import hashlib
import hmac
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from birthmark.auth.sigv4 import ALGORITHM, SignedRequest, canonical_request, signing_key
from birthmark.awsiot.model import AccessKey
from birthmark.mqtt.packets import LEVEL_5, ConnAck, Connect, Packet, PubAck, Publish, SubAck, Subscribe, WillMessage
from birthmark.mqtt.properties import PropertyId
from simulation.book import Book, Doing
from simulation.hub import Asked, outcome_of
from simulation.lines import Client, Line, peer_of
from simulation.rooms import House
from support.aws.device import ARN, document, statement
from support.kills.history import Finding, Operation, Outcome, Seen, of_grants, of_messages, of_steps, of_versions
from support.pki.pki_builders import Holder, a_device
from support.server.asgi import Answer, request

HOST = "localhost"
REGION = "us-east-1"
TOPIC, STATES = "t/1", "s/"
_KEEP_ALIVE_S = 1200
_HOUR_S = 3600
_REFUSED = 0x80
SHADOW = "$aws/things/lamp/shadow/"
ANSWERS = tuple(f"{SHADOW}{verb}/{how}" for verb in ("update", "get") for how in ("accepted", "rejected"))
DELTA = f"{SHADOW}update/delta"
MAY_CONNECT = document(statement("iot:Connect"))
MAY_PUBLISH = document(statement(["iot:Publish", "iot:RetainPublish"]))
MAY_HEAR = document(statement(["iot:Subscribe", "iot:Receive"]))


class Thing(Client):
    """A thing that speaks MQTT 5 and keeps its session: what was not acknowledged it sends again."""

    def __init__(self, account: "Account", name: str, holder: Holder) -> None:
        super().__init__(name, peer_of(holder.certificate))
        self.account = account
        self.holder = holder
        self.certificate_id = holder.certificate.thumbprint.hex()
        self.arn = f"{ARN}cert/{self.certificate_id}"
        self.filters: tuple[str, ...] = ()
        self.will: WillMessage | None = None
        self.listens_since: float | None = None
        self.unacknowledged: list[tuple[str, str]] = []
        self.sent: dict[str, Doing] = {}
        self._asked: dict[int, tuple[str, Doing]] = {}
        self._answered: dict[str, tuple[Outcome, Any, int | None]] = {}
        self._flying: dict[int, str] = {}
        self.sent_again: set[str] = set()  # what may have happened, or been refused, before its answer
        self._count, self._texts = itertools.count(1), itertools.count(1)

    # ---- what it does

    def connect(self, place: int, *, clean: bool = False) -> Line:
        """Begin to connect; nobody tells the worker of the connection before that it is given up."""
        self._flying = {}
        if self.lines:
            self.line.is_over = True
        expiry = ((PropertyId.SESSION_EXPIRY, _HOUR_S),)
        connect = Connect(self.name, clean, _KEEP_ALIVE_S, will=self.will, level=LEVEL_5, properties=expiry)
        return self.begin(self.account.house.worker(place), connect)

    def publish(self, count: int = 1, topic: str = TOPIC, kind: str = "publish") -> None:
        """Publish: what cannot leave now leaves when it is connected again."""
        for _ in range(count):
            text = f"{self.name}.{next(self._texts)}"
            self.unacknowledged.append((topic, text))
            self.sent[text] = self.account.book.begun(kind, self.name, text)
            if self.is_ready:
                self._publish(topic, text)

    def update(self, thing: str) -> Doing:
        """Update a shadow."""
        value = f"{self.name}.s{next(self._texts)}"
        doing = self.account.book.begun("shadow", thing, value)
        self._ask(f"$aws/things/{thing}/shadow/update", value, doing, {"state": {"desired": {"n": value}}})
        return doing

    def read(self, thing: str) -> Doing:
        """Read a shadow."""
        doing = self.account.book.begun("shadow read", thing, None)
        self._ask(f"$aws/things/{thing}/shadow/get", f"{self.name}.g{next(self._texts)}", doing, {})
        return doing

    def _ask(self, topic: str, token: str, doing: Doing, body: Mapping[str, Any]) -> None:
        packet_id = next(self._count)
        self._asked[packet_id] = token, doing
        payload = json.dumps({**body, "clientToken": token}).encode()
        self.line.say(Publish(topic, payload, 1, packet_id=packet_id))

    # ---- what it hears

    @property
    def is_ready(self) -> bool:
        """Say whether it is connected, and its filters are known."""
        return self.is_there and (not self.filters or self._is_resumed or bool(self.line.got(SubAck)))

    @property
    def _is_resumed(self) -> bool:
        """A session that is new has no filters."""
        return self.line.got(ConnAck)[0].session_present

    def hear(self, line: Line, packet: Packet) -> None:
        super().hear(line, packet)
        if line is not self.line:
            return
        if isinstance(packet, ConnAck) and not packet.code:
            if self.filters and not packet.session_present:
                line.say(Subscribe(next(self._count), tuple((one, 1) for one in self.filters)))
            else:
                self._send_again()
        elif isinstance(packet, SubAck):
            if self.listens_since is None:
                self.listens_since = self.account.book.now
            self._send_again()
        elif isinstance(packet, PubAck) and packet.packet_id in self._asked:
            token, doing = self._asked.pop(packet.packet_id)
            outcome, doing.value, version = self._answered.pop(token, (Outcome.UNKNOWN, doing.value, None))
            doing.end(outcome, version)
        elif isinstance(packet, PubAck):
            text = self._flying.pop(packet.packet_id, "")
            if any(text == known for _, known in self.unacknowledged):
                self.unacknowledged = [one for one in self.unacknowledged if one[1] != text]
                no = Outcome.FAILED if text not in self.sent_again else Outcome.UNKNOWN
                self.sent[text].end(no if packet.code >= _REFUSED else Outcome.OK)

    def came(self, line: Line, message: Publish) -> None:
        if not message.topic.startswith("$"):
            self.account.book.saw(f"got by {self.name}", self.name, message.payload.decode())
            return
        shown = json.loads(message.payload)
        rest = message.topic.partition("/shadow/")[2]
        token = shown.get("clientToken", "")
        if rest == "update/delta":
            self.account.book.saw(f"deltas of {self.name}", _thing_of(message.topic), shown["state"]["n"])
            self.account.book.saw("delta", _thing_of(message.topic), (shown["state"]["n"], shown["version"]))
        elif rest.endswith("/rejected"):
            self._answered[token] = outcome_of(shown["code"]), token, None
        elif rest in {"update/accepted", "get/accepted"}:
            self._answered[token] = Outcome.OK, shown["state"]["desired"]["n"], shown["version"]

    def _send_again(self) -> None:
        for topic, text in self.unacknowledged:
            self.sent_again.add(text)
            self._publish(topic, text)

    def _publish(self, topic: str, text: str) -> None:
        packet_id = next(self._count)
        self._flying[packet_id] = text
        is_kept = topic.startswith(STATES)
        self.line.say(Publish(topic, text.encode(), 1, retain=is_kept, packet_id=packet_id))


@dataclass
class Account:
    """See the module."""

    house: House
    book: Book
    key: AccessKey = field(repr=False)
    things: dict[str, Thing] = field(default_factory=dict)
    _count: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    # ---- things

    async def thing(self, name: str, *filters: str, kind: "type[Thing]" = Thing) -> Thing:
        """Put a thing on record that may do everything."""
        thing = self.things[name] = kind(self, name, a_device(common_name=name))
        thing.filters = filters
        self.house.on_killed.append(thing.killed)
        body = {"certificatePem": thing.holder.certificate.pem(), "status": "ACTIVE"}
        await self.well(self.ask(0, "POST", "/certificate/register-no-ca", body))
        for policy in ("connect", "publish", "hear"):
            await self.well(self.attach(0, thing, policy))
        return thing

    async def connected(self, thing: Thing, place: int, *, clean: bool = False) -> Line:
        """Connect a thing; its filters are known then."""
        line = thing.connect(place, clean=clean)
        await self.house.until(lambda: thing.is_ready or line.is_over)
        assert thing.is_ready
        return line

    # ---- the operator

    def attach(self, place: int, thing: Thing, policy: str) -> Asked:
        """Let a thing do what a policy says."""
        doing = self.book.begun(f"given {policy}", thing.name, policy)
        return self.ask(place, "PUT", f"/target-policies/{policy}", {"target": thing.arn}, doing=doing)

    def detach(self, place: int, thing: Thing, policy: str) -> Asked:
        """Let it do that no more."""
        doing = self.book.begun(f"taken {policy}", thing.name, policy)
        return self.ask(place, "POST", f"/target-policies/{policy}", {"target": thing.arn}, doing=doing)

    def set_status(self, place: int, thing: Thing, status: str) -> Asked:
        """Take a certificate out of use, or into it."""
        kind = "given certificate" if status == "ACTIVE" else "taken certificate"
        doing = self.book.begun(kind, thing.name, status)
        return self.ask(place, "PUT", f"/certificates/{thing.certificate_id}", query=f"newStatus={status}", doing=doing)

    def say(self, place: int, policy: str, text: str, doing: Doing) -> Asked:
        """Have a policy say something else; `doing` is what that means to whoever has it."""
        path = f"/policies/{policy}/version"
        return self.ask(place, "POST", path, {"policyDocument": text}, query="setAsDefault=true", doing=doing)

    def update(self, place: int, thing: str) -> Asked:
        """Update a shadow."""
        value = f"operator.s{next(self._count)}"
        doing = self.book.begun("shadow", thing, value)
        body = {"state": {"desired": {"n": value}}}
        return self.ask(place, "POST", f"/things/{thing}/shadow", body, service="iotdata", doing=doing)

    def read(self, place: int, thing: str) -> Asked:
        """Read a shadow."""
        doing = self.book.begun("shadow read", thing, None)
        return self.ask(place, "GET", f"/things/{thing}/shadow", service="iotdata", doing=doing)

    def ask(
        self,
        place: int,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: str = "",
        service: str = "iot",
        doing: Doing | None = None,
    ) -> Asked:
        """Begin a signed call."""
        worker = self.house.worker(place)
        asked = Asked(worker, doing or self.book.begun("operator", "", path))
        content = b"" if body is None else json.dumps(body).encode()
        headers = self._signed(SignedRequest(method, quote(path), query, (), content), service)

        async def ask() -> None:
            url = f"https://{HOST}{path}?{query}"
            answer = await request(worker.cloud, method, url, headers=headers, body=content)
            if worker.is_alive:
                asked.answer = answer
                end(asked.doing, answer)

        worker.process.spawn(ask())
        return asked

    def _signed(self, asked: SignedRequest, service: str) -> dict[str, str]:
        now = self.house.world.clock.now()
        headers, date = {"host": HOST, "x-amz-date": f"{now:%Y%m%dT%H%M%SZ}"}, f"{now:%Y%m%d}"
        text = canonical_request(replace(asked, headers=tuple(headers.items())), tuple(headers), frozenset())
        scope = f"{date}/{REGION}/{service}/aws4_request"
        told = f"{ALGORITHM}\n{headers['x-amz-date']}\n{scope}\n{hashlib.sha256(text.encode()).hexdigest()}"
        digest = hmac.digest(signing_key(self.key.secret, date, REGION, service), told.encode(), "sha256").hex()
        credential = f"Credential={self.key.id}/{scope}, SignedHeaders={';'.join(headers)}, Signature={digest}"
        return headers | {"authorization": f"{ALGORITHM} {credential}"}

    async def until_answered(self, asked: Asked) -> Answer | None:
        """Return the answer, None when its worker was killed meanwhile."""
        await self.house.until(lambda: asked.is_over, most_s=60.0)
        return asked.answer

    async def well(self, asked: Asked) -> None:
        """Return when that is done."""
        answer = await self.until_answered(asked)
        assert answer is not None
        assert answer.status == 200, answer.text

    async def collected(self) -> None:
        """Let everyone come back, send again what was not acknowledged, and take what waits."""
        for thing in self.things.values():
            await self.house.until(lambda thing=thing: self._is_back(thing))  # type: ignore[misc] # bound now
        await self.house.live_on(2.0)

    def _is_back(self, thing: Thing) -> bool:
        """Connect a thing that has been here and is not; say whether it is, or may not be, let in."""
        if not thing.lines or self._is_out_of_use(thing):
            return True
        if thing.line.is_over or thing.line.worker.place:
            thing.connect(0)
        return thing.is_ready and not thing.unacknowledged

    def _is_out_of_use(self, thing: Thing) -> bool:
        given, taken = (
            max((one.began for one in self.book.doings(kind) if one.device == thing.name), default=0.0)
            for kind in ("given certificate", "taken certificate")
        )
        return taken > given

    # ---- what is proved

    def findings(self) -> list[Finding]:
        """What no account that keeps its promises could have done."""
        shadows, reads = self.book.operations("shadow"), self.book.operations("shadow read")
        found = [*of_versions(shadows, [*reads, *self._told()]), *of_steps(shadows, reads)]
        published = self.book.operations("publish")
        for one in self.things.values():
            if one.listens_since is not None:
                found += self._of_listener(one, published, shadows)
        taken, given = self.book.operations("taken publish"), self.book.operations("given publish")
        ended, begun = self.book.operations("taken certificate"), self.book.operations("given certificate")
        used = self._used(published)
        return [*found, *of_grants(taken, given, used), *of_grants(ended, begun, used)]

    def _of_listener(self, one: Thing, published: Sequence[Operation], shadows: Sequence[Operation]) -> list[Finding]:
        """Check what reached one that listens: all that was acknowledged since, and nothing it had no right to."""
        since = one.listens_since or 0.0
        got = [Seen(_sender_of(seen.value), seen.value, seen.at) for seen in self.book.seen(f"got by {one.name}")]
        found: list[Finding] = []
        if TOPIC in one.filters:
            taken = [op for op in self.book.operations("taken hear") if op.device == one.name]
            if not taken:  # else it may have had no right to what is missing
                first = {op.value for op in published if op.began > since}
                heard = [seen for seen in got if seen.value in first]
                found += of_messages(self._in_turn(op for op in published if op.value in first), heard)
            reached = {seen.value for seen in got}
            used = [replace(op, device=one.name, outcome=Outcome.OK) for op in published if op.value in reached]
            found += of_grants(taken, self.book.operations("given hear"), used)
        if any(name.endswith("/delta") for name in one.filters):
            owed = [operation for operation in shadows if operation.began > since]
            values = {operation.value for operation in owed}
            deltas = [seen for seen in self.book.seen(f"deltas of {one.name}") if seen.value in values]
            found += of_messages(owed, deltas)
        return found

    def _in_turn(self, operations: Iterable[Operation]) -> list[Operation]:
        """Return what each publisher sent, one after the other: what one sends on a connection has an order.

        What was refused where nobody heard of it, and is sent again, comes behind what was taken there after it.
        """
        number: defaultdict[str, int] = defaultdict(int)
        found = []
        for one in operations:
            at = number[one.device] = number[one.device] + 1
            found.append(replace(one, began=at, ended=math.inf if self._may_have_been_refused(one) else at + 0.5))
        return found

    def _may_have_been_refused(self, one: Operation) -> bool:
        """Say whether something was sent again that may have had no right before."""
        taken, given = (
            [right for right in self.book.operations(f"{kind} publish") if right.device == one.device]
            for kind in ("taken", "given")
        )
        return one.value in self.things[one.device].sent_again and any(
            right.outcome is not Outcome.FAILED
            and right.began < one.ended
            and not any(right.precedes(again) and again.precedes(one) for again in given)
            for right in taken
        )

    def _told(self) -> list[Operation]:
        """Return what things heard of shadows: a version is what it is, whenever it is told."""
        told = ((seen.device, *seen.value) for seen in self.book.seen("delta"))
        return [Operation(device, value, -math.inf, math.inf, Outcome.OK, version) for device, value, version in told]

    def _used(self, published: Sequence[Operation]) -> list[Operation]:
        """Return what had an effect: it was acknowledged, or reached somebody."""
        reached = {seen.value for name in self.things for seen in self.book.seen(f"got by {name}")}
        return [replace(one, outcome=Outcome.OK) if one.value in reached else one for one in published]


async def an_account(house: House) -> Account:
    """Make the account's operator, and its policies."""
    key = await house.done(0, house.worker(0).rooms.aws.keys.add("test", actor="test"))
    account = Account(house, Book(house.world), key)
    for name, text in (("connect", MAY_CONNECT), ("publish", MAY_PUBLISH), ("hear", MAY_HEAR)):
        await account.well(account.ask(0, "POST", f"/policies/{name}", {"policyDocument": text}))
    return account


def end(doing: Doing, answer: Answer) -> None:
    """Write down how a call ended, with the version of a shadow that it tells."""
    outcome, version = outcome_of(answer.status), None
    if outcome is Outcome.OK and answer.body:
        shown = json.loads(answer.body)
        version = shown.get("version")
        if doing.value is None and "state" in shown:
            doing.value = shown["state"].get("desired", {}).get("n")
    doing.end(outcome, version)


def _sender_of(text: str) -> str:
    return text.rpartition(".")[0]


def _thing_of(topic: str) -> str:
    return topic.split("/")[2]
