"""OPENSSL_CONF: engines and providers that programs load by it, and how they go wrong."""

import re
import shlex
from collections.abc import Iterator, Mapping
from functools import partial

from birthmark.doctor.facts import OpensslFacts
from birthmark.doctor.model import DoctorFinding, FindingSeverity, Topic
from birthmark.doctor.setting_sources import replacing

Sections = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]

_SECTION = re.compile(r"\s*\[([^\]]+)\]")
_ENTRY = re.compile(r"\s*([\w.\-]+)\s*=\s*(.*?)\s*$")
_PATHS = ("module", "dynamic_path", "pkcs11-module-path", "MODULE_PATH")
_PIN = "pkcs11-module-token-pin"
_MAX_LINES = 5_000
_fault = partial(DoctorFinding, topic=Topic.OPENSSL, severity=FindingSeverity.FAULT)


def parse(text: str) -> Sections:
    """Return the sections of a configuration and their entries, in order; comments are left out."""
    found: list[tuple[str, list[tuple[str, str]]]] = [("", [])]
    for line in text.splitlines()[:_MAX_LINES]:
        bare = line.partition("#")[0]
        if (section := _SECTION.match(bare)) is not None:
            found.append((section[1].strip(), []))
        elif (entry := _ENTRY.match(bare)) is not None:
            found[-1][1].append((entry[1], entry[2]))
    return tuple((name, tuple(entries)) for name, entries in found)


def paths_in(sections: Sections) -> list[str]:
    """Return the files that a configuration loads."""
    return [value for _name, entries in sections for key, value in entries if key in _PATHS and value.startswith("/")]


def findings(seen: OpensslFacts) -> Iterator[DoctorFinding]:
    """Return what is wrong with the configuration."""
    if not seen.file.exists or seen.file.reason:
        yield _fault(
            "doctor.openssl_conf_missing",
            seen=f"{seen.setting}: {seen.file.reason or 'no such file'}",
            cause=(
                "OpenSSL's configuration does not exist: it loads no engine and no provider, without an error message."
            ),
            command=seen.setting.away(),
            advice="Use OpenSSL's default configuration",
        )
        return
    found = [*_missing(seen), *_providers(seen), *_pin(seen)]
    yield from found
    if not found:
        yield DoctorFinding("doctor.openssl_conf", Topic.OPENSSL, FindingSeverity.OK, str(seen.setting))


def _missing(seen: OpensslFacts) -> Iterator[DoctorFinding]:
    keys = {value: key for _name, entries in seen.sections for key, value in entries}
    for path in seen.missing:
        is_token = keys.get(path) in {"pkcs11-module-path", "MODULE_PATH"}
        other = seen.libraries[0] if is_token and seen.libraries else ""
        yield _fault(
            "doctor.openssl_module_missing",
            seen=f"{seen.setting}: {keys.get(path, 'module')} = {path}, which does not exist",
            cause="An engine, a provider, or the chip's library is missing: keys in the chip cannot be loaded.",
            command=replacing(seen.file.path, path, other) if other else seen.setting.away(),
            advice="Use a library that this machine has" if other else "Unset the configuration",
        )


def _providers(seen: OpensslFacts) -> Iterator[DoctorFinding]:
    """PKCS#11 by a provider: `default` stays active beside it, and keys are not shared between loads."""
    tables: Mapping[str, Mapping[str, str]] = {name: dict(entries) for name, entries in seen.sections}
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
                f"[{section}] of {seen.file.path}: pkcs11-module-cache-keys is not false",
                cause=(
                    "The provider shares one copy of a key between loads: a program that reconnects eventually fails."
                ),
                command=_into(seen, section, "pkcs11-module-cache-keys = false"),
                advice="Disable the cache",
            )
        if name != "default":
            continue
        if table.get("activate") not in {"1", "yes", "true", "on"}:
            yield _no_default(seen, _into(seen, section, "activate = 1"))
    if providers and "default" not in providers:
        own = "birthmark_default"
        add = f"printf '\\n[{own}]\\nactivate = 1\\n' >> {shlex.quote(seen.file.path)}"
        yield _no_default(seen, f"{_into(seen, listing, f'default = {own}')} && {add}")


def _no_default(seen: OpensslFacts, command: str) -> DoctorFinding:
    return _fault(
        "doctor.provider_default_missing",
        seen=f"{seen.setting}: providers are listed, but default is not active",
        cause="Without the default provider, OpenSSL has no algorithms: TLS does not work.",
        command=command,
        advice="Activate it",
    )


def _into(seen: OpensslFacts, section: str, line: str) -> str:
    escaped = re.sub(r"([\\.*^$/\[\]])", r"\\\1", section)
    return shlex.join(["sed", "-i", rf"/^[[:space:]]*\[[[:space:]]*{escaped}[[:space:]]*\]/a {line}", seen.file.path])


def _pin(seen: OpensslFacts) -> Iterator[DoctorFinding]:
    has_pin = any(
        key == _PIN and value and not value.startswith("file:")
        for _name, entries in seen.sections
        for key, value in entries
    )
    if has_pin and seen.file.mode & 0o077:
        yield _fault(
            "doctor.pin_exposed",
            seen=f"{seen.file.path}: contains a PIN, mode {seen.file.mode:04o}",
            cause="Other users can read the PIN in the configuration.",
            command=shlex.join(["chmod", "0600", seen.file.path]),
            advice="Close it",
        )
