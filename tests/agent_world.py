"""A device's surroundings without sockets: EST, DPS and a hub behind the links port, each can be told to fail."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from birthmark.agent.config import AgentConfig, parse_config
from birthmark.agent.files import Places
from birthmark.agent.service import Agent, open_agent
from birthmark.errors import UnavailableError
from birthmark.est import wire as est_wire
from birthmark.links.errors import LinkLostError, MqttRefusedError
from birthmark.links.identity import Identity, Trust
from birthmark.links.ports import HttpAnswer, Message
from birthmark.mqtt.packets import Connect
from birthmark.pki import profiles
from birthmark.pki.issue import issue, new_serial
from fakes import FakeClock, SeededEntropy
from pki_builders import Holder, a_ca

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


@dataclass
class World:
    """Everything a device talks to. `at_hub` is the thumbprint that DPS told the hub last."""

    directory: Path
    clock: FakeClock = field(default_factory=FakeClock)
    entropy: SeededEntropy = field(default_factory=SeededEntropy)
    root: Holder = field(default_factory=a_ca)
    at_hub: str | None = None
    failing: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    believes_certificates: bool = True
    connections: "list[FakeMqtt]" = field(default_factory=list)
    server_offset: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        self.issuer = a_ca("Test Issuing", parent=self.root, profile=profiles.ISSUING_CA)

    def config(self, text: str = CONFIG) -> AgentConfig:
        trust = self.directory / "trust.pem"
        trust.write_text(self.root.certificate.pem())
        return parse_config(self.directory / "config.toml", text.replace("TRUST", str(trust)))

    def agent(self, text: str = CONFIG) -> Agent:
        places = Places(self.directory / "root")
        places.prepare()
        return open_agent(
            self.config(text),
            places,
            make_links=lambda identity, trust: FakeLinks(self, identity, trust),
            environment={},
            clock=self.clock,
            entropy=self.entropy,
        )

    def check(self, what: str) -> None:
        if what in self.failing:
            raise UnavailableError

    def issued(self, body: bytes) -> bytes:
        request = est_wire.parse_csr(body)
        made = issue(
            profiles.DEVICE,
            request.subject,
            request.public_key,
            issuer=self.issuer.as_issuer,
            serial=new_serial(self.entropy),
            now=self.clock.now() + self.server_offset,
            lifetime=LIFETIME,
        )
        return est_wire.render_certs_only([made])


@dataclass
class FakeLinks:
    world: World
    identity: Identity | None
    trust: Trust

    def https(self) -> "FakeLinks":
        return self

    def mqtt(self) -> "FakeMqtt":
        return FakeMqtt(self.world, self.identity)

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> HttpAnswer:
        world = self.world
        if url.endswith("/cacerts"):
            certificates = [world.issuer.certificate, world.root.certificate]
            return HttpAnswer(200, {}, est_wire.render_certs_only(certificates))
        if "est.test" in url:
            world.check("est")
            world.asked.append("est with certificate" if self.identity else "est with password")
            if self.identity is not None and not world.believes_certificates:
                return HttpAnswer(401, {}, b"who are you")
            return HttpAnswer(200, {}, world.issued(body))
        world.check("dps")
        assert self.identity is not None
        world.asked.append("dps")
        world.at_hub = self.identity.chain[0].thumbprint.hex()
        state: dict[str, Any] = {"registrationId": "device-1", "assignedHub": "hub.test", "deviceId": "device-1"}
        return HttpAnswer(200, {}, json.dumps({"status": "assigned", "registrationState": state}).encode())


class FakeMqtt:
    def __init__(self, world: World, identity: Identity | None) -> None:
        self._world = world
        self._identity = identity
        self.over: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.sent: list[bytes] = []

    async def connect(self, host: str, port: int, connect: Connect) -> bool:
        self._world.check("hub")
        assert self._identity is not None
        if self._identity.chain[0].thumbprint.hex() != self._world.at_hub:
            raise MqttRefusedError(host=host, client_id=connect.client_id, return_code="5")
        self._world.connections.append(self)
        return False

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None: ...

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        self.sent.append(payload)

    async def next_message(self) -> Message:
        raise AssertionError

    async def lost(self) -> Exception:
        return await asyncio.shield(self.over)

    async def close(self) -> None:
        self.lose(LinkLostError(host="hub.test", reason="test"))

    def lose(self, why: Exception | None = None) -> None:
        if not self.over.done():
            self.over.set_result(why or LinkLostError(host="hub.test", reason="test"))
