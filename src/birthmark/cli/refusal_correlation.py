"""Correlation of refusals that the server recorded with refusals that a client on this machine logged.

Rows are refusals as JSON: the server's from its ledger, the client's from its log. In a client row, `server` identifies
the server by host, ID scope, data directory or target, as far as the command knew it. It is None when no server took
part.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

Row = dict[str, Any]

_CLOSE = timedelta(seconds=10)
_SLOW = timedelta(seconds=60)  # a silent handshake is recorded at its timeout
_NAMES = ("registration_id", "device_id", "thing", "common_name", "client_id", "device")

# The client's code -> prefix of the server's code for the same refusal.
_PAIRS: Mapping[str, tuple[str, ...]] = {
    "dps.client_failed": ("dps.",),
    "dps.client_not_found": ("dps.",),
    "dps.client_refused": ("dps.", "pki.", "sas.", "ca."),
    "dps.client_rejected": ("dps.", "pki."),
    "est.server_answer": ("est.", "pki.", "ca."),
    "est.server_busy": ("est.", "ca."),
    "est.server_forbidden": ("est.", "pki.", "ca."),
    "est.server_unauthenticated": ("est.", "pki.", "ca."),
    "fleet.credentials_refused": ("sas.", "sigv4.", "dps."),
    "fleet.target_refused": ("dps.", "awsiot.", "pki."),
    "links.client_certificate_refused": ("tls.", "pki."),
    "links.lost": ("iothub.", "dps.", "awsiot.", "mqtt.", "net.", "tls."),
    "links.mqtt_refused": ("dps.", "iothub.", "awsiot.", "pki.", "sas.", "ca."),
    "links.mqtt_rejected": ("dps.", "iothub.", "awsiot.", "mqtt."),
    "links.server_name_mismatch": ("tls.server_not_trusted",),
    "links.server_untrusted": ("tls.server_not_trusted", "tls.client_clock_wrong"),
    "links.subscription_refused": ("dps.", "iothub.", "awsiot."),
    "links.tls_failed": ("tls.",),
}


@dataclass(frozen=True, slots=True)
class ThisServer:
    """Endpoints and data directory of the server that is queried."""

    data: str
    scope: str | None = None
    hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, data: str, endpoints: Mapping[str, Any]) -> "ThisServer":
        """Return the server with these endpoints."""
        est, dps, hub, aws = (endpoints[name] or {} for name in ("est", "dps", "iothub", "aws"))
        urls = [part[key] for part, key in ((aws, "endpoint_url"), (est, "url")) if part]
        hosts = {part["host"] for part in (dps, hub) if part} | {urlsplit(url).hostname or "" for url in urls}
        return cls(data, dps.get("id_scope"), frozenset(hosts))

    @classmethod
    def of_shell(cls, data: str, environment: Mapping[str, str]) -> "ThisServer":
        """Return the server with the endpoints that `birthmark env` set, if they are those of this data directory."""
        if environment.get("BIRTHMARK_DATA") != data:
            return cls(data)
        host = environment.get("PROVISIONING_HOST", "").partition(":")[0]
        return cls(data, environment.get("PROVISIONING_IDSCOPE"), frozenset({host} if host else ()))

    def has(self, row: Row) -> bool:
        """Return whether a client row is about this server."""
        about = row.get("server") or {}
        if about.get("data"):
            return bool(about["data"] == self.data)
        if about.get("target"):
            return self.scope is not None and self.scope in about["target"]
        if about.get("scope"):
            return bool(about["scope"] == self.scope)
        return about.get("host") in self.hosts


def correlate_refusals(server: Sequence[Row], client: Iterable[Row]) -> list[Row]:
    """Return refusals, newest first: server rows with the matching client row in `client`, and unmatched rows."""
    stories, alone = [dict(row) for row in server], list(client)
    for is_same in (_is_surely_same, _is_same):  # a name or an id takes precedence over time
        left: list[Row] = []
        for row in alone:
            fitting = (story for story in stories if "client" not in story and is_same(story, row))
            partner = min(fitting, key=partial(_apart, row), default=None)
            if partner is None:
                left.append(row)
            else:
                partner["client"] = {name: row[name] for name in ("at", "code", "message")}
        alone = left
    return sorted([*stories, *alone], key=lambda row: datetime.fromisoformat(row["at"]), reverse=True)


def _is_surely_same(story: Row, row: Row) -> bool:
    is_named = bool(_names(row) & _names(story)) or row["facts"].get("tracking_id") == story["id"]
    return is_named and _is_same(story, row)


def _is_same(story: Row, row: Row) -> bool:
    if (tracking_id := row["facts"].get("tracking_id")) is not None and tracking_id == story["id"]:
        return True
    if not story["code"].startswith(_PAIRS.get(row["code"], ("-",))):
        return False
    apart = _apart(story, row)
    ours, theirs = _names(row), _names(story)
    if ours and theirs:
        return apart <= _CLOSE and bool(ours & theirs)
    return apart <= (_SLOW if story["code"] == "tls.server_not_trusted" else _CLOSE)


def _apart(row: Row, other: Row) -> timedelta:
    return abs(datetime.fromisoformat(row["at"]) - datetime.fromisoformat(other["at"]))


def _names(row: Row) -> set[str]:
    return {row["facts"][name].lower() for name in _NAMES if row["facts"].get(name)}
