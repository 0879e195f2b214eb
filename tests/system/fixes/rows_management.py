"""Azure's resource manager: programs that misuse it, and the commands that say how it is right."""

import json
from collections.abc import Mapping
from typing import Any

from fixes.desk import Desk, Row, steps, typing

_AT = "/subscriptions/fix/resourceGroups/fix/providers/Microsoft.Devices"
_CA = f"{_AT}/provisioningServices/birthmark/certificates/fix-managed"
_VERSION = "?api-version=2022-12-12"


class _Managed:
    """A call in the name of a person, whose token is in the file `token`; of nobody where there is none."""

    def __init__(self, method: str, path: str, body: Any = None, *, version: str = _VERSION, **headers: str) -> None:
        self._line = f"{method} {path}{version} HTTP/1.1"
        self._body = b"" if body is None else json.dumps(body).encode()
        self._headers = headers

    def __call__(self, desk: Desk) -> object:
        file = desk.path("token")
        token = json.loads(file.read_text())["token"] if file.exists() else "none"
        lines = [
            *(self._line, f"Host: {desk.server.endpoints['dps']['host']}", f"Authorization: Bearer {token}"),
            *("Content-Type: application/json", f"Content-Length: {len(self._body)}", "Connection: close"),
            *(f"{name.replace('_', '-')}: {value}" for name, value in self._headers.items()),
        ]
        return desk.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + self._body)


def somebody(name: str) -> Any:
    return typing(
        f"birthmark user create fix-{name} --role admin", f"birthmark token create --user fix-{name} --json > token"
    )


MANAGEMENT: Mapping[str, Row] = {
    "management.token_refused": Row(_Managed("GET", f"{_AT}/IotHubs/birthmark"), is_instead=True),
    "management.operation_not_served": Row(
        _Managed("DELETE", f"{_AT}/IotHubs/birthmark"), somebody("not-served"), is_instead=True
    ),
    "management.path_invalid": Row(_Managed("GET", f"{_AT}/IotHubs/a%20b"), somebody("path"), is_instead=True),
    "management.api_version": Row(
        _Managed("GET", f"{_AT}/IotHubs/birthmark", version=""), somebody("version"), is_instead=True
    ),
    "management.request_invalid": Row(_Managed("PUT", _CA, {"properties": {}}), somebody("body"), is_instead=True),
    "management.hub_changed": Row(
        _Managed("PUT", f"{_AT}/IotHubs/birthmark", {"properties": {"routing": {}}}, If_Match='"old"'),
        somebody("hub"),
        is_instead=True,
    ),
    "pki.ca_etag_mismatch": Row(
        _Managed("DELETE", _CA, If_Match='"old"'),
        steps(somebody("etag"), typing("birthmark dps ca create fix-managed ca/root.pem")),
        is_instead=True,
    ),
}
