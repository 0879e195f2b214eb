"""A service at a hub's HTTPS interface: it creates devices, calls methods, sends messages and reads twins."""

import base64
import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

from birthmark.auth.connection_strings import parse_connection_string
from support.azure.amqp_multiplexer import HubAddress
from support.azure.sas_tokens import make_sas

_BULK = 100
_VERSION = "api-version=2021-04-12"


class HubService:
    """One HTTPS connection, which is lost with the first error."""

    def __init__(self, hub: HubAddress, connection_string: str, port: int, timeout_s: float = 20.0) -> None:
        known = parse_connection_string(connection_string)
        token = make_sas(hub.host, known.key, int(time.time()) + 3600, str(known.policy))
        self._headers = {"Authorization": token, "Host": hub.host, "Content-Type": "application/json"}
        context = ssl.create_default_context(cafile=hub.ca_file)
        context.check_hostname = False  # its address is that of this machine
        self._line = http.client.HTTPSConnection(hub.address, port, context=context, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Return the status and the answer. Raise `OSError` or `HTTPException` once the connection is lost."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        self._line.request(method, f"{path}?{_VERSION}", data, self._headers | headers)
        answer = self._line.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None

    def send_text(self, name: str, text: str, message_id: str) -> int:
        """Send a message to a device; return the status."""
        path = f"/devices/{name}/messages/devicebound"
        return self.ask("POST", path, text.encode(), **{"iothub-messageid": message_id})[0]

    def create_devices(self, names: Sequence[str], key: bytes) -> None:
        """Create devices with one key."""
        keys = dict.fromkeys(("primaryKey", "secondaryKey"), base64.b64encode(key).decode())
        for start in range(0, len(names), _BULK):
            some = [
                {
                    "id": name,
                    "importMode": "create",
                    "status": "enabled",
                    "authentication": {"type": "sas", "symmetricKey": keys},
                }
                for name in names[start : start + _BULK]
            ]
            status, told = self.ask("POST", "/devices", some)
            assert status == http.client.OK, told


@contextlib.contextmanager
def lost_lines() -> Iterator[None]:
    """Suppress what a killed server does to a connection."""
    with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
        yield
