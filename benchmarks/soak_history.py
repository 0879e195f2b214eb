"""The history of clients while workers, NATS and PostgreSQL fail, and of credentials that are revoked meanwhile.

python benchmarks/soak_history.py [--seed 1] [--minutes 5] [--clients 60] [--fault KIND] [--out report.json]

Two workers on PostgreSQL; half of the clients are AWS things, half are hub devices. Every 15 s or so, one part fails.
Prints one JSON line; exit 1 when the history shows anything that should not be. `--plant KIND` falsifies the history
before it is checked, and `--history report.json` checks a recorded one again.
"""

import argparse
import base64
import contextlib
import http.client
import itertools
import json
import os
import random
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import paho.mqtt.client as paho
from both_engines import note_run
from botocore.config import Config

from support.azure.sas_tokens import make_sas
from support.history import events
from support.history.checks import TIMED, figures, findings
from support.history.events import C2D, NEIGHBOR, RETAINED, SHADOW, TELEMETRY, NumberSeen, NumberSent
from support.history.plants import PLANTS
from support.server.servers import RunningServer, free_address
from support.services.postgres import a_postgres_server

FAULTS = ("worker-killed", "worker-stopped", "worker-paused", "nats-killed", "postgresql-fast", "postgresql-immediate")
STOPPED_S = {"stopped": (8, 8), "paused": (0.7, 2)}
"""A worker that is stopped is ended before it continues; one that is paused may continue after its lease."""
API = "api-version=2021-04-12"
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
now = time.monotonic


class World:
    """The server, what reaches it, and what is recorded of it."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        self.server, self.directory, self.history, self.ends = server, directory, events.a_history(), threading.Event()
        hub = dict(part.split("=", 1) for part in server.endpoints["iothub"]["service_connection_string"].split(";"))
        until = int(time.time()) + 36_000
        key = base64.b64decode(hub["SharedAccessKey"])
        self.token = make_sas(hub["HostName"], key, until, hub["SharedAccessKeyName"])
        self.boto("iot").create_policy(policyName="all", policyDocument=json.dumps(POLICY))

    def boto(self, service: str):
        aws = self.server.endpoints["aws"]
        keys = {"aws_access_key_id": aws["access_key_id"], "aws_secret_access_key": aws["secret_access_key"]}
        keys |= {"region_name": aws["region"], "verify": self.server.endpoints["trust_bundle"]}
        config = Config(read_timeout=12, connect_timeout=5, retries={"total_max_attempts": 1})
        return boto3.client(service, endpoint_url=aws["endpoint_url"], config=config, **keys)

    def context(self, name: str = "") -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=self.server.endpoints["trust_bundle"])
        if name:
            made.load_cert_chain(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        return made

    def post(self, path: str, body: object, name: str = "") -> bool:
        """Say whether a request on a connection of its own is granted: to a device, or to a service."""
        line = http.client.HTTPSConnection(self.server.address, 443, context=self.context(name), timeout=6)
        try:
            line.request("POST", path, json.dumps(body), {} if name else {"authorization": self.token})
            return line.getresponse().status // 100 == 2
        except (OSError, http.client.HTTPException):
            return False
        finally:
            line.close()

    def enroll(self, name: str) -> str:
        """Make a certificate and put it on record; return its ID at AWS."""
        pem, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        line = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name}"
        subprocess.run([*line.split(), "-keyout", key, "-out", pem], check=True, capture_output=True)
        if "device" in name:
            self.server.run("hub", "device", "create", name, "--cert", str(pem))
            return ""
        iot = self.boto("iot")
        iot.create_thing(thingName=name)
        made = iot.register_certificate_without_ca(certificatePem=pem.read_text(), status="ACTIVE")
        iot.attach_policy(policyName="all", target=made["certificateArn"])
        iot.attach_thing_principal(thingName=name, principal=made["certificateArn"])
        return str(made["certificateId"])

    def paho(self, name: str, client_id: str = "", retry_s: float = 0.25) -> paho.Client:
        """Return a client, with a persistent session unless it has a name of its own."""
        made = paho.Client(client_id or name, clean_session=bool(client_id))
        if "device" in name:
            made.username_pw_set(f"{self.server.endpoints['iothub']['host']}/{name}/?{API}")
        made.tls_set_context(self.context(name))
        made.reconnect_delay_set(retry_s, max(1, retry_s))
        return made

    def watch_readiness(self) -> None:
        url = self.server.endpoints["health_url"].replace("/healthz", "/readyz")
        while not self.ends.wait(0.05):
            begin, is_ready = now(), False
            with contextlib.suppress(OSError, http.client.HTTPException), urllib.request.urlopen(url, timeout=1):
                is_ready = True
            self.history.polls.append(events.ReadinessPoll(begin, now(), is_ready))


class Steady:
    """A client that stays: a thing or a device, with what it sent and saw."""

    def __init__(self, world: World, name: str, neighbor: str) -> None:
        self.world, self.name, self.is_up, self.places = world, name, False, itertools.count()
        self.mids: dict[int, tuple[str, str, int, float]] = {}
        self.acks: dict[int, float] = {}
        self.copies: dict[int, int] = defaultdict(int)
        shadow = f"$aws/things/{name}/shadow/update"
        self.topics = {SHADOW: shadow, RETAINED: f"retained/{name}", NEIGHBOR: f"to/{neighbor}"}
        filters = [(f"to/{name}", 1), (f"{shadow}/accepted", 1)]
        if "device" in name:
            self.topics = {TELEMETRY: f"devices/{name}/messages/events/"}
            filters = [(f"devices/{name}/messages/devicebound/#", 1)]
        self.client, subscribed = world.paho(name), threading.Event()
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_publish = lambda _client, _, mid: self.acks.setdefault(mid, now())
        self.client.on_connect, self.client.on_disconnect = self._on_connect, self._on_disconnect
        self.client.on_message, self.client.on_log = self._on_message, self._on_log
        self.client.connect(world.server.address, 8883, keepalive=10)
        self.client.loop_start()
        self.client.subscribe(filters)
        assert subscribed.wait(20), name

    def _on_connect(self, _client, _, flags, code: int) -> None:
        if code == 0:
            self.is_up = True
            change = events.LineChange(self.name, now(), is_up=True, has_session=bool(flags["session present"]))
            self.world.history.lines.append(change)

    def _on_disconnect(self, *_) -> None:
        if self.is_up and not self.world.ends.is_set():
            self.is_up = False
            self.world.history.lines.append(events.LineChange(self.name, now(), is_up=False))

    def _on_log(self, _client, _, _level, text: str) -> None:
        if found := re.match(r"Sending PUBLISH \(d\d, q1, r\d, m(\d+)\)", text):
            self.copies[int(found[1])] += 1

    def _on_message(self, _client, _, message: paho.MQTTMessage) -> None:
        at, value = now(), json.loads(message.payload)
        if message.topic.endswith("/accepted"):
            row = (SHADOW, self.name, int(value["clientToken"]), value["version"])
        else:
            row = (*value["row"], next(self.places))
        self.world.history.seen.append(NumberSeen(*row, self.name, at))

    def publish(self, stream: str, number: int) -> None:
        at, value = now(), {"row": [stream, self.name, number]}
        if stream == SHADOW:
            value = {"state": {"reported": {"number": number}}, "clientToken": str(number)}
        told = self.client.publish(self.topics[stream], json.dumps(value), 1, retain=stream == RETAINED)
        self.mids[told.mid] = (stream, self.name, number, at)

    def waiting(self) -> int:
        return len(self.mids) - len(self.acks)

    def sent(self) -> list[NumberSent]:
        return [NumberSent(*row, self.acks.get(mid), self.copies[mid]) for mid, row in self.mids.items()]


class Victim:
    """A credential that is revoked while it is used over several connections."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.until, self.certificate = world, name, 0.0, world.enroll(name)
        self.topic, self.path = f"by/{name}", f"/topics/by/{name}?qos=1"
        self.slots = ["one", "two"]
        if not self.certificate:
            self.topic, self.path = f"devices/{name}/messages/events/", f"/devices/{name}/messages/events?{API}"
            self.slots = [name]

    def live(self, revoked_at: float) -> None:
        """Use it, have it revoked at that time, and go on for a while."""
        self.until = float("inf")
        works = [self._post, *(lambda slot=slot: self._talk(slot) for slot in self.slots)]
        threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in threads:
            thread.start()
        time.sleep(max(0.0, revoked_at - now()))
        self._revoke()
        self.until = now() + 9
        for thread in threads:
            thread.join(30)

    def again(self) -> None:
        """Try it once more."""
        self.until = now() + 1
        self._post()
        self._talk(self.slots[0])

    def _revoke(self) -> None:
        """Revoke it as an operator does, again until the server says that it did."""
        while not self.world.ends.wait(0.1):
            asked = now()
            with contextlib.suppress(Exception):
                if self.certificate:
                    self.world.boto("iot").update_certificate(certificateId=self.certificate, newStatus="INACTIVE")
                else:
                    self.world.server.run("hub", "device", "disable", self.name)
                self.world.history.answers.append(events.RevocationAnswer(self.name, now(), asked))
                return

    def _note(self, channel: str, begin: float, *, is_granted: bool) -> None:
        self.world.history.attempts.append(events.GrantAttempt(self.name, channel, begin, now(), is_granted))

    def _post(self) -> None:
        while (begin := now()) < self.until:
            self._note("https", begin, is_granted=self.world.post(self.path, {"at": begin}, self.name))
            time.sleep(0.1)

    def _talk(self, slot: str) -> None:
        while (begin := now()) < self.until:
            self._connect(slot, begin)
            time.sleep(0.1)

    def _connect(self, slot: str, begin: float) -> None:
        """Connect, publish while the connection lasts, and note what is granted."""
        begins, up, down = {}, threading.Event(), threading.Event()
        client = self.world.paho(self.name, self.name if slot == self.name else f"{self.name}-{slot}", 60)
        client.on_connect = lambda _client, _, _flags, code: (down if code else up).set()
        client.on_disconnect = lambda *_: down.set()
        client.on_publish = lambda _client, _, mid: self._note("publish", begins.get(mid, begin), is_granted=True)
        client.on_message = lambda *got: self._note("receive", json.loads(got[-1].payload)["at"], is_granted=True)
        with contextlib.suppress(OSError):
            client.connect(self.world.server.address, 8883, keepalive=10)
            client.loop_start()
            while not (up.wait(0.02) or down.is_set() or now() > begin + 4):
                pass
        self._note("connect", begin, is_granted=up.is_set())
        if self.certificate and up.is_set():
            client.subscribe(f"to/{self.name}", 1)
        while up.is_set() and not down.is_set() and (at := now()) < self.until:
            begins[client.publish(self.topic, json.dumps({"at": at}), 1).mid] = at
            time.sleep(0.1)
        client.disconnect()
        client.loop_stop()


class Run:
    """Clients that keep on, one fault after the other, and what is read at the end."""

    def __init__(self, world: World, given: argparse.Namespace, postgres) -> None:
        self.world, self.given, self.postgres, self.dice = world, given, postgres, random.Random(given.seed)
        half, lost = given.clients // 2, max(3, round(18 * given.minutes / 5))
        names = [f"thing-{n}" for n in range(half)] + [f"device-{n}" for n in range(given.clients - half)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(world.enroll, [*names, "thing-prober"]))
            kinds = [f"lost-{'device' if n % 3 == 2 else 'thing'}-{n}" for n in range(lost)]
            self.victims = list(pool.map(lambda name: Victim(world, name), kinds))
        self.clients = [Steady(world, name, f"thing-{(n + 1) % half}") for n, name in enumerate(names)]
        self.devices = [client for client in self.clients if "device" in client.name]
        self.lives: list[threading.Thread] = []
        self.stopping, self.services = threading.Event(), []

    def history(self) -> events.History:
        works = [self.publish, self.probe, self.world.watch_readiness]
        works += [lambda part=part: self.send_to_devices(self.devices[part::3]) for part in range(3)]
        for work in works:
            threading.Thread(target=work, daemon=True).start()
        self.inject_all(now() + self.given.minutes * 60)
        for thread in self.lives:
            thread.join(60)
        self.stopping.set()
        self.drain()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(Victim.again, [one for one in self.victims if one.until]))
        end = now()
        self.world.ends.set()
        self.world.history.sent.extend(self.services + [row for client in self.clients for row in client.sent()])
        self.read()
        return self.world.history._replace(end=end)

    def publish(self) -> None:
        """Publish about 100 numbers a second with 60 clients."""
        for number in itertools.count(1):
            for client in self.clients:
                for stream in client.topics if client.waiting() < 15 else ():
                    client.publish(stream, number)
            if self.stopping.wait(1.1):
                return

    def probe(self) -> None:
        """Send to those whose certificate is revoked."""
        client = self.world.paho("thing-prober")
        client.connect(self.world.server.address, 8883)
        client.loop_start()
        while not self.world.ends.wait(0.1):
            for victim in self.victims:
                if victim.certificate and victim.until > now():
                    client.publish(f"to/{victim.name}", json.dumps({"at": now()}))

    def send_to_devices(self, devices: list[Steady]) -> None:
        for number in itertools.count(1):
            for device in devices:
                if self.stopping.wait(0.5):
                    return
                at, row = now(), (C2D, device.name, number)
                is_granted = self.world.post(f"/devices/{device.name}/messages/deviceBound?{API}", {"row": row})
                self.services.append(NumberSent(*row, at, now() if is_granted else None))

    def settle(self) -> None:
        """Return when all are connected and the server has been ready for a second, or after a while."""
        deadline, polls = now() + 20, self.world.history.polls
        while now() < deadline and not (len(polls) > 20 and all(poll.is_ready for poll in polls[-20:])):
            time.sleep(0.1)
        while now() < deadline and not all(client.is_up for client in self.clients):
            time.sleep(0.1)

    def inject_all(self, until: float) -> None:
        """Let one part after the other fail; credentials are revoked shortly before, meanwhile, or after."""
        left, kinds = list(self.victims), []
        while now() < until:
            self.settle()
            kinds = kinds or self.dice.sample(self.given.fault or FAULTS, len(self.given.fault or FAULTS))
            kind, at = kinds.pop(), now() + self.dice.uniform(3, 5)
            for _ in range(min(len(left), 2 if "stopped" in kind else 1)):
                offset = self.dice.uniform(0.1, 2) if "worker" in kind else self.dice.uniform(-1, 3)
                self.lives.append(threading.Thread(target=left.pop().live, args=(at + offset,), daemon=True))
                self.lives[-1].start()
            time.sleep(at - now())
            self.inject(kind)
            time.sleep(self.dice.uniform(7, 9))

    def inject(self, kind: str) -> None:
        begin, (part, how) = now(), kind.split("-")
        if part == "postgresql":
            self.postgres.stop(how)
            time.sleep(1.5)
            self.postgres.start()
        else:
            pid = self.dice.choice(processes(self.world.server, "nats" if part == "nats" else "birthmark w"))
            os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
            time.sleep(self.dice.uniform(*STOPPED_S.get(how, (0, 0))))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.world.history.faults.append(events.InjectedFault(kind, begin, now()))

    def drain(self) -> None:
        """Return when everything is acknowledged and nothing more arrives, or after a while."""
        deadline, count = now() + 40, -1
        while now() < deadline and any(client.waiting() for client in self.clients):
            time.sleep(0.2)
        while now() < deadline + 20 and count != (count := len(self.world.history.seen)):
            time.sleep(4)

    def read(self) -> None:
        """Read what is stored."""
        history, data = self.world.history, self.world.boto("iot-data")
        for name in (client.name for client in self.devices):
            rows = self.world.server.rows("hub", "messages", name, "--limit", "10000")
            history.seen.extend(NumberSeen(*json.loads(row["body"])["row"], place) for place, row in enumerate(rows))
        for name in (client.name for client in self.clients if client not in self.devices):
            with contextlib.suppress(data.exceptions.ResourceNotFoundException):
                shadow = json.loads(data.get_thing_shadow(thingName=name)["payload"].read())
                number, version = shadow["state"]["reported"]["number"], shadow["version"]
                history.finals.append(events.FinalValue(SHADOW, name, number, version))
            with contextlib.suppress(data.exceptions.ResourceNotFoundException):
                retained = json.loads(data.get_retained_message(topic=f"retained/{name}")["payload"])
                history.finals.append(events.FinalValue(*retained["row"]))


def processes(server: RunningServer, name: str) -> list[int]:
    """Return the processes below a server whose name begins so."""
    command = ["ps", "-o", "pid=,comm=", "--ppid", str(server.pid)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [int(pid) for pid, program in (line.split(None, 1) for line in lines) if program.startswith(name)]


def record(given: argparse.Namespace) -> events.History:
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(a_postgres_server())
        directory = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="birthmark-soak-")))
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "server.toml").write_text(f'database = "{postgres.url}"\nworkers = 2\n')
        server = RunningServer(directory / "data", free_address(), directory / "server.toml").start()
        stack.callback(server.stop)
        return Run(World(server, directory), given, postgres).history()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--clients", type=int, default=60)
    parser.add_argument("--fault", choices=FAULTS, action="append", help="these alone")
    parser.add_argument("--untimed", action="store_true", help="exit 0 if only times miss their limits")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="falsify the history in this way")
    parser.add_argument("--history", type=Path, help="check the history of this report instead of a new one")
    parser.add_argument("--out", type=Path, help="write figures, findings and the history here")
    parser.add_argument("--keep", type=Path, help="leave records and logs here")
    parser.add_argument("--log", type=Path, help="append a line for this run here, and print the totals of all runs")
    given = parser.parse_args()
    history = events.history_of(json.loads(given.history.read_text())["history"]) if given.history else record(given)
    if given.plant:
        history = PLANTS[given.plant].apply(history, random.Random(given.seed))
    found = findings(history)
    wrong, given.kills = [": ".join(finding) for finding in found], len(history.faults)
    told = {"engine": "workers", "seed": given.seed, "kills": given.kills, **figures(history), "faults": wrong}
    if given.out is not None:
        given.out.write_text(json.dumps(told | {"history": history}))
    print(json.dumps(told), flush=True)
    if given.log is not None:
        note_run(given.log, "workers", given, wrong)
    sys.exit(any(not (given.untimed and finding.check in TIMED) for finding in found))


if __name__ == "__main__":
    main()
