"""What tests hold: a cloud of their own, and the devices that are on record there.

The vendors' packages are loaded where something of theirs is asked for, and are as they were installed.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from birthmark.clock import SystemClock, SystemEntropy
from birthmark.errors import BirthmarkError
from birthmark.operator_api.environment import past_proxies, variables
from birthmark.testing.model import AwsIdentity, AzureIdentity, ChipFiles, EstIdentity, Files, Subject
from birthmark.testing.process import ServerEndedError
from birthmark.untrusted_text import printable

_LOOK_S = 0.02
_MOST = 10_000
_TOLD = 5
_REPORT_S = 0.3
PATIENCE_S = 10.0
"""How long a helper waits for what is to come."""
_HTTPS, _MQTT = 443, 8883
"""Where awsiotsdk connects by itself, and where else a server is that may not bind that."""
_FAKETIME = "*/faketime/libfaketime.so.1"
_UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_ENDPOINT_URL", "BIRTHMARK_LOGIN")
_NO_FILES = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
_PACKAGES = {
    "azure.iot.device": "azure-iot-device",
    "azure.iot.hub": "azure-iot-hub",
    "provisioningserviceclient": "azure-iothub-provisioningserviceclient",
    "awsiot": "awsiotsdk",
    "boto3": "boto3",
}
"""What the vendors call what they ship, by the module that is in it."""
_T = TypeVar("_T")


class CloudServer(Protocol):
    """What a cloud asks: one that the tests started, or one that runs by itself."""

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
    """What has a certificate in a file, and its key, or what names it: a chip, a device, files of your own."""

    @property
    def certificate_file(self) -> str: ...

    @property
    def key_file(self) -> str: ...


class Cloud:
    """A server that is these tests' alone: DPS, IoT Hub, AWS IoT Core, EST and a CA.

    Every method that makes or breaks something asks the server's process; a refusal is raised as `BirthmarkError`,
    with `code`, `explain_cause()` and `explain_fix()`.
    """

    def __init__(self, server: CloudServer) -> None:
        self._server = server
        self._latest: KitDevice | None = None
        self._names = 0
        self._run = f"{SystemEntropy().token(4).hex()}-" if server.is_kept else ""
        self._last_refusal = ""  # before this test, where the server is not as new
        self._is_used = False  # whether anybody asked it anything, or how to reach it, since it was new

    @classmethod
    def at(cls, data: Path | str) -> "Cloud":
        """Return the cloud of a server that runs by itself, by its data directory. Raise `ServerNotRunningError`.

        Devices are made there, refused there and looked at; their names are new in each run, and they stay. What would
        change the server for others is refused as `testing.runs_by_itself`: `reset`, `set_clock`, `set_line`,
        `throttle`, and `published`, which looks at everybody's.
        """
        from birthmark.testing.existing_server import StandingServer

        return cls(StandingServer(Path(data)))

    UNSET = _UNSET
    """Variables that would lead programs elsewhere."""

    # ---- how to reach it

    @property
    def endpoints(self) -> dict[str, Any]:
        """How to reach it: `trust_bundle`, `est`, `dps`, `iothub`, `aws`, `health_url`, as `birthmark env` has it."""
        self._is_used = True
        return dict(self._server.endpoints)

    @property
    def host(self) -> str:
        """Its loopback address, which is the name of its provisioning service, hub and AWS endpoints."""
        return str(self.endpoints["dps"]["host"])

    @property
    def id_scope(self) -> str:
        """Of its provisioning service."""
        return str(self.endpoints["dps"]["id_scope"])

    @property
    def data(self) -> Path:
        """Its data directory, for `birthmark --data`."""
        return Path(self.endpoints["trust_bundle"]).parent

    @property
    def ca_file(self) -> str:
        """The PEM file of its CA alone."""
        return str(self.endpoints["trust_bundle"])

    @property
    def ca_pem(self) -> str:
        """Its CA, as PEM: `server_verification_cert` of azure-iot-device."""
        return Path(self.ca_file).read_text()

    @property
    def hub_connection_string(self) -> str:
        """Of the policy `iothubowner`."""
        return str(self.endpoints["iothub"]["service_connection_string"])

    @property
    def provisioning_connection_string(self) -> str:
        """Of the policy `provisioningserviceowner`."""
        return str(self.endpoints["dps"]["service_connection_string"])

    @property
    def variables(self) -> dict[str, str]:
        """The variables by which programs reach it: endpoints, credentials, trust, and past which proxies."""
        return variables(self.endpoints) | _NO_FILES | past_proxies(self.host, os.environ)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the whole environment of a subprocess: this process's, its variables, and more."""
        kept = {name: value for name, value in os.environ.items() if name not in _UNSET}
        return {**kept, **self.variables, **more}

    # ---- making

    def begin(self) -> None:
        """Have it as new where it was used, and another one where it has ended or cannot be as new."""
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
        """Have it as new: connections, devices, messages, limits and faults are gone. Addresses and CA stay."""
        self._told({"do": "reset"})
        self._latest, self._names, self._is_used = None, 0, False

    def ask(self, word: str, **members: object) -> dict[str, Any]:
        """Ask it anything that `birthmark test-server` understands. Raise `BirthmarkError`."""
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
    ) -> "AzureDevice":
        """Put a device on record at the provisioning service, or `at` "hub".

        `auth` is "x509", with a certificate of its own that `lasts` so long ("2h"), or "key". It shows the certificate
        of a chip or of another device where it is `by` that, and has its common name.
        """
        found = self._shown(by, name, "device")
        made = self.ask("azure-device", auth=auth, at=at, lasts=lasts, **found)
        return self._made(AzureDevice(self, msgspec.convert(made, AzureIdentity), is_in_chip=_is_in_chip(by)))

    def aws_thing(
        self,
        name: str = "",
        *,
        policy: str | Mapping[str, Any] = "",
        lasts: str = "1d",
        by: "HasCertificate | None" = None,
    ) -> "AwsThing":
        """Make a thing with an active certificate, or with that of a chip or another device, as `azure_device` does.

        `policy` is a document, as JSON or as it is before; without one it may do everything.
        """
        document = policy if isinstance(policy, str) else json.dumps(policy)
        made = self.ask("aws-thing", policy=document, lasts=lasts, **self._shown(by, name, "thing"))
        return self._made(AwsThing(self, msgspec.convert(made, AwsIdentity), is_in_chip=_is_in_chip(by)))

    def est_identity(self, name: str = "") -> "EstDevice":
        """Make an EST user of a device, and get its first certificate."""
        made = self.ask("est-identity", name=name or self._name("est"))
        return self._made(EstDevice(self, msgspec.convert(made, EstIdentity)))

    def chip(self, name: str = "chip", *, kind: str = "se050") -> ChipFiles:
        """Make a software chip: "se050" or "atecc608" as its maker sells it, or "generic", which has nothing on it."""
        return msgspec.convert(self.ask("chip", name=name, kind=kind), ChipFiles)

    # ---- faults

    def refuse(self, code: str, device: "KitDevice | None" = None) -> None:
        """Have a device refused with this code from now on; without one, the device that was made last.

        The server is brought into the state where it refuses so. Raise `BirthmarkError` `testing.not_provoked`, which
        lists what can be.
        """
        if not isinstance(code, str):
            raise TypeError(f"pass the code first, then the device: refuse({device!r}, device)")
        found = self._of(device)
        found.take(self.ask("refuse", name=found.name, code=code)["device"])

    def expire(self, device: "KitDevice | None" = None) -> None:
        """Have the certificate of a device be over.

        An Azure device has another one then, which ended an hour ago. For a thing or an EST device the server's clock
        goes an hour past the end: what is signed with this machine's time, such as boto3's requests, is refused too.
        """
        found = self._of(device)
        found.take(self.ask("expire", name=found.name))

    def revoke(self, device: "KitDevice | None" = None) -> None:
        """Take everything of a device back, as for one that was lost."""
        self.ask("revoke", name=self._of(device).name)

    def set_clock(self, by: str) -> None:
        """Put the server's clock off: "+90d", "-1h", "0"."""
        self.ask("clock", by=by)

    def set_line(self, state: str, after_bytes: int = 0) -> None:
        """Have the line to the server "cut", "stall", "break" (`after_bytes` of devices), or let all "through"."""
        self.ask("line", state=state, after_bytes=after_bytes)

    def throttle(self, *, lasts: str = "30s", day: bool = False, tier: str = "F1") -> None:
        """Give hub and provisioning service a tier, and use it up for so long; with `day` the day's messages, too."""
        self.ask("throttle", lasts=lasts, day=day, tier=tier)

    def rollover(self, step: str = "start") -> dict[str, Any]:
        """Exchange the root of the CA: "start", "next" or "back"; return how it stands."""
        return self.ask("rollover", step=step)

    # ---- looking

    def messages(
        self, device: "KitDevice | str | None" = None, *, at_least: int = 0, within_s: float = PATIENCE_S
    ) -> list[dict[str, Any]]:
        """Return what arrived at the hub, the oldest first: of a device, or of all.

        Each has `device`, `enqueued` (ISO 8601), `body` with its `encoding`, `system` and `properties`. With
        `at_least` it waits until there are so many. Raise `AssertionError` where that is not `within_s`. Of more than
        ten thousand it returns the latest.
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
        """Return what was published at AWS IoT since the first thing was made, as `messages` does.

        Each has `topic`, `body` with its `encoding`, `qos`, `retain`, and the `client` that published it.
        """
        name = _name_of(client)

        def look() -> list[dict[str, Any]]:
            asked = self.ask("messages", name=name, at="aws", topic=topic, limit=_MOST)
            items: list[dict[str, Any]] = asked["items"]
            return items

        return _enough(look, at_least, f"messages at {topic or 'any topic'}", within_s)

    def refusals(self, device: "KitDevice | str | None" = None) -> list[dict[str, Any]]:
        """Return what was refused, the latest first: `code`, `message`, `cause`, `fix`, `facts`, `at`, `address`."""
        items: list[dict[str, Any]] = self.ask("why", name=_name_of(device), limit=1000, within_s=0)["items"]
        return items

    def why(
        self, device: "KitDevice | str | None" = None, *, code: str = "", within_s: float = PATIENCE_S
    ) -> dict[str, Any]:
        """Return the latest refusal, of a device or of any; with `code` the latest of that code.

        It may be written a moment after the client saw its error. Raise `AssertionError` where there is none in time.
        """
        name = _name_of(device)

        def look() -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = self.ask("why", name=name, code=code, limit=1, within_s=0)["items"]
            return items

        if found := _looked(look, 1, within_s):
            return found[0]
        others = ", ".join(sorted({row["code"] for row in self.refusals()})) or "nothing"
        wanted = f"nothing{f' of {name}' if name else ''} was refused{f' as {code}' if code else ''}"
        raise AssertionError(f"within {within_s:g} s {wanted}; refused was {others}")

    def format_refusals(self) -> str:
        """Return what was refused during this test as text, the latest first; empty where nothing was.

        The last refusal may be written a moment after the client saw its error.
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

    # ---- the vendors' clients of operators

    def registry(self) -> Any:
        """Return `azure.iot.hub.IoTHubRegistryManager` of the hub."""
        hub = _sdk("azure.iot.hub")
        return hub.IoTHubRegistryManager.from_connection_string(self.hub_connection_string)

    def provisioning(self) -> Any:
        """Return `provisioningserviceclient.ProvisioningServiceClient` of the provisioning service."""
        client = _sdk("provisioningserviceclient").ProvisioningServiceClient
        return client.create_from_connection_string(self.provisioning_connection_string)

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
        """Run a command of `birthmark` against it, and return what it prints. Raise `AssertionError` where it fails."""
        done = self.run(sys.executable, "-c", "from birthmark.cli.app import main; main()", *arguments)
        if done.returncode != 0:
            raise AssertionError(f"birthmark {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    def _made(self, device: _T) -> _T:
        self._latest = device  # type: ignore[assignment] # each is one
        return device

    def _told(self, word: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask the server; what it refuses has in a traceback what `birthmark` prints of it."""
        try:
            return self._server.ask(word)
        except BirthmarkError as error:
            for note in (f"Why: {error.explain_cause()}", f"Fix: {error.explain_fix()}", f"Code: {error.code}"):
                error.add_note(f"  {note}")
            raise

    def _of(self, device: "KitDevice | None") -> "KitDevice":
        if not isinstance(device, KitDevice | None):
            made = "a device made by azure_device, aws_thing or est_identity"
            raise TypeError(f"a fault needs {made}, not {device!r}")
        if (found := device or self._latest) is None:
            raise AssertionError("no device was created yet: specify one, or use a fixture that creates one")
        return found

    def _shown(self, by: "HasCertificate | None", name: str, kind: str) -> dict[str, str]:
        """Return the members of a word that say who a device is."""
        if by is None:
            return {"name": name or self._name(kind)}
        from birthmark.pki.certificates import parse_bundle

        assert by.certificate_file, "it has no certificate, by which a device would be known"
        common_name = ""
        with contextlib.suppress(OSError, ValueError, BirthmarkError):  # the server says what is wrong with it
            common_name = parse_bundle(Path(by.certificate_file).read_bytes())[0].subject_cn or ""
        files = {"certificate_file": by.certificate_file, "key_file": by.key_file}
        absolute = {which: str(Path(file).absolute()) if file else "" for which, file in files.items()}
        return {"name": name or common_name or self._name(kind), **absolute}

    def _name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}-{self._run}{self._names}"


class KitDevice:
    """Something with a name and an identity that may be refused."""

    identity: Subject

    def __init__(self, cloud: Cloud, identity: Subject, *, is_in_chip: bool = False) -> None:
        self.cloud = cloud
        self.identity = identity
        self.is_in_chip = is_in_chip

    @property
    def name(self) -> str:
        """How the server calls it: registration id and device id, or thing and expected client id."""
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
        """Raise `AssertionError` where an SDK in this process would get a file that only names the key."""
        program = "a program by `birthmark chip exec`, with environment(**chip.environment)"
        assert not self.is_in_chip, f"its key is in a chip, which this process does not see: run {program}"

    def take(self, made: Mapping[str, Any]) -> None:
        """Be what the server made of it."""
        self.identity = msgspec.convert(made, type(self.identity))

    def why(self, code: str = "", *, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """Return why it was refused last; see `Cloud.why`."""
        return self.cloud.why(self, code=code, within_s=within_s)


class AzureDevice(KitDevice):
    """A device at the provisioning service or hub, with its certificate or key."""

    identity: AzureIdentity

    @property
    def symmetric_key(self) -> str:
        """Base64."""
        return self.identity.symmetric_key or ""

    @property
    def connection_string(self) -> str:
        """Of a device that was made at the hub; empty for one that registers."""
        return self.identity.connection_string or ""

    def messages(self, at_least: int = 0) -> list[dict[str, Any]]:
        """Return what arrived of it; see `Cloud.messages`."""
        return self.cloud.messages(self, at_least=at_least)

    def provisioning_client(self, *, is_async: bool = False, **more: Any) -> Any:
        """Return azure-iot-device's `ProvisioningDeviceClient` of it."""
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
        """Register, and return the SDK's result; an exception of the SDK where it is refused."""
        return self.provisioning_client().register()

    def client(self, *, is_async: bool = False, **more: Any) -> Any:
        """Return azure-iot-device's `IoTHubDeviceClient` of it, not connected; `more` are the SDK's options.

        A device of the provisioning service is to register first.
        """
        kind = _sdk("azure.iot.device.aio" if is_async else "azure.iot.device").IoTHubDeviceClient
        more = {"server_verification_cert": self.cloud.ca_pem, **more}
        if self.identity.auth == "x509":
            host, device = self.identity.hub_host, self.identity.device_id
            return kind.create_from_x509_certificate(x509=self._x509(), hostname=host, device_id=device, **more)
        hub, key = self.identity.hub_host, self.symmetric_key
        string = self.connection_string or f"HostName={hub};DeviceId={self.name};SharedAccessKey={key}"
        return kind.create_from_connection_string(string, **more)

    def _x509(self) -> Any:
        self._check_for_sdk()
        return _sdk("azure.iot.device").X509(self.certificate_file, self.key_file)


class AwsThing(KitDevice):
    """A thing, and the certificate by which it connects."""

    identity: AwsIdentity

    @property
    def endpoint(self) -> str:
        """The host of `iot:Data-ATS`."""
        return self.identity.endpoint

    def connection(self, **more: Any) -> Any:
        """Return awsiotsdk's `awscrt.mqtt.Connection` of it, not connected; `more` are options of its builder."""
        return _sdk("awsiot.mqtt_connection_builder").mtls_from_path(**{**self._given(), **more})

    def client5(self, **more: Any) -> Any:
        """Return awsiotsdk's `awscrt.mqtt5.Client` of it, not started; `more` are options of its builder."""
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
        """Up to `/.well-known/est`."""
        return self.identity.url


def _is_in_chip(by: "HasCertificate | None") -> bool:
    return isinstance(by, ChipFiles) or (isinstance(by, KitDevice) and by.is_in_chip)


def clock_of_a_device(by: str) -> dict[str, str]:
    """Return variables by which a subprocess believes another time: "-2y", "+90d". Raise `AssertionError`.

    It is libfaketime that does it, of Debian's package `faketime`.
    """
    found = sorted(Path("/usr/lib").glob(_FAKETIME))
    assert found, "a device's clock is off by libfaketime, which is not installed: apt-get install faketime"
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": by, "DONT_FAKE_MONOTONIC": "1"}


def _files(files: Files | None) -> Files:
    assert files is not None, "this device has a key and no certificate: ask for auth='x509'"
    return files


def _name_of(device: "KitDevice | str | None") -> str:
    return device.name if isinstance(device, KitDevice) else device or ""


def _sdk(module: str) -> Any:
    """Return a module of a vendor. Raise `ModuleNotFoundError` that names its package where that is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        known = next(name for name in _PACKAGES if module == name or module.startswith(f"{name}."))
        if not f"{known}.".startswith(f"{error.name}."):
            raise  # one that theirs needs
        package = _PACKAGES[known]
        told = f"{package} is not in this environment, and birthmark[pytest] leaves it to you: `pip install {package}`"
        raise ModuleNotFoundError(told, name=error.name) from error


def _enough(look: Callable[[], list[_T]], at_least: int, what: str, within_s: float) -> list[_T]:
    """Look until there are so many. Raise `AssertionError` where there are not in time."""
    found = _looked(look, at_least, within_s)
    if len(found) < at_least:
        those = f"; at last {found[-_TOLD:]}" if found else ""
        raise AssertionError(f"within {within_s:g} s there were {len(found)} of {at_least} {what}{those}")
    return found


def _looked(look: Callable[[], list[_T]], at_least: int, within_s: float) -> list[_T]:
    clock = SystemClock()
    deadline = clock.monotonic() + within_s
    while len(found := look()) < at_least and clock.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return found


__all__: Sequence[str] = ("AwsThing", "AzureDevice", "BirthmarkError", "ChipFiles", "Cloud", "EstDevice", "KitDevice")
