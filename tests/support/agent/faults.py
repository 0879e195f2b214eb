"""A fault at every step of an agent's work: killed, power cut, disk full or read-only, token gone; then the next run.

Every change of a file below the agent's root, every change in its token and both ends of every exchange with a server
are counted. For each number a child process does the work on a copy of the prepared device and meets the fault there; a
second child is the normal run afterwards, the loop of `birthmark agent run` in virtual time. The servers are those of
`support.agent.world`, whose memory outlives the children, as a server's does.

cd tests; python -m support.agent.faults DIRECTORY [--store file|token] [--by est|azure] [--work first|renew]
    [--fault kill|power|full|read-only|pulled] [--every 1] [--start 1]
                                  prints a line of JSON for each number, and ends with 1 if one device was lost
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pkcs11.constants import Attribute, ObjectClass

from birthmark.agent.connection_loop import Loop
from birthmark.agent.control_socket import ControlCommand, ControlServer
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.state_directory import AgentPaths
from birthmark.device_transports.identity_and_trust import Identity, ServerTrust, TokenIdentity
from birthmark.device_transports.openssl.tls_context import client_context
from birthmark.device_transports.ports import HttpResponse, ReceivedMessage
from birthmark.errors import BirthmarkError
from birthmark.est import wire as est_wire
from birthmark.iothub import wire as hub_wire
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_library_lifecycle import find_softhsm, stop_library
from birthmark.keys.pkcs11_token import Pkcs11Token
from birthmark.pki import certificate_profiles
from birthmark.pki.csr import parse_csr
from birthmark.pki.issuance import issue, new_serial
from birthmark.secure_elements.softhsm_element import initialize_token, select
from support.agent.world import BOOTSTRAP, LIFETIME, FakeLinks, FakeMqtt, World, certified
from support.fakes import FakeClock, SeededEntropy
from support.kills.faults import Fault, in_child
from support.kills.power_cuts import Disk, a_disk

PIN = "123456"
STORES, WORKS = ("file", "token"), ("first", "renew")
FAULTS = ("kill", "power", "full", "read-only", "pulled")
BY = ("est", "azure")
BY_AZURE = BOOTSTRAP.partition("[cert_issuance.est]")[0].replace(
    'method = "est",',
    'method = "azure", bootstrap_identity_cert = "file://BORN.pem", bootstrap_identity_pk = "file://BORN.key",',
)
_PATIENCE = 200  # turns of the loop's wait before a device counts as lost


@dataclass
class Servers(World):
    """A world whose memory is a file, and whose EST server gives a name to one holder of a bootstrap certificate."""

    fault: Fault = field(default_factory=Fault)
    store: str = "file"
    by: str = "est"

    @property
    def memory(self) -> Path:
        return self.directory / "servers.json"

    def recall(self) -> dict[str, Any]:
        return dict(json.loads(self.memory.read_text())) if self.memory.exists() else {"at_hub": None, "keys": []}

    def remember(self, **known: Any) -> None:
        self.memory.write_text(json.dumps({**self.recall(), **known}))

    @property
    def text(self) -> str:
        text = BOOTSTRAP if self.by == "est" else BY_AZURE
        if self.store == "token":
            slot = f"pkcs11:token=device?pin-value={PIN}"
            keys = f'[aziot_keys]\npkcs11_lib_path = "{find_softhsm()}"\npkcs11_base_slot = "{slot}"\n'
            text = keys + text
        return text

    def device(self) -> Agent:
        return self.agent(self.text)

    def links(self, identity: Identity | None, trust: ServerTrust) -> "CountedLinks":
        return CountedLinks(self, identity, trust)

    def certified(self, csr: bytes) -> list[str]:
        """Issue for a request as Azure does: the same key is given the same certificate while it counts."""
        known, asked = self.recall(), parse_csr(csr)
        key = asked.spki_der.hex()[-40:]
        if key in known.get("issued", {}):
            return list(known["issued"][key])
        serial, now = new_serial(self.entropy), self.clock.now()
        made = issue(
            certificate_profiles.DEVICE,
            asked.subject,
            asked.public_key,
            issuer=self.issuer.as_issuer,
            serial=serial,
            now=now,
            lifetime=LIFETIME,
        )
        chain = [base64.b64encode(one.der).decode() for one in (made, self.issuer.certificate, self.root.certificate)]
        thumbprint = made.thumbprint.hex()
        self.remember(
            fresh=thumbprint,
            at_hub=known["at_hub"] or thumbprint,
            issued={**known.get("issued", {}), key: chain},
            certificates=known.get("certificates", 0) + 1,
        )
        return chain

    def let_in(self, thumbprint: str) -> None:
        """A device connects: by the new certificate, and then the old one counts no more, or by the old one."""
        if thumbprint == self.recall().get("fresh"):
            self.remember(at_hub=thumbprint, fresh=None)


class CountedLinks(FakeLinks):
    world: Servers

    def mqtt(self) -> FakeMqtt:
        really_prepared(self.identity, self.trust)
        return CountedMqtt(self.world, self.identity)

    async def request(self, method: str, url: str, *, headers: Any, body: bytes = b"") -> Any:
        really_prepared(self.identity, self.trust)
        self.world.fault.step(f"before {method} {url.rpartition('/')[2]}")
        known = self.world.recall()
        self.world.at_hub = known["at_hub"]
        if self.world.by == "azure" and "dps.test" in url:
            assert self.identity is not None
            assert self.identity.chain[0] == self.world.born.certificate
            asked = json.loads(body or b"{}")
            state = {"registrationId": "device-1", "assignedHub": "hub.test", "deviceId": "device-1", "x509": {}}
            if "csr" in asked:
                state["issuedCertificateChain"] = self.world.certified(base64.b64decode(asked["csr"]))
            self.world.fault.step(f"after {method} {url.rpartition('/')[2]}")
            return HttpResponse(200, {}, json.dumps({"status": "assigned", "registrationState": state}).encode())
        if url.endswith("simpleenroll"):
            key = est_wire.parse_csr(body).spki_der.hex()[-40:]
            is_introduced = self.identity is not None and self.identity.chain[0] == self.world.born.certificate
            if is_introduced and known["keys"] and key not in known["keys"]:
                return HttpResponse(403, {}, b"another key holds this name")
            known["keys"].append(key)
        answer = await super().request(method, url, headers=headers, body=body)
        self.world.remember(at_hub=self.world.at_hub, keys=known["keys"])
        self.world.fault.step(f"after {method} {url.rpartition('/')[2]}")
        return answer


def really_prepared(identity: Identity | None, trust: ServerTrust) -> None:
    """Make the TLS context that the real links would connect with: that too may need a disk or a token."""
    if isinstance(identity, TokenIdentity):
        from birthmark.device_transports.crt import tls

        tls.client_context(identity, trust)
    else:
        client_context(identity, trust)


class CountedMqtt(FakeMqtt):
    async def connect(self, host: str, port: int, connect: Any) -> bool:
        world = self._world
        assert isinstance(world, Servers)
        world.fault.step("before CONNECT")
        if world.by == "azure" and self._identity is not None:
            world.let_in(self._identity.chain[0].thumbprint.hex())
        world.at_hub = world.recall()["at_hub"]
        found = await super().connect(host, port, connect)
        world.fault.step("after CONNECT")
        self.answers: list[ReceivedMessage] = []
        return found

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        await super().publish(topic, payload, qos)
        if not isinstance(hub_wire.parse_topic(topic, "device-1"), hub_wire.CredentialAsk):
            return
        world, rid = self._world, topic.partition("$rid=")[2]
        assert isinstance(world, Servers)
        world.fault.step("before issueCertificate")
        chain = world.certified(hub_wire.parse_credential_request(payload).csr.der)
        world.fault.step("after issueCertificate")
        bodies = ((202, b"{}"), (200, hub_wire.issued_json("c", chain)))
        self.answers += [
            ReceivedMessage(hub_wire.credential_response_topic(status, rid), body) for status, body in bodies
        ]

    async def next_message(self) -> ReceivedMessage:
        return self.answers.pop(0)


class VirtualOrders(ControlServer):
    """Waiting moves the clock; who waits too often is lost."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock, self._left = clock, _PATIENCE

    async def wait(self, seconds: float) -> None:
        self._left -= 1
        if not self._left:
            self.give(ControlCommand.STOP)
        self._clock.move(timedelta(seconds=seconds))
        await asyncio.sleep(0)


async def work(world: Servers, what: str) -> str:
    """Do what is interrupted. Return "done", or the code of a refusal; any other error is a bug."""
    try:
        agent = world.device()
        agent.keeper.recover()
        held = await certified(agent)
        await agent.connect(held)
        if what == "renew":
            if world.by == "est":
                await agent.keeper.renew(agent.managed["est-id"])
            await agent.renew(held)
    except BirthmarkError as error:
        return error.code
    return "done"


async def normal_run(world: Servers) -> dict[str, Any]:
    """Run the loop until the device is connected and nothing is half done; return what it holds then."""
    agent = world.device()
    agent.keeper.recover()
    orders = VirtualOrders(world.clock)
    told: list[str] = []

    def tell(event: str, facts: dict[str, object]) -> None:
        told.append(event if "error" not in facts else f"{event}: {facts['error']}")
        is_up = any(one in ("connected", "renewed") for one in told)
        if is_up and not any(agent.keeper.is_unfinished(one) for one in agent.managed):
            orders.give(ControlCommand.STOP)

    await Loop(agent, orders, tell).run()
    keys = agent.identities.keys
    with contextlib.closing(keys):
        held = agent.held()
        at_hub = world.recall()["at_hub"]
        is_up = held is not None and any(one in ("connected", "renewed") for one in told)
        return {
            "connected": is_up and held is not None and at_hub == held.leaf.thumbprint.hex(),
            "keys": sorted(key_ids(agent.places)),
            "in_token": sorted(labels_in(world)) if world.store == "token" else [],
            "strays": sorted(strays(agent.places)),
            "told": told,
        }


def key_ids(places: AgentPaths) -> Iterator[str]:
    """Name the private keys there are; of a token's, the file that names it."""
    for path in places.keys.iterdir():
        yield path.name.partition("-")[0]


def strays(places: AgentPaths) -> Iterator[str]:
    for directory in (places.keys, places.certs, places.state.parent):
        yield from (path.name for path in directory.iterdir() if path.name.startswith(".") or "temp" in path.name)


def labels_in(world: Servers) -> Iterator[str]:
    with Pkcs11Token.open(find_softhsm(), label="device", pin=Pin(PIN)) as token, token.session() as session:
        for item in session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}):
            yield str(item[Attribute.LABEL]).rpartition("-")[0]


@dataclass
class Bench:
    """One matrix: a prepared device, and the fault at each number."""

    directory: Path
    store: str
    what: str
    kind: str
    by: str = "est"
    disk: Disk | None = None
    """What all of it is on, where the power is cut."""

    def prepare(self) -> Servers:
        base = self.directory / "prepared"
        base.mkdir(parents=True)
        world = Servers(base, store=self.store, by=self.by)
        if self.store == "token":
            in_child(lambda: str(initialize_token(base / "chip", "device", PIN)))
        if self.what == "renew":
            status, said = self.run(world, base, lambda: asyncio.run(work(world, "first")))
            assert (status, said) == (0, "done"), said
        return world

    def run(self, world: Servers, at: Path, do: Callable[[], Any], fault: Fault | None = None) -> tuple[int, Any]:
        """Do it with the device at `at`, in a child."""

        def child() -> Any:
            world.directory = at
            world.entropy = SeededEntropy(os.getpid())
            if self.store == "token":
                select(at / "chip")
            if fault is not None:
                world.fault = fault
                fault.root, fault.tokens = at / "root", at / "chip/tokens"
                fault.install()
            if self.what == "renew" and at.name != "prepared":
                world.clock.move(0.85 * LIFETIME)
            return do()

        return in_child(child)

    def copy(self, world: Servers, number: int) -> Path:
        at = self.directory / f"at-{number}"
        shutil.copytree(world.directory, at)
        for path in (at / "chip").glob("softhsm2.conf"):
            path.write_text(path.read_text().replace(str(world.directory), str(at)))
        return at

    def steps(self, world: Servers) -> int:
        """Count the boundaries of the whole work."""
        counting = Fault()

        def whole() -> tuple[str, int]:
            return asyncio.run(work(world, self.what)), counting.count

        status, said = self.run(world, self.copy(world, 0), whole, counting)
        assert (status, said[0]) == (0, "done"), said
        return int(said[1])

    def each(self, every: int, start: int) -> Iterator[dict[str, Any]]:
        world = self.prepare()
        for number in range(start, self.steps(world) + 1, every):
            at = self.copy(world, number)
            fault = Fault(self.kind, number)
            if self.disk is not None:
                self.disk.sync()
            status, said = self.run(world, at, lambda: asyncio.run(work(world, self.what)), fault)
            if self.disk is not None:
                self.cut_power(self.disk, at, number)
            row: dict[str, Any] = {"at": number, "ended": said, "status": status}
            if self.kind in ("full", "read-only") and self.what == "renew":
                still = Fault(self.kind, 1)
                _status, row["meanwhile"] = self.run(world, at, lambda: asyncio.run(meanwhile(world)), still)
            if (away := at / "chip/away").exists():
                away.rename(at / "chip/tokens")
            _status, after = self.run(world, at, lambda: asyncio.run(normal_run(world)))
            row["after"] = after
            row["is_fine"] = self.is_fine(row)
            if row["is_fine"]:
                shutil.rmtree(at)
            yield row

    def cut_power(self, disk: Disk, at: Path, seed: int) -> None:
        """The servers' memory is elsewhere, and stays."""
        path = at / "servers.json"
        memory = path.read_bytes() if path.exists() else None
        disk.cut(None, random.Random(seed), lambda: None)
        if memory is not None:
            path.write_bytes(memory)

    def is_fine(self, row: dict[str, Any]) -> bool:
        """Say whether nothing crashed, the device is connected, and each certificate has exactly one key."""
        wanted = ["deviceid", "estid"] if self.by == "est" else ["deviceid"]
        after = row["after"]
        has_ended = row["status"] in (0, -signal.SIGKILL) and row.get("meanwhile", "connected") == "connected"
        if not has_ended or not isinstance(after, dict) or not after["connected"] or after["strays"]:
            return False
        if max(after["told"].count(event) for event in ("renewed", "certificate renewed")) > 1:
            return False  # what was finished is not done again
        labels = ["device-id", "est-id"][: len(wanted)] if self.store == "token" else []
        return bool(after["keys"] == wanted and after["in_token"] == labels)


async def meanwhile(world: Servers) -> str:
    """Connect while the disk is still in trouble."""
    try:
        agent = world.device()
        agent.keeper.recover()
        held = await certified(agent)
        try:
            await agent.connect_or_reissue(held)
        except BirthmarkError:  # as the loop does: ask DPS again
            agent.update(hub=None)
            await agent.connect(held)
    except BirthmarkError as error:
        return error.code
    return "connected"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--store", choices=STORES, action="append")
    parser.add_argument("--by", choices=BY, default="est")
    parser.add_argument("--work", choices=WORKS, action="append")
    parser.add_argument("--fault", choices=FAULTS, action="append")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--start", type=int, default=1)
    given = parser.parse_args()
    lost = 0
    for store in given.store or STORES:
        for what in given.work or WORKS:
            for kind in given.fault or FAULTS:
                if (kind, store) in (("pulled", "file"), ("power", "token")):  # SoftHSM syncs no file
                    continue
                count = 0
                bench = Bench(given.directory / f"{given.by}-{store}-{what}-{kind}", store, what, kind, given.by)
                about = {"store": store, "work": what, "fault": kind}
                with a_disk(bench.directory) if kind == "power" else contextlib.nullcontext() as bench.disk:
                    for row in bench.each(given.every, given.start):
                        count += 1
                        if not row["is_fine"]:
                            lost += 1
                            sys.stdout.write(json.dumps({**about, **row}) + "\n")
                sys.stdout.write(json.dumps({**about, "steps": count, "lost": lost}) + "\n")
                sys.stdout.flush()
    return 1 if lost else 0


if __name__ == "__main__":
    stop_library()
    sys.exit(main())
