"""An Azure hub for `birthmark hub`: its registry, twins and queries (IoT Hub service REST).

Output contains no keys.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from birthmark.fleet.azure_hub_devices import HubDevices
from birthmark.fleet.errors import NotAtHubError, TargetAnswerError

_PAGE, _MAX_TOLD = "100", 500
_CONTINUATION = "x-ms-continuation"
_SECRETS = ("symmetricKey",)


class AzureHubRegistry(HubDevices):
    """A hub by its service connection string; `profile` is its name."""

    profile = "cloud"

    def query(self, text: str) -> Iterator[Mapping[str, Any]]:
        """Yield the results of a query, page by page."""
        marker = ""
        while True:
            headers = {"x-ms-max-item-count": _PAGE} | ({_CONTINUATION: marker} if marker else {})
            answer = self._send("POST", "/devices/query", {"query": text}, headers, name="")
            yield from self._rows(answer)
            if not (marker := answer.headers.get(_CONTINUATION, "")):
                return

    def devices(self) -> Iterator[Mapping[str, Any]]:
        """Yield every device by its twin, because a list of the registry ends at a thousand."""
        yield from self.query("SELECT * FROM devices")

    def modules(self, device_id: str) -> list[Mapping[str, Any]]:
        """Return the modules of a device."""
        answer = self._send("GET", f"/devices/{quote(device_id, safe='')}/modules", name=device_id)
        return [_without_keys(row) for row in self._rows(answer)]

    def identity(self, name: str) -> Mapping[str, Any]:
        """Return a device, or a module as DEVICE/MODULE. Raise `NotAtHubError`."""
        return _without_keys(self._one(f"/devices/{_path_of(name)}", name))

    def twin(self, name: str) -> Mapping[str, Any]:
        """Return the twin of a device, or of a module as DEVICE/MODULE. Raise `NotAtHubError`."""
        return self._one(f"/twins/{_path_of(name)}", name)

    def patch_twin(self, name: str, desired: object, tags: object) -> Mapping[str, Any]:
        """Change the desired properties of a device or module, or its tags; return the updated twin."""
        body: dict[str, Any] = {} if tags is None else {"tags": tags}
        body |= {} if desired is None else {"properties": {"desired": desired}}
        return self._one(f"/twins/{_path_of(name)}", name, "PATCH", body, {"If-Match": "*"})

    def call(self, name: str, method: str, payload: object, response_s: int, connect_s: int) -> Mapping[str, Any]:
        """Call a method of a device or module; return its status and payload."""
        body = {"methodName": method, "payload": payload, "responseTimeoutInSeconds": response_s}
        body |= {"connectTimeoutInSeconds": connect_s}
        self.patience_s = response_s + connect_s + 10
        return self._one(f"/twins/{_path_of(name)}/methods", name, "POST", body)

    def switch(self, device_id: str, *, is_enabled: bool) -> Mapping[str, Any]:
        """Enable or disable a device; return its updated registry record."""
        present = self._one(f"/devices/{_path_of(device_id)}", device_id)
        wanted = present | {"status": "enabled" if is_enabled else "disabled"}
        headers = {"If-Match": f'"{present["etag"]}"'}
        return _without_keys(self._one(f"/devices/{_path_of(device_id)}", device_id, "PUT", wanted, headers))

    def _one(
        self,
        path: str,
        name: str,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        answer = self._send(method, path, body, headers, name=name)
        if not isinstance(said := self._said(answer), dict):
            raise self._unread("not a JSON object")
        return said

    def _rows(self, answer: Any) -> list[dict[str, Any]]:
        said = self._said(answer)
        if not isinstance(said, list) or not all(isinstance(row, dict) for row in said):
            raise self._unread("not a list of JSON objects")
        return said

    def _said(self, answer: Any) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise self._unread("no JSON") from error

    def _unread(self, detail: str) -> TargetAnswerError:
        return TargetAnswerError(target=self.description, reason=detail)

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        name: str,
    ) -> Any:
        answer = self._answer(method, path, body, headers, name)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            told = {"name": name, "profile": self.profile, "reason": answer.text[:_MAX_TOLD]}
            raise NotAtHubError(target=self.description, **told)
        return answer


def _path_of(name: str) -> str:
    device, slash, module = name.partition("/")
    return quote(device, safe="") + (f"/modules/{quote(module, safe='')}" if slash else "")


def _without_keys(record: Mapping[str, Any]) -> dict[str, Any]:
    proof = record.get("authentication")
    if not isinstance(proof, dict):
        return dict(record)
    return {**record, "authentication": {name: value for name, value in proof.items() if name not in _SECRETS}}
