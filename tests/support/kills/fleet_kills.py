"""Configurations that reach a fleet while the server is killed: each twin ends in exactly one right state.

Two configurations target overlapping devices, a third one is deleted on the way, tags change, and a deployment reaches
the modules of gateways. Whoever asks and is cut off asks again. Afterwards every twin has the values of the highest
priority, no value of the deleted one, and each gateway the modules of its deployment.
"""

import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from support.kills.kills import Kill, kill_server
from support.kills.patient_client import PATIENCE_S, PatientClient
from support.server.servers import RunningServer

Json = dict[str, Any]
_GROUPS, _GATEWAYS = 4, 5
_WANTED: Mapping[int, Json] = {0: {"x": 1, "y": 1}, 1: {"x": 2, "y": 1}, 2: {"x": 2, "y": 1}, 3: {"x": 2}}
"""Desired properties by group: the first configuration targets groups 0 to 2, the second one 1 to 3."""
_MODULES = {"$edgeAgent", "$edgeHub", "camera"}


class Fleet(PatientClient):
    """Devices of a hub and its configurations."""

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask the hub."""
        return self.hub(self.first, method, path, body)

    def create(self, count: int) -> None:
        """Create devices in groups, and gateways."""
        devices = [{"id": f"d-{number:04}", "tags": {"n": number % _GROUPS}} for number in range(count)]
        gateways = [{"id": f"g-{number}", "capabilities": {"iotEdge": True}} for number in range(_GATEWAYS)]
        every: list[Json] = [*devices, *gateways]
        for first in range(0, len(every), 100):
            items = [{"importMode": "create", "authentication": {"type": "sas"}, **one} for one in every[first:][:100]]
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
    modules = {"$edgeAgent": {"properties.desired": {"modules": {"camera": {}}}}, "camera": device_content(rate=5)}
    with ThreadPoolExecutor(at_once) as pool:
        world.configure("gone", "*", 9, deviceContent=device_content(x=9, z=9))
        running = [
            pool.submit(world.configure, "low", "tags.n < 3", 1, deviceContent=device_content(x=1, y=1)),
            pool.submit(world.configure, "high", "tags.n > 0", 2, deviceContent=device_content(x=2)),
            pool.submit(world.configure, "cameras", "*", 1, modulesContent=modules),
            pool.submit(world.delete, "gone"),
            *(pool.submit(world.tag, name, group) for name, group in moved.items()),
        ]
        for _ in range(kills):
            time.sleep(dice.uniform(0.2, 1.5))
            kill(server, dice)
        problems = [repr(one.exception()) for one in running if one.exception() is not None]
    faults = list(_faults(world, groups | moved))
    end = time.monotonic() + PATIENCE_S
    while faults and time.monotonic() < end:
        time.sleep(1)
        faults = list(_faults(world, groups | moved))
    return {
        "each": each,
        "kills": kills,
        "asked": world.asked,
        "seconds": round(time.monotonic() - began, 1),
        "faults": problems + faults,
    }


def _faults(world: Fleet, groups: Mapping[str, int]) -> Iterator[str]:
    """Yield what is not as it should be."""
    for name, group in groups.items():
        _, twin = world.ask("GET", f"/twins/{name}")
        desired = {key: value for key, value in twin["properties"]["desired"].items() if key[0] != "$"}
        states = {key: one["status"] for key, one in twin.get("configurations", {}).items()}
        wanted = {"low": group < _GROUPS - 1, "high": group > 0}
        if desired != _WANTED[group] or states != {key: "Applied" for key, is_so in wanted.items() if is_so}:
            yield f"{name} of group {group}: {desired} {states}"
    for number in range(_GATEWAYS):
        _, modules = world.ask("GET", f"/devices/g-{number}/modules")
        _, agent = world.ask("GET", f"/twins/g-{number}/modules/$edgeAgent")
        if {one["moduleId"] for one in modules} != _MODULES:
            yield f"g-{number}: {[one['moduleId'] for one in modules]}"
        if agent.get("configurations") != {"cameras": {"status": "Applied"}}:
            yield f"g-{number}: {agent.get('configurations')}"
