"""API for tests: a private cloud, and the devices that are registered there.

The vendors' packages are imported on first use, and are not modified.
"""

import base64
import contextlib
import importlib
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.errors import BirthmarkError
from birthmark.operator_api.client.vendor_tool_environment import proxy_bypass_variables, variables
from birthmark.testing.device_identity_model import (
    AwsIdentity,
    AzureIdentity,
    ChipFiles,
    EstIdentity,
    Files,
    Subject,
)
from birthmark.testing.server_process import ServerEndedError
from birthmark.untrusted_json_and_text import printable

if TYPE_CHECKING:
    from birthmark.testing.amqp_device import AmqpDeviceClient

_LOOK_S = 0.02
_MOST = 10_000
_TOLD = 5
_REPORT_S = 0.3
PATIENCE_S = 10.0
"""Default timeout of helpers that wait for a result."""
_HTTPS, _MQTT = 443, 8883
"""Default ports of awsiotsdk, and the fallback ports of a server that may not bind them."""
_FAKETIME = "*/faketime/libfaketime.so.1"
_UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_ENDPOINT_URL", "BIRTHMARK_LOGIN")
_NO_FILES = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
_PACKAGES = {
    "azure.iot.device": "azure-iot-device",
    "azure.iot.hub": "azure-iot-hub",
    "azure.eventhub": "azure-eventhub",
    "provisioningserviceclient": "azure-iothub-provisioningserviceclient",
    "awsiot": "awsiotsdk",
    "boto3": "boto3",
}
"""Package names of the vendors' SDKs, by module."""
_T = TypeVar("_T")


class CloudServer(Protocol):
    """Server behind a cloud: one that the tests start, or an existing one."""

    @property
    def endpoints(self) -> Mapping[str, Any]: ...

    @property
    def is_running(self) -> bool: ...

    @property
    def is_kept(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def ask(self, word: Mapping[str, Any]) -> Mapping[str, Any]: ...


class HasCertificate(Protocol):
    """An object with a certificate file and a key file or key reference.

    Examples are a secure element, a device, and your own files.
    """

    @property
    def certificate_file(self) -> str: ...

    @property
    def key_file(self) -> str: ...


class Cloud:
    """A private server for these tests: DPS, IoT Hub, AWS IoT Core, EST and a CA.

    Every method that creates or breaks something sends a command to the server's process. A refusal is raised as
    `BirthmarkError`, with `code`, `explain_cause()` and `explain_fix()`.
    """

    def __init__(self, server: CloudServer) -> None:
        self._server = server
        self._latest: KitDevice | None = None
        self._names = 0
        self._run = f"{SystemEntropy().token(4).hex()}-" if server.is_kept else ""
        self._last_refusal = ""  # before this test, if the server is not new
        self._is_used = False  # whether it was used, or its address read, since it was new

    @classmethod
    def at(cls, data: Path | str) -> "Cloud":
        """Return the cloud of a running server by its data directory. Raise `ServerNotRunningError`.

        Tests can create, refuse and inspect devices there; their names are new in each run, and they remain. Methods
        that affect other users of the server are refused as `testing.runs_by_itself`: `reset`, `set_clock`, `set_line`,
        `throttle`, and `published`, which reads all messages.
        """
        from birthmark.testing.existing_server import ExistingServer

        return cls(ExistingServer(Path(data)))

    UNSET = _UNSET
    """Environment variables that are unset, because they would redirect programs."""

    # ---- addresses

    @property
    def endpoints(self) -> dict[str, Any]:
        """Endpoints, as in `birthmark env`: `trust_bundle`, `est`, `dps`, `iothub`, `aws`, `health_url`."""
        self._is_used = True
        return dict(self._server.endpoints)

    @property
    def host(self) -> str:
        """Loopback address of the server: the name of its provisioning service, hub and AWS endpoints."""
        return str(self.endpoints["dps"]["host"])

    @property
    def id_scope(self) -> str:
        """ID scope of the provisioning service."""
        return str(self.endpoints["dps"]["id_scope"])

    @property
    def data(self) -> Path:
        """The server's data directory, for `birthmark --data`."""
        return Path(self.endpoints["trust_bundle"]).parent

    @property
    def ca_file(self) -> str:
        """PEM file of its CA only."""
        return str(self.endpoints["trust_bundle"])

    @property
    def ca_pem(self) -> str:
        """The server's CA as PEM: `server_verification_cert` of azure-iot-device."""
        return Path(self.ca_file).read_text()

    @property
    def hub_connection_string(self) -> str:
        """Connection string of the policy `iothubowner`."""
        return str(self.endpoints["iothub"]["service_connection_string"])

    @property
    def event_hub_connection_string(self) -> str:
        """Connection string of the hub's Event Hubs-compatible endpoint."""
        return str(self.endpoints["iothub"]["event_hubs_connection_string"])

    @property
    def provisioning_connection_string(self) -> str:
        """Connection string of the policy `provisioningserviceowner`."""
        return str(self.endpoints["dps"]["service_connection_string"])

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for programs: endpoints, credentials, trust, and proxy exceptions."""
        return variables(self.endpoints) | _NO_FILES | proxy_bypass_variables(self.host, os.environ)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the complete environment of a subprocess: this process's, the cloud's variables, and more."""
        kept = {name: value for name, value in os.environ.items() if name not in _UNSET}
        return {**kept, **self.variables, **more}

    # ---- making

    def begin(self) -> None:
        """Reset the server if it was used, and replace it if it has ended or cannot be reset."""
        if self._server.is_kept:
            self._last_refusal = next((row["id"] for row in self.refusals()), "")
            return
        if self._server.is_running and self._is_used:
            with contextlib.suppress(BirthmarkError, ServerEndedError):
                self.reset()
        if not self._server.is_running or self._is_used:
            self._server.stop()
            self._server.start()
            self._latest, self._names = None, 0
        self._is_used = False

    def reset(self) -> None:
        """Reset the server: remove connections, devices, messages, limits and faults. Addresses and CA remain."""
        self._told({"do": "reset"})
        self._latest, self._names, self._is_used = None, 0, False

    def ask(self, word: str, **members: object) -> dict[str, Any]:
        """Send any command of `birthmark test-server`. Raise `BirthmarkError`."""
        self._is_used = True
        return dict(self._told({"do": word, **members}))

    def azure_device(
        self,
        name: str = "",
        *,
        auth: str = "x509",
        at: str = "dps",
        lasts: str = "1d",
        by: "HasCertificate | None" = None,
        transport: str = "mqtt",
    ) -> "AzureDevice":
        """Enroll a device at the provisioning service, or create it `at` "hub".

        `auth` is "x509", with a self-signed certificate that is valid for `lasts` ("2h"), or "key". With `by`, it
        presents the certificate of a secure element or of another device, and has its common name. `transport` is that
        of its `client`: "mqtt", the vendor's SDK, or "amqp".
        """
        if transport not in {"mqtt", "amqp"}:
            raise ValueError(f'transport is "mqtt" or "amqp", not {transport!r}')
        found = self._shown(by, name, "device")
        made = self.ask("azure-device", auth=auth, at=at, lasts=lasts, **found)
        device = AzureDevice(self, msgspec.convert(made, AzureIdentity), is_in_chip=_is_in_chip(by))
        device.transport = transport
        return self._made(device)

    def aws_thing(
        self,
        name: str = "",
        *,
        policy: str | Mapping[str, Any] = "",
        lasts: str = "1d",
        by: "HasCertificate | None" = None,
    ) -> "AwsThing":
        """Create a thing with an active certificate, or with an existing one, as `azure_device` does.

        An existing certificate is that of a secure element or another device. `policy` is a document, as JSON or as a
        mapping; the default allows everything.
        """
        document = policy if isinstance(policy, str) else json.dumps(policy)
        made = self.ask("aws-thing", policy=document, lasts=lasts, **self._shown(by, name, "thing"))
        return self._made(AwsThing(self, msgspec.convert(made, AwsIdentity), is_in_chip=_is_in_chip(by)))

    def est_identity(self, name: str = "") -> "EstDevice":
        """Create an EST user for a device, and get its first certificate."""
        made = self.ask("est-identity", name=name or self._name("est"))
        return self._made(EstDevice(self, msgspec.convert(made, EstIdentity)))

    def chip(self, name: str = "chip", *, kind: str = "se050") -> ChipFiles:
        """Create a simulated secure element.

        "se050" and "atecc608" are as delivered by the manufacturer; "generic" is empty.
        """
        return msgspec.convert(self.ask("chip", name=name, kind=kind), ChipFiles)

    # ---- faults

    def refuse(self, code: str, device: "KitDevice | None" = None) -> None:
        """Have the server refuse a device with this code from now on; default: the last device created.

        The server is set to a state in which it refuses so. Raise `BirthmarkError` `testing.not_provoked`, which lists
        the supported codes.
        """
        if not isinstance(code, str):
            raise TypeError(f"pass the code first, then the device: refuse({device!r}, device)")
        found = self._of(device)
        found.take(self.ask("refuse", name=found.name, code=code)["device"])

    def expire(self, device: "KitDevice | None" = None) -> None:
        """Make a device's certificate expire.

        An Azure device gets another certificate, which expired an hour ago. For a thing or an EST device, the server's
        clock moves to an hour after the expiry. Requests signed with this machine's time, such as boto3's, are then
        rejected, too.
        """
        found = self._of(device)
        found.take(self.ask("expire", name=found.name))

    def revoke(self, device: "KitDevice | None" = None) -> None:
        """Revoke all credentials of a device, as for a lost one."""
        self.ask("revoke", name=self._of(device).name)

    def set_clock(self, by: str) -> None:
        """Shift the server's clock: "+90d", "-1h", "0"."""
        self.ask("clock", by=by)

    def set_line(self, state: str, after_bytes: int = 0) -> None:
        """Set the connection to the server: "cut", "stall", "break" (after `after_bytes` of devices), or "through"."""
        self.ask("line", state=state, after_bytes=after_bytes)

    def throttle(self, *, lasts: str = "30s", day: bool = False, tier: str = "F1") -> None:
        """Set a tier for hub and provisioning service, and consume its quota for `lasts`.

        With `day`, consume the daily messages as well.
        """
        self.ask("throttle", lasts=lasts, day=day, tier=tier)

    def rollover(self, step: str = "start") -> dict[str, Any]:
        """Perform a step of a root rollover, "start", "next" or "back"; return its state."""
        return self.ask("rollover", step=step)

    # ---- looking

    def messages(
        self, device: "KitDevice | str | None" = None, *, at_least: int = 0, within_s: float = PATIENCE_S
    ) -> list[dict[str, Any]]:
        """Return the messages that arrived at the hub, oldest first: of a device, or all.

        Each has `device`, `enqueued` (ISO 8601), `body` with its `encoding`, `system` and `properties`. With `at_least`
        it waits for that number of messages. Raise `AssertionError` if they do not arrive within `within_s`. Of more
        than ten thousand it returns the latest.
        """
        name = _name_of(device)

        def look() -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = self.ask("messages", name=name, limit=_MOST)["items"]
            return items

        try:
            return _enough(look, at_least, f"messages of {name or 'devices'} at the hub", within_s)
        except AssertionError as error:
            if name and not self.ask("known", name=name)["known"]:
                raise AssertionError(f"{error}; device {name} does not exist") from None
            raise

    def published(
        self,
        topic: str = "",
        *,
        client: "KitDevice | str | None" = None,
        at_least: int = 0,
        within_s: float = PATIENCE_S,
    ) -> list[dict[str, Any]]:
        """Return the messages published to AWS IoT since the first thing was created, as `messages` does.

        Each has `topic`, `body` with its `encoding`, `qos`, `retain`, and the `client` that published it.
        """
        name = _name_of(client)

        def look() -> list[dict[str, Any]]:
            asked = self.ask("messages", name=name, at="aws", topic=topic, limit=_MOST)
            items: list[dict[str, Any]] = asked["items"]
            return items

        return _enough(look, at_least, f"messages at {topic or 'any topic'}", within_s)

    def refusals(self, device: "KitDevice | str | None" = None) -> list[dict[str, Any]]:
        """Return the refusals, latest first: `code`, `message`, `cause`, `fix`, `facts`, `at`, `address`."""
        items: list[dict[str, Any]] = self.ask("why", name=_name_of(device), limit=1000, within_s=0)["items"]
        return items

    def why(
        self, device: "KitDevice | str | None" = None, *, code: str = "", within_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """Return the latest refusal of a device or of any; with `code` the latest with that code.

        It may be recorded shortly after the client's error. Raise `AssertionError` if there is none within `within_s`.
        """
        name = _name_of(device)

        def look() -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = self.ask("why", name=name, code=code, limit=1, within_s=0)["items"]
            return items

        if found := _looked(look, 1, within_s):
            return found[0]
        others = ", ".join(sorted({row["code"] for row in self.refusals()})) or "nothing"
        wanted = f"no request{f' of {name}' if name else ''} was refused{f' as {code}' if code else ''}"
        raise AssertionError(f"within {within_s:g} s {wanted}; codes of other refusals: {others}")

    def format_refusals(self) -> str:
        """Return the refusals of this test as text, latest first; empty if there are none.

        The last refusal may be recorded shortly after the client's error.
        """
        if not self._is_used or not self._server.is_running:
            return ""
        try:
            rows = _looked(self._refused_in_this_test, 1, _REPORT_S)
        except (BirthmarkError, ServerEndedError, OSError):
            return ""
        told: dict[str, int] = {}
        for row in rows:
            facts = ", ".join(f"{name} {value}" for name, value in row["facts"].items())
            lines = [f"{row['code']}: {row['message']}", f"  Why: {row['cause']}", f"  Fix: {row['fix']}"]
            text = "\n".join(map(printable, [*lines, *([f"  Facts: {facts}"] if facts else [])]))
            told[text] = told.get(text, 0) + 1
        shown = [text if count == 1 else f"{text}\n  {count} times" for text, count in told.items()]
        more = [f"and {len(shown) - _TOLD} others"] if len(shown) > _TOLD else []
        return "\n".join([*shown[:_TOLD], *more])

    def _refused_in_this_test(self) -> list[dict[str, Any]]:
        rows = self.refusals()
        known = next((place for place, row in enumerate(rows) if row["id"] == self._last_refusal), len(rows))
        return rows[:known]

    # ---- vendors' operator clients

    def registry(self) -> Any:
        """Return `azure.iot.hub.IoTHubRegistryManager` of the hub."""
        hub = _sdk("azure.iot.hub")
        return hub.IoTHubRegistryManager.from_connection_string(self.hub_connection_string)

    def provisioning(self) -> Any:
        """Return `provisioningserviceclient.ProvisioningServiceClient` of the provisioning service."""
        client = _sdk("provisioningserviceclient").ProvisioningServiceClient
        return client.create_from_connection_string(self.provisioning_connection_string)

    def event_hub_reader(self, consumer_group: str = "$Default", **more: Any) -> Any:
        """Return azure-eventhub's `EventHubConsumerClient` of the hub's telemetry; `more` are the SDK's options."""
        client = _sdk("azure.eventhub").EventHubConsumerClient
        options = {"consumer_group": consumer_group, "connection_verify": self.ca_file, **more}
        return client.from_connection_string(self.event_hub_connection_string, **options)

    def boto3(self, service: str = "iot", **more: Any) -> Any:
        """Return a boto3 client of the account: "iot", "iot-data", "iot-jobs-data"."""
        aws = self.endpoints["aws"]
        given = {
            "endpoint_url": aws["endpoint_url"],
            "region_name": aws["region"],
            "aws_access_key_id": aws["access_key_id"],
            "aws_secret_access_key": aws["secret_access_key"],
            "verify": self.ca_file,
        }
        return _sdk("boto3").client(service, **(given | more))

    # ---- programs

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None, timeout_s: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program in the environment of the cloud and, with `environment`, of a device; it may fail."""
        return subprocess.run(
            command,
            env=self.environment(**(environment or {})),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def birthmark(self, *arguments: str) -> str:
        """Run a `birthmark` command against the server, and return its output. Raise `AssertionError` if it fails."""
        done = self.run(sys.executable, "-c", "from birthmark.cli.app import main; main()", *arguments)
        if done.returncode != 0:
            raise AssertionError(f"birthmark {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    def _made(self, device: _T) -> _T:
        self._latest = device  # type: ignore[assignment] # each is one
        return device

    def _told(self, word: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a command to the server; tracebacks of refusals show the text that `birthmark` prints."""
        try:
            return self._server.ask(word)
        except BirthmarkError as error:
            for note in (f"Why: {error.explain_cause()}", f"Fix: {error.explain_fix()}", f"Code: {error.code}"):
                error.add_note(f"  {note}")
            raise

    def _of(self, device: "KitDevice | None") -> "KitDevice":
        if not isinstance(device, KitDevice | None):
            made = "a device made by azure_device, aws_thing or est_identity"
            raise TypeError(f"a fault requires {made}, not {device!r}")
        if (found := device or self._latest) is None:
            raise AssertionError("no device was created yet: specify one, or use a fixture that creates one")
        return found

    def _shown(self, by: "HasCertificate | None", name: str, kind: str) -> dict[str, str]:
        """Return the command parameters for the certificate that a device presents."""
        if by is None:
            return {"name": name or self._name(kind)}
        from birthmark.pki.certificates import parse_bundle

        assert by.certificate_file, "it has no certificate, by which a device would be known"
        common_name = ""
        with contextlib.suppress(OSError, ValueError, BirthmarkError):  # the server reports the error
            common_name = parse_bundle(Path(by.certificate_file).read_bytes())[0].subject_cn or ""
        files = {"certificate_file": by.certificate_file, "key_file": by.key_file}
        absolute = {which: str(Path(file).absolute()) if file else "" for which, file in files.items()}
        return {"name": name or common_name or self._name(kind), **absolute}

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}-{self._run}{self._names}"


class KitDevice:
    """A device or identity that the server can refuse."""

    identity: Subject

    def __init__(self, cloud: Cloud, identity: Subject, *, is_in_chip: bool = False) -> None:
        self.cloud = cloud
        self.identity = identity
        self.is_in_chip = is_in_chip

    @property
    def name(self) -> str:
        """Name on the server: registration id and device id, or thing and expected client id."""
        return self.identity.name

    @property
    def certificate_file(self) -> str:
        return _files(self.identity.files).certificate_file

    @property
    def key_file(self) -> str:
        return _files(self.identity.files).key_file

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a subprocess that is this device.

        Azure: the names of Microsoft's samples, `X509_CERT_FILE`, …; AWS: `AWS_IOT_ENDPOINT`, `THING_NAME`,
        `CERT_FILE`, `KEY_FILE`, …; EST: `EST_URL`, `EST_USERNAME`, `EST_PASSWORD`, `CERT_FILE`, …
        """
        return self.cloud.environment(**{**self.identity.environment, **more})

    def _check_for_sdk(self) -> None:
        """Raise `AssertionError` if an SDK in this process would get a file that only references the key."""
        program = "a program by `birthmark chip exec`, with environment(**chip.environment)"
        assert not self.is_in_chip, f"its key is in a chip, which this process does not see: run {program}"

    def take(self, made: Mapping[str, Any]) -> None:
        """Apply the result of the server."""
        self.identity = msgspec.convert(made, type(self.identity))

    def why(self, code: str = "", *, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """Return its latest refusal; see `Cloud.why`."""
        return self.cloud.why(self, code=code, within_s=within_s)


class AzureDevice(KitDevice):
    """A device at the provisioning service or hub, with its certificate or key."""

    identity: AzureIdentity
    transport: str = "mqtt"

    @property
    def symmetric_key(self) -> str:
        """Symmetric key in base64."""
        return self.identity.symmetric_key or ""

    @property
    def connection_string(self) -> str:
        """Connection string of a device created at the hub; empty for a device that registers."""
        return self.identity.connection_string or ""

    def messages(self, at_least: int = 0) -> list[dict[str, Any]]:
        """Return the messages of this device; see `Cloud.messages`."""
        return self.cloud.messages(self, at_least=at_least)

    def provisioning_client(self, *, is_async: bool = False, **more: Any) -> Any:
        """Return azure-iot-device's `ProvisioningDeviceClient` for this device."""
        kind = _sdk("azure.iot.device.aio" if is_async else "azure.iot.device").ProvisioningDeviceClient
        place = {
            "provisioning_host": self.identity.provisioning_host,
            "registration_id": self.identity.registration_id,
            "id_scope": self.identity.id_scope,
        }
        if self.identity.auth == "x509":
            return kind.create_from_x509_certificate(**place, x509=self._x509(), **more)
        return kind.create_from_symmetric_key(**place, symmetric_key=self.symmetric_key, **more)

    def register(self) -> Any:
        """Register, and return the SDK's result; a refusal raises the SDK's exception."""
        return self.provisioning_client().register()

    def client(self, *, is_async: bool = False, **more: Any) -> Any:
        """Return azure-iot-device's `IoTHubDeviceClient` for this device, not connected; `more` are the SDK's options.

        Register a device of the provisioning service first. With `transport="amqp"`, return an `AmqpDeviceClient`.
        """
        if self.transport == "amqp":
            if is_async or more.keys() - {"wait_s"}:
                raise TypeError('of a device with transport="amqp", the client has the option wait_s only')
            return self.amqp_client(**more)
        kind = _sdk("azure.iot.device.aio" if is_async else "azure.iot.device").IoTHubDeviceClient
        more = {"server_verification_cert": self.cloud.ca_pem, **more}
        if self.identity.auth == "x509":
            host, device = self.identity.hub_host, self.identity.device_id
            return kind.create_from_x509_certificate(x509=self._x509(), hostname=host, device_id=device, **more)
        hub, key = self.identity.hub_host, self.symmetric_key
        string = self.connection_string or f"HostName={hub};DeviceId={self.name};SharedAccessKey={key}"
        return kind.create_from_connection_string(string, **more)

    def amqp_client(self, *, wait_s: float = PATIENCE_S) -> "AmqpDeviceClient":
        """Return a client of this device over AMQP, not connected; each call waits for the hub up to `wait_s`."""
        from birthmark.testing.amqp_device import AmqpDeviceClient

        self._check_for_sdk()
        context = ssl.create_default_context(cafile=self.cloud.ca_file)
        is_by_key = self.identity.auth != "x509"
        if not is_by_key:
            context.load_cert_chain(self.certificate_file, self.key_file)
        port = self.cloud.endpoints["iothub"]["amqps_port"]
        assert port, "this server has no port of AMQP: another program has it, or this user may not bind it"
        key = base64.b64decode(self.symmetric_key) if is_by_key else None
        return AmqpDeviceClient(
            self.identity.hub_host, self.identity.device_id, context, key, port=int(port), wait_s=wait_s
        )

    def _x509(self) -> Any:
        self._check_for_sdk()
        return _sdk("azure.iot.device").X509(self.certificate_file, self.key_file)


class AwsThing(KitDevice):
    """A thing and its certificate."""

    identity: AwsIdentity

    @property
    def endpoint(self) -> str:
        """The host of `iot:Data-ATS`."""
        return self.identity.endpoint

    def connection(self, **more: Any) -> Any:
        """Return an unconnected `awscrt.mqtt.Connection` of awsiotsdk; `more` are options of its builder."""
        return _sdk("awsiot.mqtt_connection_builder").mtls_from_path(**{**self._given(), **more})

    def client5(self, **more: Any) -> Any:
        """Return awsiotsdk's `awscrt.mqtt5.Client` for this device, not started; `more` are options of its builder."""
        return _sdk("awsiot.mqtt5_client_builder").mtls_from_path(**{**self._given(), **more})

    def _given(self) -> dict[str, Any]:
        self._check_for_sdk()
        return {
            "endpoint": self.endpoint,
            "cert_filepath": self.certificate_file,
            "pri_key_filepath": self.key_file,
            "ca_filepath": self.cloud.ca_file,
            "client_id": self.name,
            **({} if self.cloud.endpoints["iothub"]["https_port"] == _HTTPS else {"port": _MQTT}),
        }


class EstDevice(KitDevice):
    """A device with a certificate of the server's CA, and its EST user."""

    identity: EstIdentity

    @property
    def url(self) -> str:
        """URL up to `/.well-known/est`."""
        return self.identity.url


def _is_in_chip(by: "HasCertificate | None") -> bool:
    return isinstance(by, ChipFiles) or (isinstance(by, KitDevice) and by.is_in_chip)


def clock_of_a_device(by: str) -> dict[str, str]:
    """Return environment variables that shift a subprocess's clock: "-2y", "+90d". Raise `AssertionError`.

    Requires libfaketime (Debian package `faketime`).
    """
    found = sorted(Path("/usr/lib").glob(_FAKETIME))
    assert found, "a device's clock is off by libfaketime, which is not installed: apt-get install faketime"
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": by, "DONT_FAKE_MONOTONIC": "1"}


def _files(files: Files | None) -> Files:
    assert files is not None, "this device has a key but no certificate: request auth='x509'"
    return files


def _name_of(device: "KitDevice | str | None") -> str:
    return device.name if isinstance(device, KitDevice) else device or ""


def _sdk(module: str) -> Any:
    """Return a vendor's module. Raise `ModuleNotFoundError` with the name of the missing package."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        known = next(name for name in _PACKAGES if module == name or module.startswith(f"{name}."))
        if not f"{known}.".startswith(f"{error.name}."):
            raise  # a dependency
        package = _PACKAGES[known]
        told = f"{package} is not in this environment, and birthmark[pytest] leaves it to you: `pip install {package}`"
        raise ModuleNotFoundError(told, name=error.name) from error


def _enough(look: Callable[[], list[_T]], at_least: int, what: str, within_s: float) -> list[_T]:
    """Poll until there are `at_least` results. Raise `AssertionError` after `within_s`."""
    found = _looked(look, at_least, within_s)
    if len(found) < at_least:
        those = f"; at last {found[-_TOLD:]}" if found else ""
        raise AssertionError(f"within {within_s:g} s, only {len(found)} of {at_least} {what} were found{those}")
    return found


def _looked(look: Callable[[], list[_T]], at_least: int, within_s: float) -> list[_T]:
    clock = SystemClock()
    deadline = clock.monotonic() + within_s
    while len(found := look()) < at_least and clock.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return found


__all__: Sequence[str] = ("AwsThing", "AzureDevice", "BirthmarkError", "ChipFiles", "Cloud", "EstDevice", "KitDevice")


# Names of version 0.3.0
ChipMade = ChipFiles
Device = KitDevice
Server = CloudServer
