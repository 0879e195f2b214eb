"""Network checks: the proxy, the servers that variables name, and a server's stated time."""

import contextlib
import socket
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from birthmark.agent.trusted_clock import BUILT
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.device_transports.openssl.server_time import StatedTime, ask_time
from birthmark.device_transports.openssl.tls_context import client_context, translate_error
from birthmark.doctor.facts import ClockFacts, EndpointFacts, ProxyFacts, Reachable, ServerFacts
from birthmark.doctor.rules.network import is_bypassed
from birthmark.doctor.setting_sources import SourcedSetting
from birthmark.errors import BirthmarkError

_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_URLS = ("AWS_ENDPOINT_URL_IOT", "AWS_ENDPOINT_URL_IOT_DATA_PLANE")
_MQTT, _HTTPS = 8883, 443
_PATIENCE_S = 5.0


def proxy_of(settings: Mapping[str, SourcedSetting], hosts: tuple[str, ...], *, is_offline: bool) -> ProxyFacts | None:
    """Return the proxy that variables name; unless offline, test a connection to it."""
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
    """Yield the servers that variables name, without contacting them."""
    if (setting := settings.get("PROVISIONING_HOST")) is not None:
        yield _place(setting, f"//{setting.value}", _MQTT)
    for name in _URLS:
        if (setting := settings.get(name)) is not None:
            yield _place(setting, setting.value, _HTTPS)


def _place(setting: SourcedSetting, url: str, port: int) -> EndpointFacts:
    """Return the server that a URL names; an invalid URL becomes a host name that does not resolve."""
    try:
        parts = urlsplit(url)
        return EndpointFacts(setting, parts.hostname or setting.value, parts.port or port)
    except ValueError:
        return EndpointFacts(setting, setting.value, port)


def ask(facts: EndpointFacts, environment: Mapping[str, str]) -> EndpointFacts:
    """Resolve the name, connect, and verify the server's certificate, without a client certificate."""
    try:
        context = client_context(None, ServerTrust.default(environment))
        with socket.create_connection((facts.host, facts.port), _PATIENCE_S) as raw:
            context.wrap_socket(raw, server_hostname=facts.host).close()
    except BirthmarkError as error:
        return _refused(facts, error)
    except (OSError, UnicodeError) as error:
        return _refused(
            facts, translate_error(error if isinstance(error, OSError) else OSError(), facts.host, facts.port)
        )
    return facts


def _refused(facts: EndpointFacts, error: BirthmarkError) -> EndpointFacts:
    return EndpointFacts(facts.setting, facts.host, facts.port, error.code, error.explain_cause(), error.explain_fix())


def hosts_of(server: ServerFacts | None, reachable: Reachable | None) -> tuple[str, ...]:
    """Return the hosts of this machine's server if it runs."""
    return () if server is None or reachable is None else (reachable.dps_host, reachable.est_host)


async def clock(now: datetime, reachable: Reachable | None, *, is_offline: bool) -> ClockFacts:
    """Return the clock's time, and its offset from the time that this machine's server states."""
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    stated: StatedTime | None = None
    url = "" if reachable is None else _find_time_url(reachable)
    if reachable is not None and url and not is_offline:
        with contextlib.suppress(BirthmarkError, OSError):
            stated = await ask_time(url, ServerTrust.of([Path(reachable.trust)]))
    if stated is None:
        return ClockFacts(text, is_before_build=now < BUILT)
    offset = (now - stated.at).total_seconds()
    return ClockFacts(text, now < BUILT, offset, urlsplit(url).netloc)


def _find_time_url(reachable: Reachable) -> str:
    """Return a URL whose response states the time; empty if none is available."""
    if reachable.est_host:
        return f"https://{reachable.est_host}:{reachable.est_port}/.well-known/est/cacerts"
    return f"https://{reachable.dps_host}:{reachable.dps_port}/" if reachable.dps_host else ""
