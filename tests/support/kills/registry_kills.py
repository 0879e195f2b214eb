"""Devices that change their hub, and bulk operations, while the server is killed: each is done once, and none half.

Some devices are on record at one hub, with a twin, and their group gives them another. They register anew, while others
are made in bulk; whoever asks and is cut off asks again. Afterwards every device is at one hub, with all it had, and
the figures say as many as there are.
"""

import base64
import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from birthmark.auth.connection_strings import parse_connection_string
from birthmark.auth.sas import derive_device_key
from support.azure.sas_tokens import make_sas
from support.kills.kills import Kill, kill_server
from support.kills.patient_client import PatientClient
from support.server.servers import RunningServer

GROUP_KEY = b"g" * 32
SECOND = "second.example"
IN_BULK = 50
Json = dict[str, Any]


class Registries(PatientClient):
    """A provisioning service and two hubs, asked as the SDKs ask, again and again."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(server)
        server.run("hub", "create", "second", "--host", SECOND)
        server.run("dps", "link", "second")
        told = server.environment
        self._scope = told["PROVISIONING_IDSCOPE"]
        second = json.loads(server.run("hub", "key", "second", "--json").stdout)
        self.keys[SECOND] = base64.b64decode(second["primary_key"])
        service = parse_connection_string(told["PROVISIONING_CONNECTION_STRING"])
        self._service = service.host.partition(":")[0], service.key, str(service.policy)

    def enroll(self, *hubs: str) -> None:
        """Let the group have its devices at these hubs."""
        host, key, policy = self._service
        keys = dict.fromkeys(("primaryKey", "secondaryKey"), base64.b64encode(GROUP_KEY).decode())
        group = {"enrollmentGroupId": "moving", "attestation": {"type": "symmetricKey", "symmetricKey": keys}}
        token = make_sas(host, key, int(time.time()) + 3600, policy)
        wanted = group | {"iotHubs": list(hubs), "allocationPolicy": "hashed"}
        status, told = self.until_answered((host, token), "PUT", "/enrollmentGroups/moving", wanted)
        assert status == HTTPStatus.OK, told

    def register(self, name: str) -> Json:
        """Register a device of the group until it is assigned; return its registration."""
        resource = f"{self._scope}/registrations/{name}"
        token = make_sas(resource, derive_device_key(GROUP_KEY, name), int(time.time()) + 3600, "registration")
        host = self._service[0]
        status, told = self.until_answered((host, token), "PUT", f"/{resource}/register", {"registrationId": name})
        assert status == HTTPStatus.ACCEPTED, told
        operation = f"/{resource}/operations/{told['operationId']}"
        status, told = self.until_answered((host, token), "GET", operation, None)
        if status != HTTPStatus.OK or told["status"] != "assigned":  # another registration of it came since
            return self.register(name)
        return dict(told["registrationState"])


def keep_on(
    server: RunningServer, each: int, dice: random.Random, *, kill: Kill = kill_server, kills: int = 5, at_once: int = 8
) -> Json:
    """Move `each` devices and make as many in bulk, while the server is killed; return what was wrong, with figures."""
    world, began = Registries(server), time.monotonic()
    names = [f"moves-{number:04}" for number in range(each)]
    bulk = [f"bulk-{number:04}" for number in range(each)]
    world.enroll(world.first)
    with ThreadPoolExecutor(at_once) as pool:
        for state in pool.map(world.register, names):
            assert state["assignedHub"] == world.first, state
        tagged = [
            pool.submit(world.hub, world.first, "PATCH", f"/twins/{name}", {"tags": {"n": name}}) for name in names
        ]
        assert {one.result()[0] for one in tagged} == {HTTPStatus.OK}
        world.enroll(SECOND)
        jobs: list[Callable[[], object]] = [lambda name=name: world.register(name) for name in names]  # type: ignore[misc]
        jobs += [
            lambda some=bulk[at : at + IN_BULK]: make(world, some)  # type: ignore[misc]
            for at in range(0, each, IN_BULK)
        ]
        dice.shuffle(jobs)
        running = [pool.submit(_slowly, job, dice.uniform(0, 0.4)) for job in jobs]
        for _ in range(kills):
            time.sleep(dice.uniform(0.2, 1.0))
            kill(server, dice)
        problems = [repr(one.exception()) for one in running if one.exception() is not None]
    return {
        "each": each,
        "kills": kills,
        "asked": world.asked,
        "seconds": round(time.monotonic() - began, 1),
        "faults": problems + faults(world, names, bulk),
    }


def _slowly(job: Callable[[], object], pause_s: float) -> object:
    time.sleep(pause_s)
    return job()


def make(world: Registries, names: list[str]) -> None:
    """Make devices in bulk until each is there; one that an answer was lost of is there already."""
    left = set(names)
    while left:
        items = [
            {"id": name, "importMode": "create", "authentication": {"type": "sas"}, "tags": {"n": name}}
            for name in sorted(left)
        ]
        status, told = world.hub(world.first, "POST", "/devices", items)
        refused = {one["deviceId"]: one["errorCode"] for one in told["errors"]}
        assert status == (HTTPStatus.BAD_REQUEST if refused else HTTPStatus.OK), told
        left = {name for name, code in refused.items() if code != "DeviceAlreadyExists"}


def faults(world: Registries, moved: list[str], bulk: list[str]) -> list[str]:
    """Return what is not as it should be."""
    found = []
    for host, wanted in ((world.first, bulk), (SECOND, moved)):
        _, told = world.hub(host, "GET", "/devices")
        there = {one["deviceId"] for one in told}
        if there != set(wanted) and len(wanted) <= 1000:
            found.append(f"{host}: {sorted(there ^ set(wanted))[:5]}")
        for name in wanted:
            status, twin = world.hub(host, "GET", f"/twins/{name}")
            if status != HTTPStatus.OK or twin["tags"] != {"n": name}:
                found.append(f"{name} at {host}: {status} {twin.get('tags')}")
        _, counted = world.hub(host, "GET", "/statistics/devices")
        if counted["totalDeviceCount"] != len(wanted):
            found.append(f"{host} counts {counted['totalDeviceCount']} of {len(wanted)}")
    for name in moved:
        if (status := world.hub(world.first, "GET", f"/twins/{name}")[0]) != HTTPStatus.NOT_FOUND:
            found.append(f"{name} is at {world.first}, too: {status}")
        if (state := world.register(name))["assignedHub"] != SECOND:
            found.append(f"{name} is assigned to {state['assignedHub']}")
    return found
