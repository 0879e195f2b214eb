"""Sequence of the inspections, offline checks first."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from birthmark.doctor import agent_inspection, chip, identity, local_server_checks, middleware_config, network
from birthmark.doctor.facts import ChipFacts, ChipSelection, PathFacts, ProbeExit, Reachable, ServerFacts, TrustFacts
from birthmark.doctor.file_inspection import bytes_of, inspect_file, libraries
from birthmark.doctor.findings import DoctorFinding
from birthmark.doctor.pkcs11_probe import ProbeQuestion
from birthmark.doctor.rules import agent as agent_rules
from birthmark.doctor.rules import chip as chip_rules
from birthmark.doctor.rules import connection_environment_variables as environment_rules
from birthmark.doctor.rules import i2c_bus_and_scp03 as bus_rules
from birthmark.doctor.rules import identity as identity_rules
from birthmark.doctor.rules import network as network_rules
from birthmark.doctor.rules import openssl_config as openssl_rules
from birthmark.doctor.rules import server as server_rules
from birthmark.doctor.setting_sources import SourcedSetting
from birthmark.keys.errors import SoftHsmMissingError
from birthmark.keys.pkcs11_library_lifecycle import find_libraries, find_softhsm
from birthmark.untrusted_json_and_text import whole_number

_DEBIAN = Path("/usr/lib/softhsm/libsofthsm2.so")  # path in the finding if none exists
_MADE_FOR_A_CHIP = ("libsss_pkcs11", "libcryptoauth")
_SAID = ("module", "token", "slot", "pin_file", "key")


def chips_asked(
    settings: Mapping[str, SourcedSetting], environment: Mapping[str, str], *, has_other: bool
) -> Iterator[tuple[ChipSelection, ProbeQuestion]]:
    """Yield the selected secure element; otherwise SoftHSM, if a variable names its settings and no other exists."""
    said = {name: settings.get(name) for name in _SAID}
    if not any(said.values()) and (has_other or not environment.get("SOFTHSM2_CONF")):
        return
    module = said["module"]
    if module is None:
        try:
            path = find_softhsm()
        except SoftHsmMissingError:
            path = _DEBIAN
    else:
        path = Path(module.value)
    yield _asked(said), _question(said, path)


def not_named(settings: Mapping[str, SourcedSetting], environment: Mapping[str, str], root: Path) -> list[Path]:
    """Return the libraries of secure elements on this machine, if no setting names a library."""
    if settings.get("module") is not None or environment.get("SOFTHSM2_CONF"):
        return []
    return [path for path in find_libraries(root) if path.name.startswith(_MADE_FOR_A_CHIP)]


def _asked(said: Mapping[str, SourcedSetting | None]) -> ChipSelection:
    return ChipSelection(said["module"], said["token"], said["slot"], said["pin_file"], said["key"])


def _question(said: Mapping[str, SourcedSetting | None], module: Path) -> ProbeQuestion:
    def value(name: str) -> str | None:
        found = said[name]
        return None if found is None else found.value

    return ProbeQuestion(
        str(module),
        token=value("token"),
        slot=whole_number(value("slot") or ""),
        pin_file=value("pin_file"),
    )


_CAS = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
_MAX_BUNDLE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class InspectionContext:
    """Subject of the inspection: settings by name, from options, variables or the agent's configuration."""

    environment: Mapping[str, str]
    now: datetime
    settings: Mapping[str, SourcedSetting] = field(default_factory=dict)
    root: Path = Path("/")
    is_offline: bool = False

    def get(self, name: str) -> SourcedSetting | None:
        return self.settings.get(name)


def examine(patient: InspectionContext, progress: Callable[[str], None]) -> Iterator[DoctorFinding]:
    """Yield the findings, causes before consequences, which a caller can remove."""
    server = local_server_checks.inspect_server(patient.get("data"), patient.environment)
    device = agent_inspection.inspect_agent(patient.get("config"), patient.root)
    yield from _surroundings(patient, server)
    chips: list[ChipFacts] = []
    named = chips_asked(patient.settings, patient.environment, has_other=agent_inspection.has_token(device))
    for asked, question in [*named, *_chips_of(device)]:
        progress(f"Asking {question.module}")
        chips.append(chip.inspect_chip(asked, question, patient.environment, patient.root))
        yield from chip_rules.findings(chips[-1])
    data = None if server is None else Path(server.data)
    held = identity.inspect_identity(patient.settings, patient.environment, data, patient.now)
    if held is not None:
        yield from identity_rules.findings(held, tuple(chips))
    known = None if server is None else local_server_checks.reachable(server.data)
    if device is not None and any(one.ending is not ProbeExit.FINE for one in chips):
        yield agent_rules.not_checked(str(device.file))
    elif device is not None:
        progress(f"Checking the agent of {device.file}")
        checks = agent_inspection.checks_of(device, patient.environment, is_offline=patient.is_offline)
        yield from agent_rules.findings(checks, device.texts, known)
    yield from _network(patient, server, known, progress)


def _network(
    patient: InspectionContext, server: ServerFacts | None, reachable: Reachable | None, progress: Callable[[str], None]
) -> Iterator[DoctorFinding]:
    """Yield findings about clock, proxy and names; servers are contacted last, unless offline."""
    if server is not None:
        yield from server_rules.findings(
            server if patient.is_offline else local_server_checks.query_status(server, patient.now)
        )
    yield from network_rules.clock(asyncio.run(network.clock(patient.now, reachable, is_offline=patient.is_offline)))
    hosts = network.hosts_of(server, reachable)
    proxy = network.proxy_of(patient.settings, hosts, is_offline=patient.is_offline)
    if proxy is not None:
        yield from network_rules.proxy(proxy)
    asked = []
    for place in network.places(patient.settings):
        told = list(network_rules.named(place))
        yield from told
        if not told and not patient.is_offline:
            progress(f"Connecting to {place.host}")
            asked.append(network.ask(place, patient.environment))
    yield from network_rules.places(asked, server)


def _surroundings(patient: InspectionContext, server: ServerFacts | None) -> Iterator[DoctorFinding]:
    """Yield findings about the environment and the path to a secure element."""
    if server is not None:
        yield from environment_rules.of_another_server(server)
        yield from environment_rules.not_set_up(server)
    yield from environment_rules.trust([*_trust(patient)], server)
    openssl = middleware_config.look_at_openssl(patient.get("OPENSSL_CONF"), patient.root)
    if openssl is not None:
        yield from openssl_rules.findings(openssl)
    yield from environment_rules.paths([*_paths(patient)])
    yield from bus_rules.findings(middleware_config.look_at_bus(patient.settings, patient.root))
    unnamed = not_named(patient.settings, patient.environment, patient.root)
    yield from chip_rules.not_named([str(path) for path in unnamed])


def _chips_of(device: agent_inspection.AgentFacts | None) -> Iterator[tuple[ChipSelection, ProbeQuestion]]:
    return iter(()) if device is None else agent_inspection.chips_in(device)


def _paths(patient: InspectionContext) -> Iterator[PathFacts]:
    for name in ("PKCS11_PROVIDER_MODULE", "TPM2_PKCS11_STORE", "SSL_CERT_DIR"):
        if (setting := patient.get(name)) is not None:
            instead = libraries(patient.root) if name == "PKCS11_PROVIDER_MODULE" else []
            yield PathFacts(setting, inspect_file(Path(setting.value)), next(iter(instead), ""))


def _trust(patient: InspectionContext) -> Iterator[TrustFacts]:
    for name in _CAS:
        if (setting := patient.get(name)) is not None:
            path = Path(setting.value)
            count = bytes_of(path, _MAX_BUNDLE_BYTES).count(b"-----BEGIN CERTIFICATE-----")
            yield TrustFacts(setting, inspect_file(path), count)
