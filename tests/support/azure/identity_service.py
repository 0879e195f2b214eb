"""IoT Edge's identity service, as it speaks to the clouds: its requests, and what it insists on in an answer.

Read in Azure/iot-identity-service 1.6.0 (`aziot-cloud-client-async`, `http-common`, `aziot-identityd`), not run. It
speaks HTTPS, with a client certificate or a token of 30 seconds. The trust bundle that its clients ask it for is its
own: no request goes to a cloud for it.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from birthmark.auth.connection_strings import parse_connection_string
from support.server.servers import RunningServer

_SEGMENT = "!$&'()*+,/:;@[\\]^|%~"
"""What it leaves as it is in a path and in a token's resource; `=` is not of it."""
_DPS, _HUB = "2021-06-01", "2017-11-08-preview"


class CloudError(Exception):
    """What it makes of an answer that is none of those it expects."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Proof:
    """A shared key, or a certificate with its key."""

    key: bytes | None = None
    certificate: Path | None = None
    private_key: Path | None = None


@dataclass(frozen=True)
class Module:
    """A module, as it reads one."""

    device_id: str
    module_id: str
    generation_id: str | None
    managed_by: str | None
    keys: tuple[str | None, str | None] | None


class IdentityService:
    """One device's. `key_of_name` is the master key from which it derives those of its modules."""

    def __init__(self, server: RunningServer, proof: Proof, device_id: str) -> None:
        self.server, self.proof, self.device_id = server, proof, device_id
        hub = parse_connection_string(server.environment["IOTHUB_CONNECTION_STRING"]).host
        self.hub, _, port = hub.partition(":")
        self.port = int(port or 443)
        self.scope: str = server.endpoints["dps"]["id_scope"]

    # Provisioning.

    def provision(self, registration_id: str, payload: Any = None, *, version: str = _DPS) -> dict[str, Any]:
        """Register and ask until it is assigned; return `registrationState`. Raise `CloudError`."""
        at = f"/{self.scope}/registrations/{registration_id}"
        body = {"registrationId": registration_id} | ({} if payload is None else {"payload": payload})
        token = self.token(f"{self.scope}/registrations/{registration_id}", "registration")
        asked = self.parsed(self.ask("PUT", f"{at}/register", version, token, body), {202}, _service_error)
        assert isinstance(asked["operationId"], str)
        for _ in range(20):
            answer = self.ask("GET", f"{at}/operations/{asked['operationId']}", version, token)
            told = self.parsed(answer, {200, 202}, _service_error)
            state = told["registrationState"]
            match told["status"]:  # which names the shape of what is beside it
                case "assigned":
                    assert isinstance(state["assignedHub"], str)
                    assert isinstance(state["deviceId"], str)
                    assert state.get("tpm") is None or isinstance(state["tpm"]["authenticationKey"], str)
                    return dict(state)
                case "assigning":
                    assert isinstance(state["registrationId"], str)
                case status:
                    assert status == "failed"
                    raise CloudError(200, _service_error(state))
            time.sleep(0.1)
        raise AssertionError("never assigned")

    # Modules.

    def modules(self) -> list[Module]:
        return [_module(one) for one in self.of_hub("GET", "", {200})]

    def module(self, module_id: str) -> Module:
        return _module(self.of_hub("GET", module_id, {200}))

    def make(self, module_id: str) -> Module:
        """Make it without any proof, derive its keys from its generation, and give it those."""
        return self._keyed(_module(self.of_hub("PUT", module_id, {200}, self._body(module_id))))

    def rekey(self, module_id: str) -> Module:
        return self._keyed(self.module(module_id))

    def remove(self, module_id: str) -> None:
        self.of_hub("DELETE", module_id, {204}, if_match="*")

    def derived(self, module: Module) -> tuple[str, str]:
        """Return the keys of a module: of another generation they are others."""
        assert module.generation_id, "the keys are derived from it"
        names = (f"{module.module_id}:{module.generation_id}:{which}" for which in ("primary", "secondary"))
        first, second = (hmac.digest(b"master", name.encode(), hashlib.sha256) for name in names)
        return base64.b64encode(first).decode(), base64.b64encode(second).decode()

    def _keyed(self, module: Module) -> Module:
        first, second = self.derived(module)
        proof = {"symmetricKey": {"primaryKey": first, "secondaryKey": second}, "type": "sas"}
        body = self._body(module.module_id) | {"authentication": proof}
        return _module(self.of_hub("PUT", module.module_id, {200}, body, if_match="*"))

    def _body(self, module_id: str) -> dict[str, Any]:
        return {"moduleId": module_id, "deviceId": self.device_id}

    # The wire.

    def of_hub(self, method: str, module_id: str, expected: set[int], body: Any = None, if_match: str = "") -> Any:
        """Ask about its modules. Raise `CloudError`."""
        path = f"/devices/{quote(self.device_id, safe=_SEGMENT)}/modules"
        path += f"/{quote(module_id, safe=_SEGMENT)}" if module_id else ""
        headers = {"If-Match": if_match} if if_match else {}
        token = self.token(f"{self.hub}/devices/{self.device_id}")
        return self.parsed(self.ask(method, path, _HUB, token, body, **headers), expected, _hub_error)

    def token(self, resource: str, policy: str = "", lifetime_s: int = 30) -> str | None:
        """Return a token as it writes one: lower case, slashes as they are; None for a certificate."""
        if self.proof.key is None:
            return None
        where, end = quote(resource.lower(), safe=_SEGMENT), str(int(time.time()) + lifetime_s)
        signature = base64.b64encode(hmac.digest(self.proof.key, f"{where}\n{end}".encode(), hashlib.sha256)).decode()
        more = {"sig": signature, "se": end} | ({"skn": policy} if policy else {})
        return f"SharedAccessSignature sr={where}&{urlencode(more)}"

    def ask(
        self, method: str, path: str, version: str, token: str | None, body: Any = None, **headers: str
    ) -> tuple[int, str, bytes]:
        context = ssl.create_default_context(cafile=self.server.endpoints["trust_bundle"])
        if self.proof.certificate is not None:
            context.load_cert_chain(self.proof.certificate, self.proof.private_key)
        line = http.client.HTTPSConnection(self.hub, self.port, context=context, timeout=30)
        sent = headers | ({"Authorization": token} if token else {})
        sent |= {} if body is None else {"Content-Type": "application/json"}
        with contextlib.closing(line):
            line.request(method, f"{path}?api-version={version}", None if body is None else json.dumps(body), sent)
            answer = line.getresponse()
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()

    def parsed(self, answer: tuple[int, str, bytes], expected: set[int], error: Any) -> Any:
        status, content_type, body = answer
        if status == http.HTTPStatus.NO_CONTENT and status in expected:
            return None
        assert not content_type or "application/json" in content_type.lower(), content_type
        if status in expected:
            return json.loads(body)
        assert status >= http.HTTPStatus.BAD_REQUEST, f"{status} is none of {expected}"
        raise CloudError(status, error(json.loads(body)) if body else "")


def _hub_error(body: dict[str, Any]) -> str:
    """Return the message, which has one of two names and not both."""
    (message,) = [body[name] for name in ("Message", "errorMessage") if name in body]
    assert isinstance(message, str)
    assert body.get("networkError") in {None, True, False}
    return message


def _service_error(body: dict[str, Any]) -> str:
    """Return the message, and see that code and message are there once each."""
    (code,) = [body[name] for name in ("code", "errorCode") if name in body]
    (message,) = [body[name] for name in ("message", "errorMessage") if name in body]
    assert isinstance(code, int)
    assert isinstance(message, str)
    return message


def _module(body: dict[str, Any]) -> Module:
    assert isinstance(body["moduleId"], str)
    assert isinstance(body["deviceId"], str)
    keys = None
    if (proof := body.get("authentication")) is not None:
        assert proof.get("type") in {None, "none", "sas", "x509"}, "it knows no other, and gives the whole list up"
        if (pair := proof.get("symmetricKey")) is not None:
            keys = (pair.get("primaryKey"), pair.get("secondaryKey"))
            for one in keys:
                assert one is None or base64.b64decode(one, validate=True)
    return Module(body["deviceId"], body["moduleId"], body.get("generationId"), body.get("managedBy"), keys)
