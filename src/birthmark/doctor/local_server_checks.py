"""Inspection of this machine's Birthmark servers, and of the environment's variables for them."""

import contextlib
import ipaddress
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from birthmark.doctor.facts import FileFacts, MismatchedVariable, Reachable, ServerFacts
from birthmark.doctor.file_inspection import inspect_file
from birthmark.doctor.setting_sources import SourcedSetting
from birthmark.errors import BirthmarkError
from birthmark.operator_api.client.server_discovery_and_api_client import (
    DEFAULT_DATA,
    OperatorClient,
    find_other_served_directories,
    read_endpoints,
)
from birthmark.operator_api.client.vendor_tool_environment import variables
from birthmark.operator_api.data_directory_lock import is_served
from birthmark.ownership_and_sudo_commands import as_owner, other_owner, starting

_CAS = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
_HOSTS = (
    "PROVISIONING_HOST",
    "AWS_ENDPOINT_URL_IOT",
    "AWS_ENDPOINT_URL_IOT_DATA_PLANE",
    "AWS_ENDPOINT_URL_IOT_JOBS_DATA_PLANE",
)
# Variables that count only together with their host's: name -> the host's variable. All but the scope are secrets.
_BESIDE = {
    "PROVISIONING_IDSCOPE": "PROVISIONING_HOST",
    "PROVISIONING_CONNECTION_STRING": "PROVISIONING_HOST",
    "AWS_ACCESS_KEY_ID": "AWS_ENDPOINT_URL_IOT",
    "AWS_SECRET_ACCESS_KEY": "AWS_ENDPOINT_URL_IOT",
}
_OF_THE_HUB = "IOTHUB_CONNECTION_STRING"
_SHOWN = frozenset({*_CAS, *_HOSTS, "PROVISIONING_IDSCOPE"})
_OTHERS = 0o077
_PATIENCE_S = 5.0  # its database check takes a moment


def inspect_server(named: SourcedSetting | None, environment: Mapping[str, str]) -> ServerFacts | None:
    """Return the selected server: the specified one, otherwise the one whose host the environment has."""
    if named is not None:
        return _server(Path(named.value).expanduser(), named, environment)
    default = Path(DEFAULT_DATA).expanduser()
    running = sorted(one for one in {*find_other_served_directories(default), default} if is_served(one))
    for data in running:
        theirs = _variables(data)
        if any(environment.get(name) and environment[name] == theirs.get(name) for name in _HOSTS):
            return _server(data, None, environment)
    for data in (default, *running):
        if is_served(data) or (data / "server.lock").exists():
            return _server(data, None, environment)
    return None


def _server(data: Path, named: SourcedSetting | None, environment: Mapping[str, str]) -> ServerFacts:
    if _is_closed(data):
        return ServerFacts(str(data), named, as_owner=as_owner(other_owner(data) or "root"))
    is_running, theirs = is_served(data), _variables(data)
    has_run = (data / "server.lock").exists()  # a server removes endpoints.json when it ends
    return ServerFacts(
        str(data),
        named,
        inspect_file(data),
        has_run=has_run,
        is_served=is_running,
        foreign=tuple(_foreign(data, theirs, environment)) if is_running else (),
        exposed=tuple(_exposed(data)),
        others=() if is_running else tuple(_others(data, environment, has_run=has_run)),
        is_known_to_shell=named is not None or any(environment.get(name) for name in _HOSTS),
        start=starting(data),
    )


def _is_closed(data: Path) -> bool:
    """Return whether this user may not read a server's files, or may not enter the directory or a parent."""
    try:
        os.close(os.open(data / "endpoints.json", os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        return isinstance(error, PermissionError)
    return not os.access(data, os.R_OK | os.X_OK)


def _others(data: Path, environment: Mapping[str, str], *, has_run: bool) -> list[str]:
    """Return the directories of other running servers, the environment's own first.

    If a server has run in `data`, only one whose ID scope matches the environment's counts, because several servers can
    use one host in turn.
    """

    def is_meant(other: Path) -> bool:
        theirs = _variables(other)
        return any(environment.get(name) and environment[name] == theirs.get(name) for name in _HOSTS)

    def is_asked(other: Path) -> bool:
        scope = environment.get("PROVISIONING_IDSCOPE")
        return scope is not None and scope == _variables(other).get("PROVISIONING_IDSCOPE")

    counted = [one for one in find_other_served_directories(data) if not has_run or is_asked(one)]
    return [str(one) for one in sorted(counted, key=lambda one: (not is_meant(one), one))]


def _variables(data: Path) -> Mapping[str, str]:
    with contextlib.suppress(BirthmarkError, OSError, KeyError, TypeError):
        return variables(read_endpoints(data))
    return {}


def _foreign(data: Path, theirs: Mapping[str, str], environment: Mapping[str, str]) -> Iterator[MismatchedVariable]:
    """Yield the variables that another server set; values for a cloud or of the user are skipped."""
    for name in (*_CAS, *_HOSTS, *_BESIDE, _OF_THE_HUB):
        value = environment.get(name)
        if not value or name not in theirs or value == theirs[name]:
            continue
        whose = _describe_origin(name, value, data, theirs, environment)
        if whose is not None:
            yield MismatchedVariable(name, value if name in _SHOWN else "", whose)


def _describe_origin(
    name: str, value: str, data: Path, theirs: Mapping[str, str], environment: Mapping[str, str]
) -> str | None:
    """Return the origin of a value as text; None if it may be intended."""
    if name in _CAS:
        other = Path(value).parent
        is_data = other.resolve() != data.resolve() and (other / "server.lock").exists()
        return f" (of the server of {other})" if is_data else None
    if name in _HOSTS:
        return " (another address of this machine)" if _is_loopback(value) else None
    if name == _OF_THE_HUB:
        return " (another key than the hub's)" if _is_same_policy(value, theirs[name]) else None
    host = _BESIDE[name]
    return f" (not {host}'s)" if environment.get(host) == theirs.get(host) else None


def _is_same_policy(one: str, other: str) -> bool:
    """Return whether two connection strings name one policy of one hub; another policy or hub may be intended."""
    said = [dict(part.partition("=")[::2] for part in text.split(";")) for text in (one, other)]
    return all(said[0].get(name) == said[1].get(name) for name in ("HostName", "SharedAccessKeyName"))


def _is_loopback(value: str) -> bool:
    host = value.partition(":")[0]
    with contextlib.suppress(ValueError):  # not a URL, or not an address
        host = urlsplit(value).hostname or "" if "//" in value else host
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _exposed(data: Path) -> Iterator[FileFacts]:
    """Yield private files of the data directory that other users can read."""
    for path in (*sorted((data / "ca").glob("*.key")), data / "operator.token", data / "endpoints.json"):
        found = inspect_file(path)
        if found.exists and found.mode & _OTHERS:
            yield found


def query_status(server: ServerFacts, now: datetime) -> ServerFacts:
    """Return a running server with its reported database status and certificate."""
    if not server.is_served:
        return server
    server = replace(server, has_database=_has_database(Path(server.data)))
    with contextlib.suppress(BirthmarkError, OSError, ValueError, KeyError, TypeError, AttributeError):
        told = OperatorClient.of(Path(server.data)).get("/server/certificate")
        until = datetime.fromisoformat(told["not_after"])
        return replace(
            server,
            certificate_until=f"{until:%Y-%m-%d %H:%M} UTC",
            certificate_days=(until - now).days,
            certificate_trouble=str(told["trouble"]),
        )
    return server


def _has_database(data: Path) -> bool | None:
    with contextlib.suppress(BirthmarkError, OSError, ValueError, KeyError, TypeError, AttributeError):
        endpoints: Mapping[str, Any] = read_endpoints(data)
        url = endpoints["health_url"].rsplit("/", 1)[0] + "/readyz"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=_PATIENCE_S) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as refused:  # 503, lists missing parts
            with refused:
                told = json.load(refused)
        return {"ready": True, "away": False}.get(told.get("database"))
    return None


def reachable(data: str) -> Reachable | None:
    """Return the addresses of the running server of a data directory; None if none runs."""
    if not is_served(Path(data)):
        return None
    with contextlib.suppress(BirthmarkError, OSError, KeyError, TypeError, ValueError):
        endpoints = read_endpoints(Path(data))
        dps, est = endpoints["dps"] or {}, urlsplit((endpoints["est"] or {}).get("url", ""))
        host, port = dps.get("host", ""), dps.get("https_port", 0)
        return Reachable(endpoints["trust_bundle"], host, port, est.hostname or "", est.port or 443)
    return None
