"""Configurations, a job and file uploads of a fleet while the server is killed: each device ends in one right state.

Two configurations target overlapping devices, a third one is deleted on the way, tags change, and a deployment reaches
the modules of gateways. Whoever asks and is cut off asks again. Afterwards every twin has the values of the highest
priority, no value of the deleted one, and each gateway the modules of its deployment. The job has changed each twin
once. Devices upload files, and devices are imported and exported, until the kills are over: every file that is read at
any time is complete, and each import happens once.
"""

import base64
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from support.kills.fleet_files import (
    FILE_BYTES,
    KEY,
    FileReader,
    RegistryTransfers,
    UntilOver,
    Uploads,
    version_of,
)
from support.kills.kills import Kill, kill_server
from support.kills.patient_client import PATIENCE_S, PatientClient
from support.server.servers import RunningServer

Json = dict[str, Any]
_GROUPS, _GATEWAYS = 4, 5
_WANTED: Mapping[int, Json] = {0: {"x": 1, "y": 1}, 1: {"x": 2, "y": 1}, 2: {"x": 2, "y": 1}, 3: {"x": 2}}
"""Desired properties by group: the first configuration targets groups 0 to 2, the second one 1 to 3."""
_UPLOADS, _UPLOADERS = 0.2, 3
"""Share of the devices that upload files, and how many do so at once."""
_MODULES = {"$edgeAgent", "$edgeHub", "camera"}


class Fleet(PatientClient):
    """Devices of a hub and its configurations."""

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask the hub."""
        return self.hub(self.first, method, path, body)

    def create(self, count: int) -> None:
        """Create devices in groups, and gateways."""
        key = base64.b64encode(KEY).decode()
        proof = {"type": "sas", "symmetricKey": {"primaryKey": key, "secondaryKey": key}}
        devices = [{"id": f"d-{number:04}", "tags": {"n": number % _GROUPS}} for number in range(count)]
        gateways = [{"id": f"g-{number}", "capabilities": {"iotEdge": True}} for number in range(_GATEWAYS)]
        every: list[Json] = [*devices, *gateways]
        for first in range(0, len(every), 100):
            items = [{"importMode": "create", "authentication": proof, **one} for one in every[first:][:100]]
            status, told = self.ask("POST", "/devices", items)
            assert status == HTTPStatus.OK, told

    def configure(self, name: str, condition: str, priority: int, **content: Any) -> None:
        """Create a configuration; one whose answer was lost is there already."""
        body = {"id": name, "targetCondition": condition, "priority": priority, "content": content}
        status, told = self.ask("PUT", f"/configurations/{name}", body)
        assert status in {HTTPStatus.OK, HTTPStatus.CONFLICT}, told

    def delete(self, name: str) -> None:
        """Delete a configuration; one whose answer was lost is deleted already."""
        status, told = self.ask("DELETE", f"/configurations/{name}")
        assert status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND}, told

    def tag(self, name: str, group: int) -> None:
        """Move a device to a group."""
        status, told = self.ask("PATCH", f"/twins/{name}", {"tags": {"n": group}})
        assert status == HTTPStatus.OK, told

    def schedule(self, name: str) -> None:
        """Create a job that tags every device; one whose answer was lost is there already."""
        body: Json = {"jobId": name, "type": "scheduleUpdateTwin", "updateTwin": {"etag": "*", "tags": {"job": 1}}}
        body |= {"queryCondition": "tags.n < 4", "maxExecutionTimeInSeconds": 3600}
        status, told = self.ask("PUT", f"/jobs/v2/{name}", body)
        assert status in {HTTPStatus.OK, HTTPStatus.CONFLICT}, told


def device_content(**values: Any) -> Json:
    return {f"properties.desired.{name}": value for name, value in values.items()}


def keep_on(
    server: RunningServer, each: int, dice: random.Random, *, kill: Kill = kill_server, kills: int = 5, at_once: int = 4
) -> Json:
    """Configure `each` devices while the server is killed; return what was wrong, with figures."""
    world, began = Fleet(server), time.monotonic()
    world.create(each)
    groups = {f"d-{number:04}": number % _GROUPS for number in range(each)}
    moved = {name: dice.randrange(_GROUPS) for name in dice.sample(sorted(groups), each // 4)}
    uploading = dice.sample(sorted(groups), max(1, int(each * _UPLOADS)))
    uploads = [Uploads(world, uploading[first::_UPLOADERS]) for first in range(_UPLOADERS)]
    transfers, reader = RegistryTransfers(server, world), FileReader(server, uploading, each)
    modules = {"$edgeAgent": {"properties.desired": {"modules": {"camera": {}}}}, "camera": device_content(rate=5)}
    always: list[UntilOver] = [*uploads, transfers, reader]
    is_over, met = threading.Event(), Counter[str]()
    with ThreadPoolExecutor(at_once + len(always)) as pool:
        world.configure("gone", "*", 9, deviceContent=device_content(x=9, z=9))
        running = [
            *(pool.submit(one.keep_on, is_over) for one in always),
            pool.submit(world.configure, "low", "tags.n < 3", 1, deviceContent=device_content(x=1, y=1)),
            pool.submit(world.configure, "high", "tags.n > 0", 2, deviceContent=device_content(x=2)),
            pool.submit(world.configure, "cameras", "*", 1, modulesContent=modules),
            pool.submit(world.delete, "gone"),
            pool.submit(world.schedule, "tag-all"),
            *(pool.submit(world.tag, name, group) for name, group in moved.items()),
        ]
        for _ in range(kills):
            time.sleep(dice.uniform(0.2, 1.5))
            met.update([*(["upload"] if any(one.sending for one in uploads) else []), transfers.running or "no job"])
            kill(server, dice)
        is_over.set()
        problems = [repr(one.exception()) for one in running if one.exception() is not None]
    faults = list(_faults(world, groups | moved))
    end = time.monotonic() + PATIENCE_S
    while faults and time.monotonic() < end:
        time.sleep(1)
        faults = list(_faults(world, groups | moved))
    faults += _job_faults(world, each)
    faults += _file_faults(server, reader, {name: version for one in uploads for name, version in one.stored.items()})
    faults += _import_faults(world, transfers.imported)
    return {
        "each": each,
        "files": len(uploading),
        "kills": kills,
        "kills_met": dict(met),
        "uploads_cut": sum(one.cuts for one in uploads),
        "reader_saw": dict(reader.seen),
        "imported": transfers.imported,
        "asked": world.asked,
        "seconds": round(time.monotonic() - began, 1),
        "faults": problems + [fault for one in always for fault in one.faults] + faults,
    }


def _faults(world: Fleet, groups: Mapping[str, int]) -> Iterator[str]:
    """Yield what is not as it should be."""
    for name, group in groups.items():
        _, twin = world.ask("GET", f"/twins/{name}")
        desired = {key: value for key, value in twin["properties"]["desired"].items() if key[0] != "$"}
        states = {key: one["status"] for key, one in twin.get("configurations", {}).items()}
        wanted = {"low": group < _GROUPS - 1, "high": group > 0}
        if twin["tags"].get("job") != 1:
            yield f"{name}: the job did not reach it"
        if desired != _WANTED[group] or states != {key: "Applied" for key, is_so in wanted.items() if is_so}:
            yield f"{name} of group {group}: {desired} {states}"
    for number in range(_GATEWAYS):
        _, modules = world.ask("GET", f"/devices/g-{number}/modules")
        _, agent = world.ask("GET", f"/twins/g-{number}/modules/$edgeAgent")
        if {one["moduleId"] for one in modules} != _MODULES:
            yield f"g-{number}: {[one['moduleId'] for one in modules]}"
        if agent.get("configurations") != {"cameras": {"status": "Applied"}}:
            yield f"g-{number}: {agent.get('configurations')}"


def _job_faults(world: Fleet, count: int) -> Iterator[str]:
    """Yield what is wrong with the job: each device has exactly one row, and is done."""
    _, job = world.ask("GET", "/jobs/v2/tag-all")
    found = job["deviceJobStatistics"]
    if (job["status"], found["deviceCount"], found["succeededCount"]) != ("completed", count, count):
        yield f"the job is {job['status']}: {found}"


def _file_faults(server: RunningServer, reader: FileReader, stored: Mapping[str, int]) -> Iterator[str]:
    """Yield what is wrong with the files: each is the version that was stored last, and none is more."""
    listed = server.run("hub", "file", "ls", "--json").stdout.splitlines()
    sizes = {row["name"]: row["size"] for row in map(json.loads, listed)}
    if sizes != {f"{name}/log": FILE_BYTES for name in stored}:
        yield f"{len(sizes)} files of {len(stored)}: {set(sizes.values())}"
    for name, version in stored.items():
        content = reader.read(name)
        if content is None or version_of(name, content) != version:
            yield f"the file of {name} is not its version {version}"


def _import_faults(world: Fleet, count: int) -> Iterator[str]:
    """Yield the devices that were not imported."""
    for number in range(count):
        status, _ = world.ask("GET", f"/devices/i-{number:06}")
        if status != HTTPStatus.OK:
            yield f"i-{number:06} was not imported: {status}"
