"""Devices that come to AWS for the first time by three ways, while the server is killed: each is one thing, none half.

By JITP, by claim with a request for the device's own key, and by a bulk registration. With `tokens` the keys of those
that come by claim lie in software tokens, and their last connection is the vendor's SDK's.
"""

import base64
import contextlib
import json
import queue
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore.config
import paho.mqtt.client as paho

from support.aws.device import DeviceProcess
from support.kills.kills import Kill, kill_server
from support.pki.pki_builders import Holder, a_ca, a_csr, a_device, a_key, key_pem
from support.server.servers import RunningServer

PATIENCE_S = 240
ANSWER_S = 4
ROLE = "arn:aws:iam::000000000000:role/provisioning"
ID, NAME = "AWS::IoT::Certificate::Id", "AWS::IoT::Certificate::CommonName"
POLICY = {
    "Type": "AWS::IoT::Policy",
    "Properties": {
        "PolicyDocument": {
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow",
                "Action": "iot:Connect",
                "Resource": "arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}",
            },
        }
    },
}


def body(*parameters: str, **certificate: Any) -> str:
    """Return a template of a thing that its first parameter names."""
    resources = {
        "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": parameters[0]}}},
        "certificate": {"Type": "AWS::IoT::Certificate", "Properties": certificate},
        "policy": POLICY,
    }
    return json.dumps({"Parameters": {key: {"Type": "String"} for key in parameters}, "Resources": resources})


@dataclass
class Fleet:
    """An account with a CA that registers its devices, a template, and a claim certificate."""

    server: RunningServer
    directory: Path
    iot: Any = None
    maker: Holder = field(default_factory=lambda: a_ca("Maker", now=datetime.now(UTC)))
    attempts: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    visits: dict[str, Callable[[], bool]] = field(default_factory=dict)
    """How those that came by a claim connect."""

    def prepare(self) -> None:
        """Put on record what the three ways need."""
        patient = botocore.config.Config(
            retries={"max_attempts": 10, "mode": "standard"}, connect_timeout=5, read_timeout=20
        )
        self.iot = self.server.cloud.boto3(config=patient)
        own = {"CertificateId": {"Ref": ID}}
        self.iot.register_ca_certificate(
            caCertificate=self.maker.certificate.pem(),
            certificateMode="SNI_ONLY",
            setAsActive=True,
            allowAutoRegistration=True,
            registrationConfig={"templateBody": body(NAME, ID, **own)},
        )
        self.iot.create_provisioning_template(
            templateName="fleet", templateBody=body("Serial", ID, **own), enabled=True, provisioningRoleArn=ROLE
        )
        claim = self.iot.create_keys_and_certificate(setAsActive=True)
        self._write("claim", claim["certificatePem"], claim["keyPair"]["PrivateKey"])
        everything = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}}
        self.iot.create_policy(policyName="claims", policyDocument=json.dumps(everything))
        self.iot.attach_policy(policyName="claims", target=claim["certificateArn"])

    def _write(self, name: str, certificate: str, key: str | None) -> tuple[Path, Path]:
        files = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        files[0].write_text(certificate)
        if key is not None:
            files[1].write_text(key)
        return files

    # ---- the three ways

    def by_jitp(self, name: str) -> None:
        """Come by a certificate of the maker until one is let in."""
        held = a_device(self.maker, name, now=datetime.now(UTC))
        files = self._write(name, held.certificate.pem(), held.key_pem)
        self._until(name, lambda: self._lets_in(name, files))

    def by_claim(self, name: str) -> None:
        """Be given a certificate for one's own key, become a thing, and come by it."""
        key = a_key()
        csr = base64.b64encode(a_csr(name, key=key)).decode()
        self._until(name, lambda: self._is_provisioned(name, csr, key_pem(key)))
        files = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        self.visits[name] = lambda: self._lets_in(name, files)
        self._until(name, self.visits[name])

    def by_claim_in_token(self, name: str) -> None:
        """Do the same with a key in a token, and come by the vendor's SDK."""
        chip = json.loads(
            self.server.run(*["chip", "simulate", "--chip", "atecc608", "--json"], str(self.directory / name)).stdout
        )
        variables = {key: value for key, value in chip.items() if key.isupper()}
        request = self.directory / f"{name}.csr"
        self.server.run("chip", "csr", "--cn", name, "--out", str(request), **variables)
        self._until(name, lambda: self._is_provisioned(name, request.read_text(), None))
        arguments = {
            "endpoint": self.server.endpoints["aws"]["data_endpoint"],
            "ca": self.server.endpoints["trust_bundle"],
            "client_id": name,
            "certificate": str(self.directory / f"{name}.pem"),
            "module": variables["BIRTHMARK_PKCS11_MODULE"],
            "token": variables["BIRTHMARK_TOKEN"],
            "pin": Path(variables["BIRTHMARK_PIN_FILE"]).read_text().strip(),
            "label": "device",
        }

        def comes() -> bool:
            with DeviceProcess(arguments, {"SOFTHSM2_CONF": variables["SOFTHSM2_CONF"]}) as device:
                return "ok" in device("connect")

        self.visits[name] = comes
        self._until(name, comes)

    def by_bulk(self, names: list[str]) -> str:
        """Register devices by a file; return the task."""
        folder = self.server.data / "buckets" / "intake"
        folder.mkdir(parents=True, exist_ok=True)
        rows = [{"Name": one, "CSR": base64.b64encode(a_csr(one)).decode()} for one in names]
        (folder / "bulk.json").write_text("\n".join(map(json.dumps, rows)))
        body_ = body("Name", "CSR", CertificateSigningRequest={"Ref": "CSR"})
        given = {"templateBody": body_, "inputFileBucket": "intake", "inputFileKey": "bulk.json", "roleArn": ROLE}
        task: str = self.iot.start_thing_registration_task(**given)["taskId"]
        return task

    def _until(self, name: str, attempt: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            self.attempts += 1
            with contextlib.suppress(OSError, queue.Empty, json.JSONDecodeError, KeyError):
                if attempt():
                    return
            time.sleep(random.uniform(0.05, 0.4))
        raise AssertionError(f"{name} never got through")

    @contextlib.contextmanager
    def _client(self, name: str, files: tuple[Path, Path]) -> Iterator[tuple[paho.Client, "queue.Queue[Any]"]]:
        """Yield a client and what it is told: its connection, subscriptions, messages and its end."""
        heard: queue.Queue[Any] = queue.Queue()
        client = paho.Client(name)
        client.on_connect = lambda _c, _u, _f, code: heard.put(("connected", code))
        client.on_subscribe = lambda *_: heard.put(("subscribed", None))
        client.on_message = lambda _c, _u, message: heard.put((message.topic, message.payload))
        client.on_disconnect = lambda *_: heard.put(("ended", None))
        context = ssl.create_default_context(cafile=self.server.endpoints["trust_bundle"])
        context.load_cert_chain(*files)
        client.tls_set_context(context)
        client.connect(self.server.endpoints["aws"]["data_endpoint"], 8883)
        client.loop_start()
        try:
            yield client, heard
        finally:
            client.disconnect()
            client.loop_stop()

    def _lets_in(self, name: str, files: tuple[Path, Path]) -> bool:
        with self._client(name, files) as (_, heard):
            return bool(heard.get(timeout=ANSWER_S) == ("connected", 0))

    def _is_provisioned(self, name: str, csr: str, key: str | None) -> bool:
        """Go through the claim's steps once; what is lost on the way is asked for anew."""
        claim = self.directory / "claim.pem", self.directory / "claim.key"
        with self._client(name, claim) as (client, heard):
            if heard.get(timeout=ANSWER_S) != ("connected", 0):
                return False
            given = self._asked(client, heard, "$aws/certificates/create-from-csr/json", certificateSigningRequest=csr)
            if given is None:
                return False
            self._write(name, given["certificatePem"], key)
            asked = {"certificateOwnershipToken": given["certificateOwnershipToken"], "parameters": {"Serial": name}}
            return self._asked(client, heard, "$aws/provisioning-templates/fleet/provision/json", **asked) is not None

    def _asked(self, client: paho.Client, heard: "queue.Queue[Any]", topic: str, **asked: Any) -> Any:
        client.subscribe([(f"{topic}/accepted", 1), (f"{topic}/rejected", 1)])
        if heard.get(timeout=ANSWER_S)[0] != "subscribed":
            return None
        client.publish(topic, json.dumps(asked), 1)
        what, payload = heard.get(timeout=ANSWER_S)
        if what == f"{topic}/rejected":
            raise AssertionError(payload.decode())
        return json.loads(payload) if what == f"{topic}/accepted" else None

    # ---- afterwards

    def _principals(self, name: str) -> list[str]:
        arns: list[str] = self.iot.list_thing_principals(thingName=name)["principals"]
        return arns

    def faults(self, names: list[str]) -> list[str]:
        """Return what is not as it should be: each name one thing with one active certificate, nothing half."""
        found = []
        pages = self.iot.get_paginator("list_things").paginate(PaginationConfig={"PageSize": 250})
        things = [one["thingName"] for page in pages for one in page["things"]]
        if sorted(things) != sorted(names):
            found.append(f"things: {sorted(set(names) ^ set(things))[:5]}")
        attached: dict[str, str] = {}
        for name in things:
            arns = self._principals(name)
            if len(arns) == 2 and name in self.visits:  # killed after it was let in: its next connection ends the first
                self._until(name, self.visits[name])
                end = time.monotonic() + ANSWER_S
                while len(arns := self._principals(name)) > 1 and time.monotonic() < end:
                    time.sleep(0.1)
            if len(arns) != 1:
                found.append(f"{name} has {len(arns)} certificates")
            attached |= {arn.rpartition("/")[2]: name for arn in arns}
        pages = self.iot.get_paginator("list_certificates").paginate(PaginationConfig={"PageSize": 250})
        for one in (certificate for page in pages for certificate in page["certificates"]):
            policies = self.iot.list_attached_policies(target=one["certificateArn"])["policies"]
            is_claims = [policy["policyName"] for policy in policies] == ["claims"]
            if one["certificateId"] in attached:
                if one["status"] != "ACTIVE" or len(policies) != 1:
                    found.append(f"{attached[one['certificateId']]}: {one['status']}, {len(policies)} policies")
            elif one["status"] == "ACTIVE" and not is_claims:
                found.append(f"{one['certificateId']} is active and nobody's")
        return found


def come(
    server: RunningServer,
    directory: Path,
    each: int,
    dice: random.Random,
    *,
    kill: Kill = kill_server,
    kills: int = 5,
    tokens: bool = False,
    at_once: int = 12,
) -> dict[str, Any]:
    """Let `each` devices come by each way, while the server is killed; return the figures, and what is wrong."""
    fleet = Fleet(server, directory)
    fleet.prepare()
    names = {way: [f"{way}-{number:03}" for number in range(each)] for way in ("jitp", "claim", "bulk")}
    task = fleet.by_bulk(names["bulk"])
    by_claim = fleet.by_claim_in_token if tokens else fleet.by_claim
    jobs: list[tuple[Callable[[str], None], str]] = [(fleet.by_jitp, one) for one in names["jitp"]]
    jobs += [(by_claim, one) for one in names["claim"]]
    dice.shuffle(jobs)
    began, done_kills = time.monotonic(), 0
    with ThreadPoolExecutor(at_once) as pool:
        running = [pool.submit(way, name) for way, name in jobs]
        while done_kills < kills:
            time.sleep(dice.uniform(0.3, 1.5))
            kill(server, dice)
            done_kills += 1
        problems = [str(one.exception()) for one in running if one.exception() is not None]
    end = time.monotonic() + PATIENCE_S
    while (told := fleet.iot.describe_thing_registration_task(taskId=task))["status"] == "InProgress":
        assert time.monotonic() < end, told
        time.sleep(0.5)
    bulk = told["status"], told["successCount"], told["failureCount"]
    if bulk != ("Completed", each, 0):
        problems.append(f"the bulk registration: {bulk}")
    return {
        "each": each,
        "kills": done_kills,
        "seconds": round(time.monotonic() - began, 1),
        "attempts": fleet.attempts,
        "faults": problems + fleet.faults([one for some in names.values() for one in some]),
    }
