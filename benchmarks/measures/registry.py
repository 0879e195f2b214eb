"""P41 to P44: a hub's registry: devices in bulk, modules, certificates that the hub issues, a page among a million."""

import asyncio
import base64
import json
import sqlite3
import ssl
import time
from collections.abc import Sequence
from dataclasses import replace
from http.client import HTTPSConnection
from itertools import count
from typing import Any

from askers import Asker, ask, message
from hub_queries import fill
from rig import Device, Rig, cpu_us_each, each
from swarm import Broker, connect, visit

from birthmark.auth.connection_strings import parse_connection_string
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.iothub.service import IotHub
from birthmark.store import open_database
from measures.measure import Measure, Sample
from measures.renewal import KeptRenewal
from support.azure.credentials import Key, Operator, Shown, files_of, kept, register
from support.azure.sas_tokens import make_sas
from support.pki.pki_builders import a_device

ONES, BULKS, IN_BULK, TIMES = 100, 10, 100, 25
MODULES, RENEWING = 200, 60
DEVICES, PAGES, PAGE = 1_000_000, 50, 100
_BUDGET_MS = 5.0
_ISSUE = "$iothub/credentials/POST/issueCertificate/?$rid="


class _Rest:
    """The service's REST interface of the hub, on one connection."""

    def __init__(self, rig: Rig) -> None:
        hub = rig.server.endpoints["iothub"]
        parts = parse_connection_string(hub["service_connection_string"])
        token = make_sas(parts.host, parts.key, int(time.time()) + 36_000, parts.policy)
        context = ssl.create_default_context(cafile=rig.server.endpoints["trust_bundle"])
        context.check_hostname = False
        self._connection = HTTPSConnection(rig.server.address, hub["https_port"], context=context)
        self._headers = {"Authorization": token, "Content-Type": "application/json", "Host": parts.host}

    def ask(self, method: str, path: str, body: Any) -> None:
        self._connection.request(method, f"{path}?api-version=2021-04-12", json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text

    def close(self) -> None:
        self._connection.close()


class Bulk(Measure):
    """A hundred devices made by one request, beside twenty-five made one by one."""

    name, title, peer = "P41", "100 devices in bulk", "25 made one by one"
    unit, gate, aim = "us", 1.0, 0.8

    def __init__(self, rig: Rig) -> None:
        self._rig, self._rest, self._runs = rig, _Rest(rig), count()

    def round(self) -> Sample:
        self._rest.close()  # that of the round before has been idle for too long
        run, before, pid = next(self._runs), self._devices(), self._rig.server.pid
        bulk = cpu_us_each(pid, lambda: self._in_bulk(run))
        one = cpu_us_each(pid, lambda: self._one_by_one(run))
        assert self._devices() - before == BULKS * IN_BULK + ONES, "not every device is on record"
        return Sample(bulk, TIMES * one)

    def _in_bulk(self, run: int) -> int:
        for number in range(BULKS):
            names = (f"bulk-{run}-{number}-{one}" for one in range(IN_BULK))
            self._rest.ask("POST", "/devices", [{"id": name, "importMode": "create", **_BY_KEY} for name in names])
        return BULKS

    def _one_by_one(self, run: int) -> int:
        for number in range(ONES):
            name = f"one-{run}-{number}"
            self._rest.ask("PUT", f"/devices/{name}", {"deviceId": name, **_BY_KEY})
        return ONES

    def _devices(self) -> int:
        with sqlite3.connect(f"file:{self._rig.server.data}/birthmark.db?mode=ro", uri=True) as database:
            return int(database.execute("SELECT count(*) FROM hub_devices").fetchone()[0])


_KEY = base64.b64encode(b"k" * 32).decode()
_BY_KEY = {"authentication": {"type": "sas", "symmetricKey": {"primaryKey": _KEY, "secondaryKey": _KEY}}}


class ModuleConnect(Measure):
    """A module that connects by its certificate, beside a device that does; each is new to the server."""

    name, title, peer = "P42", "a module's connect, X.509", "a device's"
    unit, gate, aim = "us", 1.1, 1.05

    def __init__(self, rig: Rig) -> None:
        self._rig, self._rest, self._runs = rig, _Rest(rig), count()

    def round(self) -> Sample:
        self._rest.close()
        run = next(self._runs)
        devices, fresh = (self._rig.devices(MODULES, f"{what}-{run}") for what in ("beside", "module"))
        self._rig.enroll_at_hub([*devices, *fresh])
        modules = [self._module_of(device) for device in fresh]
        server = self._rig.server
        hub = Broker(server.address, 8883, server.endpoints["iothub"]["host"])
        return Sample(
            cpu_us_each(server.pid, lambda: each(lambda one: visit(hub, one), modules)),
            cpu_us_each(server.pid, lambda: each(lambda one: visit(hub, one), devices)),
        )

    def _module_of(self, device: Device) -> Device:
        prints = dict.fromkeys(("primaryThumbprint", "secondaryThumbprint"), device.thumbprint)
        proof = {"type": "selfSigned", "x509Thumbprint": prints}
        self._rest.ask("PUT", f"/devices/{device.name}/modules/m", {"moduleId": "m", "authentication": proof})
        return replace(device, name=f"{device.name}/m")


class Reissue(Measure):
    """A certificate that the hub issues to a connected device, beside one that EST renews on a kept connection."""

    name, title, peer = "P43", "a certificate by the hub, durable, on kept connections", "EST simplereenroll"
    unit, gate, aim = "us", 1.5, 1.2

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._est = KeptRenewal(rig)
        server = rig.server
        self._hub = Broker(server.address, 8883, server.endpoints["iothub"]["host"])
        operator = Operator(server)
        self._devices: list[tuple[str, Shown]] = []
        for number in range(RENEWING):
            name, key = f"reissue-{number}", Key()
            holder = a_device(rig.ca, name, now=rig.now)
            operator.enroll(
                name,
                holder,
                namespaceName="ours",
                certificateAuthorityName="devices",
                certificatePolicyName="device",
            )
            told = register(server, files_of(rig.directory, holder, name), name, key.csr(name)).body
            chain = told["registrationState"]["issuedCertificateChain"]
            self._devices.append((name, kept(rig.directory, chain, key, name)))

    def round(self) -> Sample:
        keys = [Key() for _ in self._devices]
        bodies = [
            json.dumps({"id": name, "csr": key.csr(name)}).encode()
            for (name, _), key in zip(self._devices, keys, strict=True)
        ]
        askers = [self._asker(name, shown) for name, shown in self._devices]
        ours = cpu_us_each(
            self._rig.server.pid,
            lambda: ask(askers, 1, lambda number, _: message(f"{_ISSUE}{number}", bodies[number], 0)),
        )
        self._devices = [
            (name, kept(self._rig.directory, _chain_of(asker), key, name))
            for (name, _), key, asker in zip(self._devices, keys, askers, strict=True)
        ]
        for asker in askers:
            asker.sock.close()
        return Sample(ours, self._est.round().ours)

    def _asker(self, name: str, shown: Shown) -> Asker:
        pem = self._rig.directory / "reissue.pem"
        pem.write_bytes(shown.certificate.read_bytes() + shown.key.read_bytes())
        device = Device(name, self._rig.client_context(pem), shown.thumbprint)
        return Asker(connect(self._hub, device), [("$iothub/credentials/res/#", 0)], b"/res/200/")


def _chain_of(asker: Asker) -> Sequence[str]:
    certificates: list[str] = json.loads(asker.last[asker.last.index(b"{") :])["certificates"]
    return certificates


class RegistryPage(Measure):
    """A page of the registry of 1,000,000 devices, anywhere in it, in the server's own process."""

    name, title, peer = "P44", "page of 100 of 1,000,000 devices of the registry", "a budget of 5 ms"
    unit, gate, aim = "ms", 1.0, 0.5

    def __init__(self, rig: Rig) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self._begin(f"sqlite:///{rig.directory / self.name}.db"))

    async def _begin(self, url: str) -> None:
        database = await open_database(url, SystemClock())
        self._iothub = IotHub.of(database, SystemClock(), SystemEntropy())
        self._hub = await self._iothub.hubs.create("main", "hub.example", actor="benchmark")
        await fill(database, 0, DEVICES, has_twins=False)

    def round(self) -> Sample:
        return Sample(self._runner.run(self._pages()), _BUDGET_MS)

    async def _pages(self) -> float:
        began = time.perf_counter()
        for number in range(PAGES):
            after = f"d-{number * (DEVICES // PAGES):07}"
            found = await self._iothub.registry.devices(self._hub, after=after, limit=PAGE)
            assert len(found) == PAGE
        return (time.perf_counter() - began) * 1000 / PAGES
