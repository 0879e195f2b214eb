"""A small edge runtime: it keeps the gateway's identity, and runs the modules that its configuration names.

    python examples/edge_gateway.py CONFIG ROOT

CONFIG is a config.toml as for `birthmark agent`, ROOT where certificate and key are kept. HUB_HTTPS is the hub's
HOST:PORT, where it is not the hub at 443. As IoT Edge does it,

* it gives `$edgeAgent` and each module an identity at the hub, by the gateway's own certificate;
* it listens, as `$edgeAgent`, to what is desired of it, starts the modules that are named there, and ends the others;
* it goes on with a new certificate when the hub has issued one. Its modules do not notice.

A module is desired as `{"program": "edge_module.py", "proof": "key"}`, or `"certificate"`; its program is found beside
this one.
"""

import asyncio
import base64
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

from azure.iot.device.aio import IoTHubModuleClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from birthmark.agent import AgentDevice, Identity, connect

HERE = Path(__file__).parent
API = "api-version=2021-04-12"


def say(text: str) -> None:
    print(text, flush=True)


def call(identity: Identity, method: str, path: str, body: dict | None = None) -> list | dict:
    """Ask the hub's registry, by the gateway's own certificate."""
    host, _, port = os.environ.get("HUB_HTTPS", identity.hub).partition(":")
    line = http.client.HTTPSConnection(host, int(port or 443), context=identity.ssl_context(), timeout=30)
    with contextlib.closing(line):
        headers = {"Content-Type": "application/json", "If-Match": "*"}
        line.request(method, f"/devices/{identity.device_id}/modules{path}?{API}", json.dumps(body), headers)
        answer = line.getresponse()
        text = answer.read()
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            sys.exit(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text)


def introduced(identity: Identity, module: str, authentication: dict) -> None:
    """Give a module an identity, or another one if it has one."""
    known = [one["moduleId"] for one in call(identity, "GET", "")]
    body = {"deviceId": identity.device_id, "moduleId": module, "managedBy": "iotEdge"}
    if module not in known:
        call(identity, "PUT", f"/{module}", body)
    call(identity, "PUT", f"/{module}", body | {"authentication": authentication})


def by_key(identity: Identity, module: str) -> str:
    """Introduce a module by a key, and return its connection string."""
    key, spare = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))  # noqa: TID251 - a program of its own
    introduced(identity, module, {"type": "sas", "symmetricKey": {"primaryKey": key, "secondaryKey": spare}})
    return f"HostName={identity.hub};DeviceId={identity.device_id};ModuleId={module};SharedAccessKey={key}"


def by_certificate(identity: Identity, module: str, directory: Path) -> dict[str, str]:
    """Introduce a module by a certificate that it signed itself, and return where that and its key are."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, module)])
    now = datetime.now(UTC)  # noqa: TID251 - a program of its own
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365))
        .sign(key, hashes.SHA256())
    )
    pem, encoding = directory / f"{module}.pem", serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.touch(mode=0o600)
    pem.write_bytes(certificate.public_bytes(encoding) + private)
    thumbprint = certificate.fingerprint(hashes.SHA256()).hex().upper()
    introduced(identity, module, {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": thumbprint}})
    return {"X509_CERT_FILE": str(pem), "X509_KEY_FILE": str(pem)}


class Runtime:
    """The modules that run."""

    def __init__(self, device: AgentDevice, directory: Path) -> None:
        self.device = device
        self.directory = directory
        self.running: dict[str, subprocess.Popen] = {}

    def keep_to(self, modules: dict) -> None:
        """Start what is named, and end the others."""
        for name in sorted(self.running.keys() - modules.keys()):
            self.running.pop(name).terminate()
            say(f"{name} ends")
        for name in sorted(modules.keys() - self.running.keys()):
            self.start(name, modules[name])

    def start(self, name: str, wanted: dict) -> None:
        identity = self.device.identity
        environment = {"HUB": identity.hub, "DEVICE": identity.device_id, "MODULE": name}
        if wanted["proof"] == "certificate":
            environment |= by_certificate(identity, name, self.directory)
        else:
            environment["MODULE_CONNECTION_STRING"] = by_key(identity, name)
        program = HERE / Path(wanted["program"]).name
        self.running[name] = subprocess.Popen(  # noqa: S603 - one of those beside this
            [sys.executable, str(program)], env=os.environ | environment
        )
        say(f"{name} starts, and proves itself by a {wanted['proof']}")

    def end(self) -> None:
        self.keep_to({})


async def main(config: str, root: str) -> None:
    loop = asyncio.get_running_loop()
    # Its modules end with it.
    loop.add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    async with connect(config, root=root) as device:
        say(f"certificate {device.identity.thumbprint}")
        runtime = Runtime(device, Path(root))
        agent = IoTHubModuleClient.create_from_connection_string(by_key(device.identity, "$edgeAgent"))
        news: asyncio.Queue[dict] = asyncio.Queue()
        # The SDK calls from a thread of its own.
        agent.on_twin_desired_properties_patch_received = lambda patch: loop.call_soon_threadsafe(
            news.put_nowait, patch
        )
        try:
            await agent.connect()
            await news.put((await agent.get_twin())["desired"])
            renewals = asyncio.create_task(follow(device))
            seen = None
            while not renewals.done():
                patch = await news.get()
                if patch["$version"] == seen:  # the SDK asks for the twin when it connects, too
                    continue
                seen = patch["$version"]
                if isinstance(modules := patch.get("modules"), dict):
                    await asyncio.to_thread(runtime.keep_to, modules)
                    await agent.patch_twin_reported_properties({"running": sorted(runtime.running)})
                say("keeps to its configuration")
        finally:
            runtime.end()
            await agent.shutdown()


async def follow(device: AgentDevice) -> None:
    """Tell of each new certificate, and use it."""
    async for identity in device.renewals():
        modules = await asyncio.to_thread(call, identity, "GET", "")
        say(f"certificate {identity.thumbprint}")
        say(f"asked by it for its modules: {', '.join(sorted(one['moduleId'] for one in modules))}")


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main(*sys.argv[1:3]))
