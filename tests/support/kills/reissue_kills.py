"""Devices that ask their hub for certificates while the server is killed: each has one, and none two of a key.

Each device asks for a certificate of a new key, again and again for the same key until it is answered, connects by what
it was given, and goes on. What it connected by last, and what it was answered with, has to let it in.
"""

import itertools
import queue
import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.azure.credentials import Answer, Device, Key, Operator, Shown, at_hub, files_of, issue, kept, register
from support.kills.kills import Kill, kill_server
from support.pki.pki_builders import a_device
from support.server.servers import RunningServer

PATIENCE_S = 240.0
REFUSED = 5
_POLICY = {"namespaceName": "ours", "certificateAuthorityName": "devices", "certificatePolicyName": "device"}


@dataclass
class Renewing:
    """One device: `used` let it in last, `given` is what it was answered with since."""

    server: RunningServer
    directory: Path
    name: str
    used: Shown
    keys: int = 1
    cuts: int = 0
    given: Shown | None = None
    problems: list[str] = field(default_factory=list)

    def keep_on(self, is_over: threading.Event) -> None:
        """Go on until it is over, and end with what was begun."""
        while not is_over.is_set():
            self.renew()
            time.sleep(random.uniform(0, 0.1))

    def renew(self) -> None:
        key = Key()
        self.keys += 1
        deadline = time.monotonic() + PATIENCE_S
        while self.given is None:
            if time.monotonic() > deadline:
                self.problems.append(f"{self.name} was never answered")
                return
            with suppress(OSError, queue.Empty):
                self._asked(key)
        fresh = self.given
        while time.monotonic() < deadline:
            with suppress(OSError, queue.Empty):
                device = self._connected(fresh)
                device.client.disconnect()
                device.client.loop_stop()
                self.used, self.given = fresh, None
                return
            self.cuts += 1
        self.problems.append(f"{self.name} never came back")

    def _connected(self, shown: Shown) -> Device:
        """Connect. Raise `OSError` or `queue.Empty` where the server is away."""
        device = at_hub(self.server, shown, self.name)
        if device.code != 0:
            device.client.loop_stop()
            if device.code == REFUSED:
                self.problems.append(f"{self.name} was refused with a certificate that counts")
            raise ConnectionRefusedError
        return device

    def _asked(self, key: Key) -> None:
        device = self._connected(self.used)
        try:
            device.subscribe("$iothub/credentials/res/#")
            device.publish(
                "$iothub/credentials/POST/issueCertificate/?$rid=7",
                {"id": self.name, "csr": key.csr(self.name), "replace": "*"},
            )
            answer = self._answer(device)
            if answer.status == 202:
                answer = self._answer(device)
            if answer.status == 200:
                self.given = kept(self.directory, answer.body["certificates"], key, self.name)
            elif answer.status < 429 and answer.status != 409:
                self.problems.append(f"{self.name}: {answer}")
        finally:
            device.client.disconnect()
            device.client.loop_stop()

    def _answer(self, device: Device) -> Answer:
        until = time.monotonic() + 20
        while time.monotonic() < until and not device.is_over:
            with suppress(queue.Empty):
                return device.answer(0.2)
        self.cuts += 1
        raise queue.Empty


def registered(server: RunningServer, directory: Path, name: str) -> Renewing:
    """Return a device that registered with a request for its first certificate."""
    holder, key = a_device(common_name=name, now=datetime.now(UTC), lifetime=timedelta(days=1)), Key()
    Operator(server.cloud).enroll(name, holder, **_POLICY)
    answer = register(server, files_of(directory, holder, name), name, key.csr(name))
    assert answer.status == 200, answer
    chain = answer.body["registrationState"]["issuedCertificateChain"]
    return Renewing(server, directory, name, kept(directory, chain, key, name))


def keep_on(
    server: RunningServer, each: int, dice: random.Random, directory: Path, *, kill: Kill = kill_server, kills: int = 5
) -> dict[str, Any]:
    """Let `each` devices renew, while the server is killed; return what was wrong, with figures."""
    began = time.monotonic()
    devices = [registered(server, directory, f"renews-{number:03}") for number in range(each)]
    is_over = threading.Event()
    threads = [threading.Thread(target=one.keep_on, args=(is_over,)) for one in devices]
    for thread in threads:
        thread.start()
    for _ in range(kills):
        time.sleep(dice.uniform(0.2, 1.5))
        kill(server, dice)
    is_over.set()
    for thread in threads:
        thread.join()
    return {
        "each": each,
        "kills": kills,
        "renewals": sum(one.keys - 1 for one in devices),
        "cuts": sum(one.cuts for one in devices),
        "seconds": round(time.monotonic() - began, 1),
        "faults": [
            *itertools.chain(*(one.problems for one in devices)),
            *faults(server, devices),
            *(["fewer renewals than devices"] if sum(one.keys - 1 for one in devices) <= each else []),
        ],
    }


def faults(server: RunningServer, devices: Sequence[Renewing]) -> list[str]:
    """Return what is not as it should be now that all are done."""
    found, operator = [], Operator(server.cloud)
    issued = server.rows("pki", "ls", "--unrevoked")
    for one in devices:
        thumbprints = operator.thumbprints(one.name)
        if thumbprints != (one.used.thumbprint, one.used.thumbprint):
            found.append(f"{one.name} is known by {thumbprints}, and used {one.used.thumbprint}")
        with at_hub(server, one.used, one.name) as device:
            accepted, _ = issue(device, one.name, "AA==")
            if accepted.status != 400:
                found.append(f"{one.name} was told {accepted}")
        alive = [row for row in issued if row["device"] == one.name]
        if len(alive) != one.keys:
            found.append(f"{one.name} has {len(alive)} certificates, and asked for {one.keys} keys")
    return found
