"""A device's surroundings without sockets: EST, DPS and a hub behind the links port, each can be told to fail."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from birthmark.agent.agent_factory import open_agent
from birthmark.agent.certificate_slot import HeldIdentity
from birthmark.agent.config import AgentConfig, parse_config
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.state_directory import DEVICE_ID, EST_ID, AgentPaths, file_name, next_of
from birthmark.device_transports.errors import LinkLostError, MqttRefusedError, ServerUntrustedError
from birthmark.device_transports.identity_and_trust import Identity, ServerTrust
from birthmark.device_transports.openssl.server_time import StatedTime
from birthmark.device_transports.ports import HttpResponse, ReceivedMessage
from birthmark.errors import UnavailableError
from birthmark.est import wire as est_wire
from birthmark.keys.file_key import FileKey
from birthmark.mqtt.packets import Connect
from birthmark.pki import certificate_profiles
from birthmark.pki.certificates import Certificate
from birthmark.pki.issuance import issue, new_serial
from support.fakes import FakeClock, SeededEntropy
from support.pki.pki_builders import Holder, a_ca, a_device

LIFETIME = timedelta(days=1)
CONFIG = """\
[provisioning]
source = "dps"
global_endpoint = "https://dps.test:8443"
id_scope = "0ne00ABCDEF"
[provisioning.attestation]
method = "x509"
registration_id = "device-1"
identity_cert = { method = "est", auto_renew = { rotate_key = true, threshold = "80%", retry = "4%" } }
[cert_issuance.est]
trusted_certs = ["file://TRUST"]
auth = { username = "u", password = "p" }
urls = { default = "https://est.test/.well-known/est" }
"""
BOOTSTRAP = CONFIG.replace(
    'auth = { username = "u", password = "p" }',
    'auth = { bootstrap_identity_cert = "file://BORN.pem", bootstrap_identity_pk = "file://BORN.key" }',
)


@dataclass
class World:
    """Everything a device talks to. `at_hub` is the thumbprint that DPS told the hub last."""

    directory: Path
    clock: FakeClock = field(default_factory=FakeClock)
    entropy: SeededEntropy = field(default_factory=SeededEntropy)
    root: Holder = field(default_factory=a_ca)
    at_hub: str | None = None
    failing: set[str] = field(default_factory=set)
    untrusted: set[str] = field(default_factory=set)
    """Hosts in whose place another answers for a while, as a captive portal does."""
    asked: list[str] = field(default_factory=list)
    believes_certificates: bool = True
    takes_expired: bool = False
    connections: "list[FakeMqtt]" = field(default_factory=list)
    server_offset: timedelta = timedelta(0)
    shown: list[str] = field(default_factory=list)
    """Who asked the EST server: the id of the key, `born` of the bootstrap certificate."""
    disbelieved: set[str] = field(default_factory=set)
    failing_for: set[str] = field(default_factory=set)
    requests: list[bytes] = field(default_factory=list)
    losing_answers: int = 0
    boot: str = "this"
    answers: dict[str, str] = field(default_factory=dict)
    busy: HttpResponse | None = None
    tells_time: bool = True
    passwords: list[str] = field(default_factory=list)
    issues_cas: bool = True
    is_individual: bool = False
    assigned_hub: str = "hub.test"
    refuses_passwords: bool = False
    wants_both: bool = False
    taken_back: set[str] = field(default_factory=set)
    """Thumbprints of certificates that neither EST nor DPS takes any more."""
    registered: list[dict[str, Any]] = field(default_factory=list)
    hosts: list[tuple[str, str | None]] = field(default_factory=list)
    """Which hosts were connected to, and by which user name."""

    def __post_init__(self) -> None:
        self.maker = a_ca("Maker")
        self.born = a_device(self.maker, "device-1", lifetime=timedelta(days=3650))
        self.issuer = a_ca("Test Issuing", parent=self.root, profile=certificate_profiles.ISSUING_CA)
        self.edge_issuer = a_ca("Test Edge", parent=self.root, profile=certificate_profiles.EDGE_ISSUING_CA)

    def config(self, text: str = CONFIG) -> AgentConfig:
        trust = self.directory / "trust.pem"
        trust.write_text(self.root.certificate.pem())
        born, key = self.directory / "born.pem", self.directory / "born.key"
        if not all(path.exists() and path.stat().st_size for path in (born, key)):  # a power cut empties files
            born.write_text(self.born.certificate.pem())
            key.touch(mode=0o600)
            key.write_text(self.born.key_pem)
        text = text.replace("TRUST", str(trust)).replace("BORN", str(born.with_suffix("")))
        return parse_config(self.directory / "config.toml", text)

    def agent(self, text: str = CONFIG, *, is_looking: bool = False) -> Agent:
        places = AgentPaths(self.directory / "root")
        places.prepare()
        return open_agent(
            self.config(text),
            places,
            make_links=self.links,
            environment={},
            ask_time=self.tell_time,
            boot=self.boot,
            clock=self.clock,
            entropy=self.entropy,
            is_looking=is_looking,
        )

    async def tell_time(self, url: str, trust: ServerTrust) -> StatedTime | None:
        self.asked.append("time")
        now = self.clock.now() + self.server_offset
        return StatedTime(now, now - timedelta(days=10), now + timedelta(days=10)) if self.tells_time else None

    def links(self, identity: Identity | None, trust: ServerTrust) -> "FakeLinks":
        return FakeLinks(self, identity, trust)

    def who(self, identity: Identity | None) -> str:
        """Return the id of the key that an identity has."""
        if identity is None:
            return "nobody"
        if not isinstance(identity.key, FileKey):
            return identity.key.label
        ids = {file_name(one, ".key"): one for name in (DEVICE_ID, EST_ID) for one in (name, next_of(name))}
        return ids.get(identity.key.path.name, identity.key.path.stem)

    def believes(self, leaf: Certificate) -> bool:
        """Say whether the EST server takes this client certificate."""
        if leaf.thumbprint.hex() in self.taken_back:
            return False
        is_expired = self.clock.now() + self.server_offset > leaf.not_after
        return self.believes_certificates and (self.takes_expired or not is_expired)

    def check(self, what: str) -> None:
        if what in self.failing:
            raise UnavailableError

    def est_answer(self, identity: Identity | None, headers: Mapping[str, str], body: bytes) -> HttpResponse:
        """Return what the EST server says to who asks for a certificate."""
        who, has_password = self.who(identity), "Authorization" in headers
        if who in self.failing_for:
            raise UnavailableError
        self.shown.append(who)
        self.requests.append(body)
        if self.busy is not None:
            return self.busy
        both = " and password" if has_password else ""
        self.asked.append("est with password" if identity is None else f"est with certificate{both}")
        if not self._is_welcome(identity, who, has_password=has_password):
            return HttpResponse(401, {}, b"who are you")
        if self.losing_answers:
            self.losing_answers -= 1
            self.issued(body)
            raise UnavailableError
        return HttpResponse(200, self.answers, self.issued(body))

    def _is_welcome(self, identity: Identity | None, who: str, *, has_password: bool) -> bool:
        if who in self.disbelieved or (has_password and self.refuses_passwords):
            return False
        if identity is None:
            return True
        return self.believes(identity.chain[0]) and (has_password or not self.wants_both)

    def issued(self, body: bytes) -> bytes:
        request = est_wire.parse_csr(body)
        made = issue(
            certificate_profiles.EDGE_CA if request.wants_ca and self.issues_cas else certificate_profiles.DEVICE,
            request.subject,
            request.public_key,
            issuer=(self.edge_issuer if request.wants_ca else self.issuer).as_issuer,
            serial=new_serial(self.entropy),
            now=self.clock.now() + self.server_offset,
            lifetime=LIFETIME,
        )
        return est_wire.render_certs_only([made, self.edge_issuer.certificate] if request.wants_ca else [made])


async def certified(agent: Agent) -> HeldIdentity:
    """Return the device's certificate, issued where there is none."""
    held = await agent.ensure()
    assert isinstance(held, HeldIdentity)
    return held


@dataclass
class FakeLinks:
    world: World
    identity: Identity | None
    trust: ServerTrust

    def https(self) -> "FakeLinks":
        return self

    def mqtt(self) -> "FakeMqtt":
        return FakeMqtt(self.world, self.identity)

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        world, host = self.world, urlsplit(url).hostname
        if host in world.untrusted:
            world.shown.append(world.who(self.identity))
            raise ServerUntrustedError(host=host, port=443, reason="self-signed certificate")
        if url.endswith("/cacerts"):
            certificates = [world.issuer.certificate, world.root.certificate]
            return HttpResponse(200, {}, est_wire.render_certs_only(certificates))
        if "est.test" in url:
            world.check("est")
            return world.est_answer(self.identity, headers, body)
        world.check("dps")
        world.asked.append("dps")
        world.registered.append({"authorization": headers.get("Authorization"), **json.loads(body)})
        if self.identity is not None and self.identity.chain[0].thumbprint.hex() in world.taken_back:
            return HttpResponse(401, {}, json.dumps({"errorCode": 401002, "message": "Unauthorized"}).encode())
        if self.identity is not None:
            world.at_hub = self.identity.chain[0].thumbprint.hex()
        state: dict[str, Any] = {
            "registrationId": "device-1",
            "assignedHub": world.assigned_hub,
            "deviceId": "device-1",
        }
        if self.identity is not None:
            state["x509"] = {} if world.is_individual else {"enrollmentGroupId": "group"}
        return HttpResponse(200, {}, json.dumps({"status": "assigned", "registrationState": state}).encode())


class FakeMqtt:
    def __init__(self, world: World, identity: Identity | None) -> None:
        self._world = world
        self._identity = identity
        self.over: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.sent: list[bytes] = []

    async def connect(self, host: str, port: int, connect: Connect) -> bool:
        self._world.hosts.append((host, connect.username))
        self._world.check("hub")
        self._world.check(host)
        if self._identity is None:
            assert connect.password is not None
            self._world.passwords.append(connect.password.decode())
            self._world.connections.append(self)
            return False
        if self._identity.chain[0].thumbprint.hex() != self._world.at_hub:
            raise MqttRefusedError(host=host, client_id=connect.client_id, return_code="5")
        self._world.connections.append(self)
        return False

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None: ...

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        self.sent.append(payload)

    async def next_message(self) -> ReceivedMessage:
        raise AssertionError

    async def wait_for_loss(self) -> Exception:
        return await asyncio.shield(self.over)

    async def close(self) -> None:
        self.lose(LinkLostError(host="hub.test", reason="test"))

    def lose(self, why: Exception | None = None) -> None:
        if not self.over.done():
            self.over.set_result(why or LinkLostError(host="hub.test", reason="test"))
