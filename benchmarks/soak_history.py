"""The history of clients while workers, NATS and PostgreSQL fail, and of credentials that are revoked meanwhile.

python benchmarks/soak_history.py [--seed 1] [--minutes 5] [--clients 60] [--fault KIND] [--out report.json]

Two workers on PostgreSQL; half of the clients are AWS things, half are hub devices. Every 15 s or so, one part fails.
Prints one JSON line; exit 1 when the history shows anything that should not be. `--plant KIND` falsifies the history
before it is checked, and `--history report.json` checks a recorded one again: both have to find what was planted.
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
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
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import botocore.config
import paho.mqtt.client as paho
from both_engines import note_run

from support.history.checks import figures, findings
from support.history.events import (
    C2D,
    NEIGHBOR,
    RETAINED,
    SHADOW,
    TELEMETRY,
    FinalValue,
    GrantAttempt,
    History,
    InjectedFault,
    LineChange,
    NumberSeen,
    NumberSent,
    ReadinessPoll,
    RevocationAnswer,
)
from support.history.plants import PLANTS
from support.server.servers import RunningServer, free_address
from support.services.postgres import a_postgres_server

FAULTS = ("worker killed", "worker stopped", "nats killed", "postgresql fast", "postgresql immediate")
API = "api-version=2021-04-12"
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
now = time.monotonic


class World:
    """The server, what reaches it, and what is recorded of it."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        self.server, self.directory, self.history = server, directory, History()
        self.trust = server.endpoints["trust_bundle"]
        self.counted: dict[tuple[str, str], itertools.count] = defaultdict(lambda: itertools.count(1))
        self.ends = threading.Event()
        parts = server.endpoints["iothub"]["service_connection_string"].split(";")
        hub = dict(part.split("=", 1) for part in parts)
        what = f"{urllib.parse.quote(hub['HostName'], '')}\n{int(time.time()) + 36000}"
        signed = hmac.digest(base64.b64decode(hub["SharedAccessKey"]), what.encode(), hashlib.sha256)
        quoted, (uri, until) = urllib.parse.quote(base64.b64encode(signed), ""), what.split("\n")
        name = hub["SharedAccessKeyName"]
        self.token = f"SharedAccessSignature sr={uri}&sig={quoted}&se={until}&skn={name}"

    def boto(self, service: str):
        aws = self.server.endpoints["aws"]
        return boto3.client(
            service,
            endpoint_url=aws["endpoint_url"],
            region_name=aws["region"],
            aws_access_key_id=aws["access_key_id"],
            aws_secret_access_key=aws["secret_access_key"],
            verify=self.trust,
            config=botocore.config.Config(read_timeout=12, connect_timeout=5, retries={"total_max_attempts": 1}),
        )

    def context(self, name: str | None = None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=self.trust)
        if name is not None:
            made.load_cert_chain(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        return made

    def ask(self, method: str, path: str, body: dict | None = None, name: str | None = None) -> int:
        """Return the status of a request on a connection of its own: by a device's certificate, or as a service."""
        line = http.client.HTTPSConnection(self.server.address, 443, context=self.context(name), timeout=6)
        headers = {"content-type": "application/json"} | ({} if name else {"authorization": self.token})
        if body and body.get("status") == "disabled":
            headers["if-match"] = "*"
        try:
            line.request(method, path, body if body is None else json.dumps(body), headers)
            answer = line.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            line.close()

    def device(self, name: str, status: str = "enabled") -> None:
        """Put a hub device on record, or change it."""
        der = subprocess.run(
            ["openssl", "x509", "-in", f"{self.directory}/{name}.pem", "-outform", "der"],
            check=True,
            capture_output=True,
        )
        printed = hashlib.sha256(der.stdout).hexdigest().upper()
        login = {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": printed, "secondaryThumbprint": printed}}
        body = {"deviceId": name, "status": status, "authentication": login}
        answered = self.ask("PUT", f"/devices/{name}?{API}", body)
        if answered != 200:
            raise OSError(f"{name}: {answered}")

    def enroll(self, name: str) -> str:
        """Make a certificate and put it on record; return its ID at AWS."""
        files = ["-keyout", f"{self.directory}/{name}.key", "-out", f"{self.directory}/{name}.pem"]
        key = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj".split()
        subprocess.run([*key, f"/CN={name}", *files], check=True, capture_output=True)
        if name.startswith(("device", "lost-device")):
            self.device(name)
            return ""
        iot = self.boto("iot")
        iot.create_thing(thingName=name)
        pem = (self.directory / f"{name}.pem").read_text()
        made = iot.register_certificate_without_ca(certificatePem=pem, status="ACTIVE")
        iot.attach_policy(policyName="all", target=made["certificateArn"])
        iot.attach_thing_principal(thingName=name, principal=made["certificateArn"])
        return str(made["certificateId"])

    def paho(self, name: str, client_id: str, *, clean: bool) -> paho.Client:
        made = paho.Client(client_id, clean_session=clean)
        if "device" in name:
            made.username_pw_set(f"{self.server.endpoints['iothub']['host']}/{name}/?{API}")
        made.tls_set_context(self.context(name))
        made.reconnect_delay_set(0.25, 1)
        return made

    def watch_readiness(self) -> None:
        url = self.server.endpoints["health_url"].replace("/healthz", "/readyz")
        while not self.ends.is_set():
            begin = now()
            try:
                with urllib.request.urlopen(url, timeout=1) as answer:
                    is_ready = answer.status == 200
            except (OSError, http.client.HTTPException):
                is_ready = False
            self.history.polls.append(ReadinessPoll(begin, now(), is_ready))
            time.sleep(max(0.0, begin + 0.05 - now()))


class Steady:
    """A client that stays: a thing or a device, with what it sent and saw."""

    def __init__(self, world: World, name: str, neighbor: str) -> None:
        self.world, self.name, self.is_up, self.places = world, name, False, itertools.count()
        self.mids: dict[int, tuple[str, str, int, float]] = {}
        self.acks: dict[int, float] = {}
        self.copies: dict[int, int] = defaultdict(int)
        shadow = f"$aws/things/{name}/shadow/update"
        self.topics = {
            SHADOW: (shadow, name),
            RETAINED: (f"retained/{name}", name),
            NEIGHBOR: (f"to/{neighbor}", name),
        }
        filters = [f"to/{name}", f"{shadow}/accepted"]
        if "device" in name:
            self.topics = {TELEMETRY: (f"devices/{name}/messages/events/", name)}
            filters = [f"devices/{name}/messages/devicebound/#"]
        self.client = client = world.paho(name, name, clean=False)
        subscribed = threading.Event()
        client.on_subscribe = lambda *_: subscribed.set()
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = lambda _client, _, mid: self.acks.setdefault(mid, now())
        client.on_message = self._on_message
        client.on_log = self._on_log
        client.connect(world.server.address, 8883, keepalive=10)
        client.loop_start()
        client.subscribe([(one, 1) for one in filters])
        assert subscribed.wait(20), name

    def _on_connect(self, _client, _, flags, code) -> None:
        if code == 0:
            self.is_up = True
            self.world.history.lines.append(LineChange(self.name, now(), True, bool(flags["session present"])))

    def _on_disconnect(self, *_) -> None:
        if self.is_up and not self.world.ends.is_set():
            self.is_up = False
            self.world.history.lines.append(LineChange(self.name, now(), False))

    def _on_log(self, _client, _, _level, text: str) -> None:
        if found := re.match(r"Sending PUBLISH \(d\d, q1, r\d, m(\d+)\)", text):
            self.copies[int(found[1])] += 1

    def _on_message(self, _client, _, message: paho.MQTTMessage) -> None:
        at, value, place = now(), json.loads(message.payload), next(self.places)
        if message.topic.endswith("/accepted"):
            stream, series, number = SHADOW, self.name, int(value["clientToken"])
            place = value["version"]
        else:
            stream, series, number = value["stream"], value["series"], value["number"]
        self.world.history.seen.append(NumberSeen(stream, series, number, place, self.name, at))

    def publish(self, stream: str) -> None:
        topic, series = self.topics[stream]
        number, at = next(self.world.counted[stream, series]), now()
        payload: dict[str, object] = {"stream": stream, "series": series, "number": number}
        if stream == SHADOW:
            payload = {"state": {"reported": {"number": number}}, "clientToken": str(number)}
        told = self.client.publish(topic, json.dumps(payload), 1, retain=stream == RETAINED)
        self.mids[told.mid] = (stream, series, number, at)

    def waiting(self) -> int:
        return len(self.mids) - len(self.acks)

    def sent(self) -> list[NumberSent]:
        return [NumberSent(*row, self.acks.get(mid), self.copies[mid]) for mid, row in self.mids.items()]


class Victim:
    """A credential that is revoked while it is used over several connections."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.certificate = world, name, world.enroll(name)
        self.until, self.receives = 0.0, f"to/{name}"

    def _note(self, channel: str, begin: float, is_granted: bool) -> None:
        self.world.history.attempts.append(GrantAttempt(self.name, channel, begin, now(), is_granted))

    def revoke(self) -> None:
        """Revoke it as an operator does, again until the server says that it did."""
        while not self.world.ends.is_set():
            with contextlib.suppress(Exception):
                if self.certificate:
                    status = random.choice(["INACTIVE", "REVOKED"])
                    self.world.boto("iot").update_certificate(certificateId=self.certificate, newStatus=status)
                else:
                    self.world.device(self.name, "disabled")
                self.world.history.answers.append(RevocationAnswer(self.name, now()))
                return
            time.sleep(0.1)

    def live(self, revoked_at: float) -> None:
        """Use it, have it revoked at that time, and go on for a while."""
        self.until = float("inf")
        slots = ("a", "b") if self.certificate else ("",)
        users = [threading.Thread(target=self._talk, args=(f"{self.name}{slot}",), daemon=True) for slot in slots]
        users += [threading.Thread(target=self._ask, daemon=True)]
        for user in users:
            user.start()
        time.sleep(max(0.0, revoked_at - now()))
        self.revoke()
        self.until = now() + 9
        for user in users:
            user.join(30)

    def again(self) -> None:
        """Try it once more."""
        self.until = now() + 1
        self._ask()
        self._talk(self.name + ("a" if self.certificate else ""))

    def _ask(self) -> None:
        path = f"/topics/by/{self.name}?qos=1" if self.certificate else f"/devices/{self.name}/messages/events?{API}"
        while (begin := now()) < self.until:
            status = self.world.ask("POST", path, {"at": begin}, self.name)
            self._note("https", begin, 200 <= status < 300)
            time.sleep(0.1)

    def _talk(self, client_id: str) -> None:
        while now() < self.until:
            self._talk_once(client_id)
            time.sleep(0.1)

    def _talk_once(self, client_id: str) -> None:
        begin, begins, up, down = now(), {}, threading.Event(), threading.Event()
        client = self.world.paho(self.name, client_id, clean=True)
        client.reconnect_delay_set(60, 60)
        client.on_connect = lambda _client, _, _flags, code: up.set() if code == 0 else down.set()
        client.on_disconnect = lambda *_: down.set()
        client.on_publish = lambda _client, _, mid: self._note("publish", begins.get(mid, begin), True)
        client.on_message = lambda _client, _, message: self._note("receive", json.loads(message.payload)["at"], True)
        try:
            client.connect(self.world.server.address, 8883, keepalive=10)
        except OSError:
            self._note("connect", begin, False)
            return
        client.loop_start()
        while not up.wait(0.02) and not down.is_set() and now() < begin + 4:
            pass
        self._note("connect", begin, up.is_set())
        client.subscribe(self.receives, 1) if self.certificate and up.is_set() else None
        topic = f"by/{self.name}" if self.certificate else f"devices/{self.name}/messages/events/"
        while up.is_set() and not down.is_set() and now() < self.until:
            at = now()
            begins[client.publish(topic, json.dumps({"at": at}), 1).mid] = at
            time.sleep(0.1)
        client.disconnect()
        client.loop_stop()


class Run:
    """Clients that keep on, one fault after the other, and what is read at the end."""

    def __init__(self, world: World, given: argparse.Namespace, postgres) -> None:
        self.world, self.given, self.postgres, self.dice = world, given, postgres, random.Random(given.seed)
        world.boto("iot").create_policy(policyName="all", policyDocument=json.dumps(POLICY))
        half, lost = given.clients // 2, max(3, round(18 * given.minutes / 5))
        names = [f"thing-{n}" for n in range(half)] + [f"device-{n}" for n in range(given.clients - half)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(world.enroll, [*names, "thing-prober"]))
            kinds = [f"lost-{'device' if n % 3 == 2 else 'thing'}-{n}" for n in range(lost)]
            self.victims = list(pool.map(lambda name: Victim(world, name), kinds))
        self.clients = [Steady(world, name, f"thing-{(n + 1) % half}") for n, name in enumerate(names)]
        self.devices = [client for client in self.clients if "device" in client.name]
        self.spent: list[threading.Thread] = []
        self.stopping = threading.Event()
        self.services: list[NumberSent] = []

    def go(self) -> History:
        workers = [self.publish, self.probe, self.world.watch_readiness]
        workers += [lambda part=part: self.send_to_devices(self.devices[part::3]) for part in range(3)]
        threads = [threading.Thread(target=work, daemon=True) for work in workers]
        for thread in threads:
            thread.start()
        time.sleep(3)
        self.inject_all(now() + self.given.minutes * 60)
        self.settle()
        for thread in self.spent:
            thread.join(60)
        self.stopping.set()
        self.drain()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(Victim.again, [one for one in self.victims if one.until]))
        history = self.world.history
        history.end = now()
        self.world.ends.set()
        history.sent += [row for client in self.clients for row in client.sent()] + self.services
        self.read()
        for client in self.clients:
            client.client.disconnect()
        return history

    def publish(self) -> None:
        """Publish about 110 numbers a second with 60 clients."""
        while not self.stopping.is_set():
            for client in self.clients:
                for stream in client.topics if self.dice_of_load.random() < 0.9 else ():
                    if client.waiting() < 15:
                        client.publish(stream)
            self.stopping.wait(1.2)

    dice_of_load = random.Random(1)

    def probe(self) -> None:
        """Send to those whose credential is revoked."""
        client = self.world.paho("thing-prober", "thing-prober", clean=True)
        client.connect(self.world.server.address, 8883, keepalive=10)
        client.loop_start()
        while not self.world.ends.wait(0.1):
            for victim in self.victims:
                if victim.certificate and victim.until > now() and client.is_connected():
                    client.publish(victim.receives, json.dumps({"at": now()}), 0)
        client.disconnect()

    def send_to_devices(self, devices: list[Steady]) -> None:
        for device in itertools.cycle(devices):
            if self.stopping.wait(0.6):
                return
            number, at = next(self.world.counted[C2D, device.name]), now()
            body = {"stream": C2D, "series": device.name, "number": number}
            status = self.world.ask("POST", f"/devices/{device.name}/messages/deviceBound?{API}", body)
            acked = now() if 200 <= status < 300 else None
            self.services.append(NumberSent(C2D, device.name, number, at, acked))

    def settle(self) -> None:
        """Return when all are connected and the server is ready, or after a while."""
        deadline = now() + 20
        while now() < deadline:
            is_ready = self.world.history.polls and all(poll.is_ready for poll in self.world.history.polls[-20:])
            if is_ready and all(client.is_up for client in self.clients):
                return
            time.sleep(0.1)

    def inject_all(self, until: float) -> None:
        left = list(self.victims)
        kinds = list(self.given.fault or FAULTS)
        while now() < until:
            self.dice.shuffle(kinds)
            for kind in kinds:
                if now() > until - 8:
                    time.sleep(max(0.0, until - now()))
                    return
                self.settle()
                at = now() + 4 + self.dice.uniform(0, 2)
                for _ in range(min(len(left), 2 if "stopped" in kind else 1)):
                    offset = self.dice.uniform(0.3, 5) if "stopped" in kind else self.dice.uniform(-1, 3)
                    self.spent.append(threading.Thread(target=left.pop(0).live, args=(at + offset,), daemon=True))
                    self.spent[-1].start()
                time.sleep(at - now())
                self.inject(kind)
                time.sleep(7 + self.dice.uniform(0, 2))

    def inject(self, kind: str) -> None:
        begin = now()
        if kind.startswith("postgresql"):
            self.postgres.stop(kind.split()[1])
            time.sleep(1.5)
            self.postgres.start()
        else:
            pid = self.dice.choice(processes(self.world.server, "nats" if "nats" in kind else "birthmark w"))
            os.kill(pid, signal.SIGSTOP if "stopped" in kind else signal.SIGKILL)
            if "stopped" in kind:
                time.sleep(8)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        self.world.history.faults.append(InjectedFault(kind, begin, now()))

    def drain(self) -> None:
        """Return when everything is acknowledged and has arrived, or after a while."""
        deadline = now() + 40
        while now() < deadline and any(client.waiting() for client in self.clients):
            time.sleep(0.2)
        deadline, count = now() + 20, -1
        while now() < deadline and count != (count := len(self.world.history.seen)):
            time.sleep(3)

    def read(self) -> None:
        """Read what is stored."""
        history, data = self.world.history, self.world.boto("iot-data")
        for client in self.clients:
            if client in self.devices:
                rows = self.world.server.rows("hub", "messages", client.name, "--limit", "10000")
                for place, row in enumerate(rows):
                    number = json.loads(row["body"])["number"]
                    history.seen.append(NumberSeen(TELEMETRY, client.name, number, place))
                continue
            with contextlib.suppress(data.exceptions.ResourceNotFoundException):
                told = json.loads(data.get_thing_shadow(thingName=client.name)["payload"].read())
                number, version = told["state"]["reported"]["number"], told["version"]
                history.finals.append(FinalValue(SHADOW, client.name, number, version))
                told = json.loads(data.get_retained_message(topic=f"retained/{client.name}")["payload"])
                history.finals.append(FinalValue(RETAINED, client.name, told["number"]))


def processes(server: RunningServer, name: str) -> list[int]:
    """Return the processes below a server whose name begins so."""
    command = ["ps", "-o", "pid=,comm=", "--ppid", str(server.pid)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [int(pid) for pid, program in (line.split(None, 1) for line in lines) if program.startswith(name)]


def record(given: argparse.Namespace) -> History:
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(a_postgres_server())
        directory = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="birthmark-soak-")))
        directory.mkdir(exist_ok=True)
        config = directory / "server.toml"
        config.write_text(f'database = "{postgres.url}"\nworkers = 2\n')
        server = RunningServer(directory / "data", free_address(), config).start()
        stack.callback(server.stop)
        return Run(World(server, directory), given, postgres).go()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--clients", type=int, default=60)
    parser.add_argument("--fault", choices=FAULTS, action="append", help="only these")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="falsify the history in this way")
    parser.add_argument("--history", type=Path, help="check this report's history instead of a new one")
    parser.add_argument("--out", type=Path, help="write figures, findings and the history here")
    parser.add_argument("--keep", type=Path, help="leave records and logs here")
    parser.add_argument("--log", type=Path, help="append a line for this run here, and print the totals of all runs")
    given = parser.parse_args()
    history = History.of_json(json.loads(given.history.read_text())["history"]) if given.history else record(given)
    if given.plant:
        history = PLANTS[given.plant].apply(history, random.Random(given.seed))
    wrong = [str(finding) for finding in findings(history)]
    given.kills = len(history.faults)
    told = {"engine": "workers", "seed": given.seed, "kills": given.kills, **figures(history), "faults": wrong}
    if given.out:
        given.out.write_text(json.dumps(told | {"history": history.as_json()}))
    print(json.dumps(told), flush=True)
    if given.log is not None:
        note_run(given.log, "workers", given, wrong)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
