"""Rules for OPENSSL_CONF: engines and providers that programs load from it, and their common faults."""

import re
import shlex
from collections.abc import Iterator, Mapping
from functools import partial

from birthmark.doctor.facts import OpensslFacts
from birthmark.doctor.findings import DoctorFinding, FindingSeverity, Topic
from birthmark.doctor.setting_sources import replacing

Sections = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

_SECTION = re.compile(r"\s*\[([^\]]+)\]")
_ENTRY = re.compile(r"\s*([\w.\-]+)\s*=\s*(.*?)\s*$")
_PATHS = ("module", "dynamic_path", "pkcs11-module-path", "MODULE_PATH")
_PIN = "pkcs11-module-token-pin"
_MAX_LINES = 5_000
_fault = partial(DoctorFinding, topic=Topic.OPENSSL, severity=FindingSeverity.FAULT)


def parse(text: str) -> Sections:
    """Parse a configuration into sections with their entries, in order and without comments."""
    found: list[tuple[str, list[tuple[str, str]]]] = [("", [])]
    for line in text.splitlines()[:_MAX_LINES]:
        bare = line.partition("#")[0]
        if (section := _SECTION.match(bare)) is not None:
            found.append((section[1].strip(), []))
        elif (entry := _ENTRY.match(bare)) is not None:
            found[-1][1].append((entry[1], entry[2]))
    return tuple((name, tuple(entries)) for name, entries in found)


def paths_in(sections: Sections) -> list[str]:
    """Return the files that an OpenSSL configuration loads."""
    return [value for _name, entries in sections for key, value in entries if key in _PATHS and value.startswith("/")]


def findings(facts: OpensslFacts) -> Iterator[DoctorFinding]:
    """Yield the problems of the configuration."""
    if not facts.file.exists or facts.file.reason:
        yield _fault(
            "doctor.openssl_conf_missing",
            seen=f"{facts.setting}: {facts.file.reason or 'no such file'}",
            cause=(
                "OpenSSL's configuration does not exist: it loads no engine and no provider, without an error message."
            ),
            command=facts.setting.unset_command(),
            advice="Use OpenSSL's default configuration",
        )
        return
    found = [*_missing(facts), *_providers(facts), *_pin(facts)]
    yield from found
    if not found:
        yield DoctorFinding("doctor.openssl_conf", Topic.OPENSSL, FindingSeverity.OK, str(facts.setting))


def _missing(facts: OpensslFacts) -> Iterator[DoctorFinding]:
    keys = {value: key for _name, entries in facts.sections for key, value in entries}
    for path in facts.missing:
        is_token = keys.get(path) in {"pkcs11-module-path", "MODULE_PATH"}
        other = facts.libraries[0] if is_token and facts.libraries else ""
        yield _fault(
            "doctor.openssl_module_missing",
            seen=f"{facts.setting}: {keys.get(path, 'module')} = {path}, which does not exist",
            cause="An engine, a provider, or the chip's library is missing: keys in the chip cannot be loaded.",
            command=replacing(facts.file.path, path, other) if other else facts.setting.unset_command(),
            advice="Use a library that exists on this machine" if other else "Unset the configuration",
        )


def _providers(facts: OpensslFacts) -> Iterator[DoctorFinding]:
    """Yield findings about PKCS#11 providers.

    `default` stays active in addition, and keys are not shared between loads.
    """
    tables: Mapping[str, Mapping[str, str]] = {name: dict(entries) for name, entries in facts.sections}
    listing = next((table["providers"] for table in tables.values() if "providers" in table), "")
    providers = tables.get(listing, {}) if listing else {}
    for name, section in providers.items():
        table = tables.get(section, {})
        is_pkcs11 = any(key.startswith("pkcs11-module") for key in table)
        if is_pkcs11 and table.get("pkcs11-module-cache-keys", "true") != "false":
            yield DoctorFinding(
                "doctor.provider_caches_keys",
                Topic.OPENSSL,
                FindingSeverity.WARNING,
                f"[{section}] of {facts.file.path}: pkcs11-module-cache-keys is not false",
                cause=(
                    "The provider shares one copy of a key between loads: a program that reconnects eventually fails."
                ),
                command=_into(facts, section, "pkcs11-module-cache-keys = false"),
                advice="Disable the cache",
            )
        if name != "default":
            continue
        if table.get("activate") not in {"1", "yes", "true", "on"}:
            yield _no_default(facts, _into(facts, section, "activate = 1"))
    if providers and "default" not in providers:
        own = "birthmark_default"
        add = f"printf '\\n[{own}]\\nactivate = 1\\n' >> {shlex.quote(facts.file.path)}"
        yield _no_default(facts, f"{_into(facts, listing, f'default = {own}')} && {add}")


def _no_default(facts: OpensslFacts, command: str) -> DoctorFinding:
    return _fault(
        "doctor.provider_default_missing",
        seen=f"{facts.setting}: providers are listed, but default is not active",
        cause="Without the default provider, OpenSSL has no algorithms: TLS does not work.",
        command=command,
        advice="Activate it",
    )


def _into(facts: OpensslFacts, section: str, line: str) -> str:
    escaped = re.sub(r"([\\.*^$/\[\]])", r"\\\1", section)
    return shlex.join(["sed", "-i", rf"/^[[:space:]]*\[[[:space:]]*{escaped}[[:space:]]*\]/a {line}", facts.file.path])


def _pin(facts: OpensslFacts) -> Iterator[DoctorFinding]:
    has_pin = any(
        key == _PIN and value and not value.startswith("file:")
        for _name, entries in facts.sections
        for key, value in entries
    )
    if has_pin and facts.file.mode & 0o077:
        yield _fault(
            "doctor.pin_exposed",
            seen=f"{facts.file.path}: contains a PIN, mode {facts.file.mode:04o}",
            cause="Other users can read the PIN in the configuration.",
            command=shlex.join(["chmod", "0600", facts.file.path]),
            advice="Close it",
        )
