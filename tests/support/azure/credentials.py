"""A device that speaks MQTT by paho, by hand: registration with a certificate request, and requests at its hub."""

import base64
import json
import queue
import ssl
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple, Self

import paho.mqtt.client as paho
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from birthmark.auth.connection_strings import parse_connection_string
from birthmark.testing.cloud import Cloud
from support.azure.sas_tokens import make_sas
from support.pki.pki_builders import Holder
from support.server.servers import RunningServer

ANSWERED_S = 20.0


class Answer(NamedTuple):
    status: int
    rid: str
    body: Any


class Key:
    """A device's key, and requests for it."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())

    def csr(self, name: str) -> str:
        """Return a request in base64 of DER; each is signed anew."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.private, hashes.SHA256())
        return base64.b64encode(made.public_bytes(Encoding.DER)).decode()

    def pem(self) -> bytes:
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Shown(NamedTuple):
    """A certificate with its key, in files."""

    certificate: Path
    key: Path

    @property
    def thumbprint(self) -> str:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes()).fingerprint(hashes.SHA256()).hex()

    @property
    def serial(self) -> int:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes()).serial_number


def kept(directory: Path, chain: list[str], key: Key, name: str = "issued") -> Shown:
    """Keep an issued chain with its key, without the root, as devices do."""
    files = Shown(directory / f"{name}-{uuid.uuid4().hex[:6]}.pem", directory / f"{name}-{uuid.uuid4().hex[:6]}.key")
    parts = [x509.load_der_x509_certificate(base64.b64decode(one)) for one in chain[:-1]]
    files.certificate.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in parts))
    files.key.write_bytes(key.pem())
    return files


def files_of(directory: Path, holder: Holder, name: str = "bootstrap") -> Shown:
    """Keep a certificate of another CA."""
    files = Shown(directory / f"{name}.pem", directory / f"{name}.key")
    files.certificate.write_text(holder.certificate.pem())
    files.key.write_text(holder.key_pem)
    return files


class Device:
    """One connection, to DPS or a hub."""

    def __init__(
        self, server: RunningServer, shown: Shown | None, client_id: str, username: str, password: str | None = None
    ) -> None:
        self._answers: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._granted: queue.Queue[tuple[int, ...]] = queue.Queue()
        self._connected: queue.Queue[int] = queue.Queue()
        self.is_over = False
        self.client = paho.Client(client_id, clean_session=False, protocol=paho.MQTTv311)
        context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        self.client.tls_set_context(context)
        self.client.username_pw_set(username, password)
        self.client.on_connect = lambda *given: self._connected.put(given[3])
        self.client.on_disconnect = lambda *_: setattr(self, "is_over", True)
        self.client.on_subscribe = lambda *given: self._granted.put(tuple(given[3]))
        self.client.on_message = lambda _client, _data, message: self._answers.put((message.topic, message.payload))
        self.client.connect(server.address, 8883, keepalive=60)
        self.client.loop_start()
        self.code = self._connected.get(timeout=ANSWERED_S)

    def __enter__(self) -> Self:
        assert self.code == 0, f"refused: CONNACK {self.code}"
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def subscribe(self, topic: str) -> tuple[int, ...]:
        self.client.subscribe(topic, qos=1)
        return self._granted.get(timeout=ANSWERED_S)

    def publish(self, topic: str, body: object) -> None:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.client.publish(topic, payload, qos=1)

    def answer(self, timeout_s: float = ANSWERED_S) -> Answer:
        topic, payload = self._answers.get(timeout=timeout_s)
        head, _, query = topic.partition("?$rid=")
        return Answer(int(head.rstrip("/").rsplit("/", 1)[1]), query.partition("&")[0], json.loads(payload or b"null"))


def at_dps(server: RunningServer, shown: Shown | None, name: str, password: str | None = None) -> Device:
    scope = server.endpoints["dps"]["id_scope"]
    return Device(server, shown, name, f"{scope}/registrations/{name}/api-version=2025-07-01-preview", password)


def at_hub(server: RunningServer, shown: Shown | None, name: str, password: str | None = None) -> Device:
    host = server.endpoints["iothub"]["host"]
    return Device(server, shown, name, f"{host}/{name}/?api-version=2025-08-01-preview", password)


def register(
    server: RunningServer, shown: Shown | None, name: str, csr: str | None, password: str | None = None
) -> Answer:
    """Register over MQTT; ask once more how it stands, as the SDKs do that were told that it is under way."""
    with at_dps(server, shown, name, password) as device:
        assert device.subscribe("$dps/registrations/res/#") == (1,)
        body = {"registrationId": name} | ({} if csr is None else {"csr": csr})
        device.publish("$dps/registrations/PUT/iotdps-register/?$rid=1", body)
        return device.answer()


def issue(device: Device, name: str, csr: str, rid: str = "7", **more: str) -> tuple[Answer, Answer | None]:
    """Ask the hub for a certificate: return that it is under way, and what came of it."""
    device.publish(f"$iothub/credentials/POST/issueCertificate/?$rid={rid}", {"id": name, "csr": csr, **more})
    first = device.answer()
    return first, device.answer() if first.status == 202 else None


class Operator:
    """The service interfaces, in plain JSON; a header's name has _ for -."""

    def __init__(self, cloud: Cloud, version: str = "2026-11-01") -> None:
        self._cloud, self._version = cloud, version
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = cloud.ca_file

    def __call__(self, text: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        known = parse_connection_string(text)
        token = make_sas(known.host.partition(":")[0], known.key, int(time.time()) + 3600, str(known.policy))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        mark = "&" if "?" in path else "?"
        url = f"https://{known.host}{path}{mark}api-version={self._version}"
        sent = {"Authorization": token, **named}
        answer = self._session.request(method, url, json=body, headers=sent, timeout=30)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.status_code, answer.json() if is_json else answer.text

    def dps(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        return self(self._cloud.provisioning_connection_string, method, path, body, **headers)

    def hub(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        return self(self._cloud.hub_connection_string, method, path, body, **headers)

    def enroll(self, name: str, holder: Holder, **more: object) -> Any:
        """Enroll a device by its certificate, and with what more is said."""
        pair = {"primary": {"certificate": holder.certificate.pem()}}
        body = {"registrationId": name, "attestation": {"type": "x509", "x509": {"clientCertificates": pair}}}
        status, told = self.dps("PUT", f"/enrollments/{name}", body | more)
        assert status == 200, told
        return told

    def thumbprints(self, name: str) -> tuple[str | None, str | None]:
        """Return those of a device of the hub, in lower case."""
        status, told = self.hub("GET", f"/devices/{name}")
        assert status == 200, told
        pair = told["authentication"]["x509Thumbprint"]
        first, second = (pair[place] and pair[place].lower() for place in ("primaryThumbprint", "secondaryThumbprint"))
        return first, second
