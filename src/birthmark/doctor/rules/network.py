"""Rules for clock, proxy, names, ports and trust of the servers that variables name."""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from birthmark.doctor.facts import ClockFacts, EndpointFacts, ProxyFacts, ServerFacts
from birthmark.doctor.findings import DoctorFinding, FindingSeverity, Topic

_HUB = re.compile(r"[\w\-]+\.azure-devices\.(net|cn|us)")
_GLOBAL: Mapping[str, str] = {
    "net": "global.azure-devices-provisioning.net",
    "cn": "global.azure-devices-provisioning.cn",
    "us": "global.azure-devices-provisioning.us",
}
_ALLOWED_S = 10.0
_ADMINISTRATOR = "only the administrator can set this machine's clock"


def clock(facts: ClockFacts) -> Iterator[DoctorFinding]:
    """Yield a finding if the clock cannot be right or differs from a server's clock."""
    fix = "Set it and keep it synchronized: `timedatectl set-ntp true`"
    if facts.is_before_build:
        told, cause = f"the clock shows {facts.now}", "This program was built later than that: the clock is wrong."
    elif facts.offset_s is not None and abs(facts.offset_s) > _ALLOWED_S:
        told = f"the clock shows {facts.now}; {facts.by} differs by {-facts.offset_s:+.0f} s"
        cause = "The clock is wrong: certificates are checked against it, and signatures with a timestamp are rejected."
    else:
        yield DoctorFinding(
            "doctor.clock", Topic.CLOCK, FindingSeverity.OK, f"{facts.now}{f', same as {facts.by}' if facts.by else ''}"
        )
        return
    yield DoctorFinding(
        "doctor.clock_wrong",
        Topic.CLOCK,
        FindingSeverity.FAULT,
        told,
        cause=cause,
        advice=fix,
        for_a_person=_ADMINISTRATOR,
    )


def is_bypassed(host: str, no_proxy: str) -> bool:
    """Return whether programs bypass the proxy for a host: by its name, a parent domain or its network."""
    for one in filter(None, (part.strip().lower() for part in no_proxy.split(","))):
        if one == "*" or host == one.lstrip(".") or host.endswith(f".{one.lstrip('.')}"):
            return True
        with suppress(ValueError):
            if "/" in one and ipaddress.ip_address(host) in ipaddress.ip_network(one, strict=False):
                return True
    return False


def proxy(facts: ProxyFacts) -> Iterator[DoctorFinding]:
    """Yield the problems of the proxy that variables name."""
    said = ", ".join(one.name for one in facts.settings)
    unset = f"unset {' '.join(one.name for one in facts.settings)}"
    if facts.is_malformed:
        yield DoctorFinding(
            "doctor.proxy_malformed",
            Topic.PROXY,
            FindingSeverity.FAULT,
            f"{said}: not http://HOST:PORT",
            cause="The configured proxy is not an address; programs interpret it differently.",
            command=unset,
            advice="Unset it, or use http://HOST:PORT",
        )
    elif facts.trouble:
        yield DoctorFinding(
            "doctor.proxy_unreachable",
            Topic.PROXY,
            FindingSeverity.FAULT,
            f"{said}: {facts.address}: {facts.trouble}",
            cause="The proxy does not respond, and SDKs, curl and the vendors' tools connect only through it.",
            command=unset,
            advice="Unset it if there is no proxy",
        )
    elif facts.local:
        hosts = ",".join(facts.local)
        rest = "${no_proxy:+,$no_proxy}"
        yield DoctorFinding(
            "doctor.proxy_for_local_server",
            Topic.PROXY,
            FindingSeverity.WARNING,
            f"{said} is set; no_proxy does not contain {hosts}, this machine's server",
            cause="Programs use the proxy for a server on this machine, which the proxy cannot reach.",
            command=f'export no_proxy="{hosts}{rest}" NO_PROXY="{hosts}{rest}"',
            advice="Connect to this server without the proxy",
        )
    else:
        yield DoctorFinding("doctor.proxy", Topic.PROXY, FindingSeverity.OK, f"{said}: {facts.address}")


def named(facts: EndpointFacts) -> Iterator[DoctorFinding]:
    """Yield findings about a name that is invalid for its purpose, without network access."""
    hub = _HUB.fullmatch(facts.host.lower())
    if hub is not None and facts.setting.name == "PROVISIONING_HOST":
        yield DoctorFinding(
            "doctor.endpoint_is_hub",
            Topic.ENVIRONMENT,
            FindingSeverity.FAULT,
            f"{facts.setting}: the name of an IoT Hub",
            cause="Devices register at the provisioning service, which assigns their hub.",
            command=facts.setting.set_command(_GLOBAL[hub[1]]),
            advice="Set the provisioning service",
        )


def places(every: Sequence[EndpointFacts], server: ServerFacts | None) -> Iterator[DoctorFinding]:
    """Yield the reasons why servers are unreachable or untrusted; a shared reason appears once."""
    by_code: dict[str, list[EndpointFacts]] = {}
    for one in every:
        by_code.setdefault(one.code, []).append(one)
    for code, same in by_code.items():
        told = "; ".join(
            f"{one.setting}: {one.cause or f'{one.host}:{one.port} responds and is trusted'}" for one in same
        )
        if not code:
            yield DoctorFinding("doctor.place", Topic.NETWORK, FindingSeverity.OK, told)
            continue
        command = server.env if server is not None and server.is_served else ""
        advice = "Use this machine's server" if command else same[0].fix
        cause = same[0].cause
        yield DoctorFinding(
            code, Topic.NETWORK, FindingSeverity.FAULT, told, cause=cause, command=command, advice=advice
        )
