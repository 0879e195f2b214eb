"""Devices of an IoT Hub, by the registry's REST API (IoT Hub service, Devices).

The vendor's own SDK needs a library that does not build everywhere, for messages that are not used here.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from birthmark.auth.connection_strings import parse_connection_string
from birthmark.auth.sas import hmac_sha256, render_sas
from birthmark.clock_and_entropy import Clock
from birthmark.fleet.device_onboarding_stages import DeviceProgress, DeviceStage
from birthmark.fleet.errors import (
    TargetAnswerError,
    TargetThrottledError,
    TargetUnreachableError,
    network_reason,
    refusal,
)
from birthmark.untrusted_json_and_text import whole_number

_VERSION = "2021-04-12"
_TIMEOUT_S = 30
_TOKEN_LIFE = timedelta(minutes=10)
_MAX_TOLD = 500
TAKEN_BACK = "taken back: "
"""Prefix of the status reason of a device that was disabled as lost."""
_NEVER = 1  # year that means never


class HubDevices:
    """The devices of one hub."""

    def __init__(self, connection_string: str, ca_file: Path | None, clock: Clock) -> None:
        import requests

        self._service = parse_connection_string(connection_string)
        self._clock = clock
        self._session = requests.Session()
        self._session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=16))
        if ca_file is not None:
            self._session.verify = str(ca_file)
            self._session.trust_env = False

    @property
    def host(self) -> str:
        """The hub's host name, without a port."""
        return self._service.host.partition(":")[0]

    patience_s = _TIMEOUT_S
    """Timeout of a request."""

    @property
    def description(self) -> str:
        """Display name."""
        return f"IoT Hub {self._service.host}"

    def get(self, device_id: str) -> dict[str, Any] | None:
        """Return the registry's record of a device, None for an unknown ID."""
        return self._ask("GET", device_id)

    def disable(self, device: dict[str, Any]) -> None:
        """Disable a device, if its record is unchanged."""
        self._switch(_without_mark(device), "disabled")

    def enable(self, device: dict[str, Any]) -> None:
        """Enable a device, if its record is unchanged."""
        self._switch(_without_mark(device), "enabled")

    def disable_and_rotate_keys(self, device: dict[str, Any], why: str, keys: tuple[str, str]) -> None:
        """Disable a device and replace its keys, if it has any, provided that its record is unchanged."""
        proof = device.get("authentication") or {}
        if proof.get("type") == "sas":
            proof = {**proof, "symmetricKey": {"primaryKey": keys[0], "secondaryKey": keys[1]}}
        self._switch(device | {"statusReason": why, "authentication": proof}, "disabled")

    def _switch(self, device: dict[str, Any], status: str) -> None:
        self._ask("PUT", device["deviceId"], device | {"status": status}, {"If-Match": f'"{device["etag"]}"'})

    def _ask(
        self, method: str, device_id: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any] | None:
        answer = self._answer(method, f"/devices/{quote(device_id, safe='')}", body, headers, device_id)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        with suppress(ValueError):
            if isinstance(said := answer.json(), dict):
                return said
        raise TargetAnswerError(target=self.description, reason="not a JSON object")

    def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None, name: str
    ) -> Any:
        """Return the hub's response, also if the object does not exist. Raise errors that end the run."""
        expiry = self._clock.now() + _TOKEN_LIFE
        token = render_sas(self._service.host, hmac_sha256(self._service.key), expiry, self._service.policy)
        url = f"https://{self._service.host}{path}?api-version={_VERSION}"
        signed = {"Authorization": token, **(headers or {})}
        try:
            answer = self._session.request(method, url, headers=signed, json=body, timeout=self.patience_s)
        except OSError as error:  # also those of requests, and its own if the CA file is missing
            raise TargetUnreachableError(target=self.description, reason=network_reason(error)) from error
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return answer
        if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            after = whole_number(answer.headers.get("retry-after", "")) or 0
            raise TargetThrottledError(target=self.description, reason=answer.text[:_MAX_TOLD], retry_after_s=after)
        if not answer.ok:
            is_unknown = answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
            told = answer.text[:_MAX_TOLD]
            raise refusal(self.description, told, is_missing=False, is_unknown=is_unknown, name=name, how="")
        return answer


def is_revoked_at_hub(device: Mapping[str, Any]) -> bool:
    """Return whether a device is disabled because it is lost."""
    return device.get("status") == "disabled" and str(device.get("statusReason")).startswith(TAKEN_BACK)


def _without_mark(device: dict[str, Any]) -> dict[str, Any]:
    """Return a device without the mark of a lost device, for a change with another reason."""
    is_marked = str(device.get("statusReason")).startswith(TAKEN_BACK)
    return device | {"statusReason": None} if is_marked else device


def progress_of(name: str, at: str, device: Mapping[str, Any], since: datetime | None) -> DeviceProgress:
    """Return a device's progress by its hub's record; activity before `since` belongs to an earlier record."""
    seen = _moment(str(device.get("lastActivityTime") or ""))
    if is_revoked_at_hub(device):
        return DeviceProgress(name, DeviceStage.TAKEN_BACK, f"{at}, {device['statusReason']}", seen)
    if device.get("status") == "disabled":
        return DeviceProgress(name, DeviceStage.DISABLED, at, seen)
    if device.get("connectionState") == "Connected":
        return DeviceProgress(name, DeviceStage.CONNECTED, at, seen)
    is_seen = seen is not None and (since is None or seen >= since)
    return DeviceProgress(name, DeviceStage.AWAY if is_seen else DeviceStage.ASSIGNED, at, seen)


def _moment(text: str) -> datetime | None:
    """Return a time, None for never."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return None if at.year == _NEVER else at
