"""Ask: the proxy, the servers that variables name, and what time a server says it is."""

import contextlib
import socket
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from birthmark.agent.trusted_clock import BUILT
from birthmark.device_transports.identity import ServerTrust
from birthmark.device_transports.openssl.clock_tolerant import StatedTime, ask_time
from birthmark.device_transports.openssl.tls import client_context, explained
from birthmark.doctor.facts import ClockFacts, EndpointFacts, ProxyFacts, Reachable, ServerFacts
from birthmark.doctor.rules.network import is_bypassed
from birthmark.doctor.setting_sources import SourcedSetting
from birthmark.errors import BirthmarkError

_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_URLS = ("AWS_ENDPOINT_URL_IOT", "AWS_ENDPOINT_URL_IOT_DATA_PLANE")
_MQTT, _HTTPS = 8883, 443
_PATIENCE_S = 5.0


def proxy_of(settings: Mapping[str, SourcedSetting], hosts: tuple[str, ...], *, is_offline: bool) -> ProxyFacts | None:
    """Return the proxy that variables name; asked, unless offline, by a connection to it."""
    said = tuple(settings[name] for name in _PROXIES if name in settings)
    if not said:
        return None
    host, port = "", 0
    with contextlib.suppress(ValueError):
        parts = urlsplit(said[0].value)
        host, port = parts.hostname or "", parts.port or 0
    if not host or not port:
        return ProxyFacts(said, "", is_malformed=True)
    bypass = ",".join(settings[name].value for name in ("no_proxy", "NO_PROXY") if name in settings)
    local = tuple(dict.fromkeys(one for one in hosts if one and not is_bypassed(one, bypass)))
    trouble = "" if is_offline else _trouble_at(host, port)
    return ProxyFacts(said, f"{host}:{port}", local, trouble)


def _trouble_at(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), _PATIENCE_S).close()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def places(settings: Mapping[str, SourcedSetting]) -> Iterator[EndpointFacts]:
    """Yield the servers that variables name; nobody is asked yet."""
    if (setting := settings.get("PROVISIONING_HOST")) is not None:
        yield _place(setting, f"//{setting.value}", _MQTT)
    for name in _URLS:
        if (setting := settings.get(name)) is not None:
            yield _place(setting, setting.value, _HTTPS)


def _place(setting: SourcedSetting, url: str, port: int) -> EndpointFacts:
    """Return the server that a URL names; of what is none, all of it is a name that nobody will find."""
    try:
        parts = urlsplit(url)
        return EndpointFacts(setting, parts.hostname or setting.value, parts.port or port)
    except ValueError:
        return EndpointFacts(setting, setting.value, port)


def ask(place: EndpointFacts, environment: Mapping[str, str]) -> EndpointFacts:
    """Resolve the name, connect, and see that the server is believed, showing no certificate."""
    try:
        context = client_context(None, ServerTrust.default(environment))
        with socket.create_connection((place.host, place.port), _PATIENCE_S) as raw:
            context.wrap_socket(raw, server_hostname=place.host).close()
    except BirthmarkError as error:
        return _refused(place, error)
    except (OSError, UnicodeError) as error:
        return _refused(place, explained(error if isinstance(error, OSError) else OSError(), place.host, place.port))
    return place


def _refused(place: EndpointFacts, error: BirthmarkError) -> EndpointFacts:
    return EndpointFacts(place.setting, place.host, place.port, error.code, error.explain_cause(), error.explain_fix())


def hosts_of(server: ServerFacts | None, known: Reachable | None) -> tuple[str, ...]:
    """Return the hosts of this machine's server, if one is meant and runs."""
    return () if server is None or known is None else (known.dps_host, known.est_host)


async def clock(now: datetime, known: Reachable | None, *, is_offline: bool) -> ClockFacts:
    """Return what the clock says, and how far it is from what this machine's server states."""
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    stated: StatedTime | None = None
    url = "" if known is None else _told_by(known)
    if known is not None and url and not is_offline:
        with contextlib.suppress(BirthmarkError, OSError):
            stated = await ask_time(url, ServerTrust.of([Path(known.trust)]))
    if stated is None:
        return ClockFacts(text, is_before_build=now < BUILT)
    offset = (now - stated.at).total_seconds()
    return ClockFacts(text, now < BUILT, offset, urlsplit(url).netloc)


def _told_by(known: Reachable) -> str:
    """Return an address whose answers tell the time; empty where there is none."""
    if known.est_host:
        return f"https://{known.est_host}:{known.est_port}/.well-known/est/cacerts"
    return f"https://{known.dps_host}:{known.dps_port}/" if known.dps_host else ""
