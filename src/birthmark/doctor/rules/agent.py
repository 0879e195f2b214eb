"""Findings of `birthmark agent check`, with commands that fix the configuration for a known server."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

from birthmark.doctor.facts import CheckFacts, Reachable
from birthmark.doctor.findings import DoctorFinding, FindingSeverity, Topic
from birthmark.doctor.setting_sources import replacing

Texts = Sequence[tuple[str, str]]
"""The configuration's files and their contents."""

_LITERAL = re.compile(r"`([^`]+)`")
_TYPED = ("birthmark ", "chmod ", "eval ", "mkdir ", "openssl ", "rm ", "mv ")
_TRUST = re.compile(r'^[ \t]*(?:trust_bundle_cert|trusted_certs)[ \t]*=.*?"file:/{0,2}(/[^"]+)"', re.MULTILINE)
_EXAMPLE = re.compile("…|BASE64|/path/|file:///device|my-|ABCDEF")  # placeholder for the owner's value
_CODES = {
    "keyd-running": "doctor.agent_not_running",
    "certd-running": "doctor.agent_not_running",
    "identityd-running": "doctor.agent_not_running",
    "identityd-config-well-formed": "doctor.configuration_warning",
    "configs-up-to-date": "doctor.configuration_not_applied",
    "host-local-time": "doctor.clock_wrong",
}
_CLOSING = re.compile(r"(?:chgrp \S+ \S+ && )?chmod 06[04]0 [^\s;]+")
_CLOCK = "only the administrator can set this machine's clock: `timedatectl set-ntp true`"


def findings(checks: Sequence[CheckFacts], texts: Texts, server: Reachable | None) -> Iterator[DoctorFinding]:
    """Yield each problem once, from the first check that found it."""
    told: set[str] = set()
    for one in checks:
        found = _finding(one, texts, server)
        if found.code not in told:
            told.add(found.code)
            yield found
    if not told:
        yield DoctorFinding("doctor.agent", Topic.AGENT, FindingSeverity.OK, "the agent's checks passed")


def not_checked(config: str) -> DoctorFinding:
    """Return the finding that the agent was not checked, because the library would crash or block this process."""
    return DoctorFinding(
        "doctor.agent_not_checked",
        Topic.CONFIGURATION,
        FindingSeverity.UNKNOWN,
        f"{config}: the chip's library, which the agent uses, crashes or hangs",
        advice="Fix the library first",
    )


def _finding(check_facts: CheckFacts, texts: Texts, server: Reachable | None) -> DoctorFinding:
    code = check_facts.code or _CODES.get(check_facts.id) or f"doctor.{check_facts.id.replace('-', '_')}"
    facts = dict(check_facts.facts)
    command = check_facts.command
    if (rule := _BY_CODE.get(code)) is not None:
        command = rule(facts, texts, server) or command
    command = command or _find_single_command(check_facts.fix) or "".join(_CLOSING.findall(check_facts.details)[:1])
    advice = "Type" if command == check_facts.command else "Fix the configuration"
    is_clock = code == "doctor.clock_wrong" or "certificate is not yet valid" in check_facts.details
    return DoctorFinding(
        code,
        _topic(check_facts, code),
        FindingSeverity.FAULT if check_facts.is_error else FindingSeverity.WARNING,
        f"{check_facts.config}: {check_facts.id}: {check_facts.details if not check_facts.code else check_facts.cause}",
        cause=check_facts.cause or check_facts.details,
        command=command,
        advice=advice if command else check_facts.fix or "See `birthmark agent check`",
        for_a_person=_CLOCK if is_clock and not command else check_facts.for_a_person,
    )


def _topic(facts: CheckFacts, code: str) -> Topic:
    if code == "doctor.clock_wrong":
        return Topic.CLOCK
    if code.startswith("agent.config"):
        return Topic.CONFIGURATION
    return Topic.NETWORK if code.startswith("links.") or facts.id.startswith("host-connect") else Topic.AGENT


def _find_single_command(fix: str) -> str:
    """Return the single command of a fix; empty for several or none."""
    found = [literal for literal in _LITERAL.findall(fix) if literal.startswith(_TYPED)]
    return found[0] if len(found) == 1 else ""


# ---- configuration fixes by error code


def _in_texts(texts: Texts, old: str, new: str) -> str:
    """Return the command that replaces a text in the configuration file that contains it."""
    file = next((file for file, text in texts if old in text), None)
    return "" if file is None or old == new else replacing(file, old, new)


def _mistake(facts: Mapping[str, str], texts: Texts, _server: Reachable | None) -> str:
    """Return the fix for an invalid line, with the line in valid form."""
    key, line = facts.get("key", "").rpartition(".")[2], facts.get("line", "")
    accepted = [one for one in _LITERAL.findall(facts.get("accepted", "")) if re.match(rf"{re.escape(key)} *= ", one)]
    lines = dict(texts).get(facts.get("file", ""), "").splitlines()
    is_there = (
        line.isdecimal() and 0 < int(line) <= len(lines) and re.match(rf"\s*{re.escape(key)}\s*=", lines[int(line) - 1])
    )
    if not is_there or not accepted or _EXAMPLE.search(accepted[0]):
        return ""
    value = accepted[0].partition("=")[2].strip()  # by line number: the line may contain a secret
    escaped = "".join(f"\\{char}" if char in r"\&|" else char for char in value)
    return shlex.join(["sed", "-i", f"{line}s|=.*|= {escaped}|", facts["file"]])


def _trusted(_facts: Mapping[str, str], texts: Texts, server: Reachable | None) -> str:
    """Return the command that trusts the server's CA at each place that names a CA file."""
    if server is None:
        return ""
    named = dict.fromkeys(path for _file, text in texts for path in _TRUST.findall(text))
    return " && ".join(filter(None, (_in_texts(texts, path, server.trust) for path in named)))


def _missing(facts: Mapping[str, str], texts: Texts, server: Reachable | None) -> str:
    """Return the fix for a missing CA file; a missing device certificate is not handled here."""
    path = facts.get("path", "")
    is_trust = any(path in found for _file, text in texts for found in _TRUST.findall(text))
    return _trusted(facts, texts, server) if path and is_trust else ""


def _host(facts: Mapping[str, str], texts: Texts, server: Reachable | None) -> str:
    host = facts.get("host", "")
    if server is None or not host:
        return ""
    urls = [re.search(rf'://{re.escape(host)}[^"\s]*', text) for _file, text in texts]
    is_est = any(url is not None and "/.well-known/est" in url[0] for url in urls)
    return _in_texts(texts, f"//{host}", f"//{server.est_host if is_est else server.dps_host}")


def _port(facts: Mapping[str, str], texts: Texts, server: Reachable | None) -> str:
    """Return the fix for a closed port of this server's host."""
    host, port = facts.get("host", ""), facts.get("port", "")
    if server is None or host not in {server.dps_host, server.est_host}:
        return _host(facts, texts, server)
    is_est = any(f"{host}:{port}/.well-known/est" in text for _file, text in texts)
    return _in_texts(texts, f"{host}:{port}", f"{host}:{server.est_port if is_est else server.dps_port}")


_BY_CODE: Mapping[str, Callable[[Mapping[str, str], Texts, Reachable | None], str]] = {
    "agent.config_invalid": _mistake,
    "agent.config_unsupported": _mistake,
    "agent.certificate_missing": _missing,
    "links.host_unknown": _host,
    "links.server_name_mismatch": _host,
    "links.server_untrusted": _trusted,
    "links.unreachable": _port,
    "links.timeout": _port,
    "links.tls_failed": _port,
}
