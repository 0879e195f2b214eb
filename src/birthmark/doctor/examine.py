"""The examination: what is looked at, in which order, offline first."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from birthmark.doctor import chip, identity, servers, wiring
from birthmark.doctor.asking import chips_asked, not_named
from birthmark.doctor.facts import Setting, TrustSeen
from birthmark.doctor.looking import bytes_of, seen
from birthmark.doctor.model import Finding
from birthmark.doctor.rules import bus as bus_rules
from birthmark.doctor.rules import chip as chip_rules
from birthmark.doctor.rules import environment as environment_rules
from birthmark.doctor.rules import identity as identity_rules
from birthmark.doctor.rules import openssl as openssl_rules

_CAS = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
_MAX_BUNDLE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: settings by name, as options, variables or the agent's configuration say them."""

    environment: Mapping[str, str]
    now: datetime
    settings: Mapping[str, Setting] = field(default_factory=dict)
    root: Path = Path("/")
    is_offline: bool = False

    def get(self, name: str) -> Setting | None:
        return self.settings.get(name)


def examine(patient: Patient, progress: Callable[[str], None]) -> Iterator[Finding]:
    """Yield what is found, causes before consequences; `told` takes the consequences out."""
    server = servers.look(patient.get("data"), patient.environment)
    if server is not None:
        yield from environment_rules.of_another_server(server)
    yield from environment_rules.trust([*_trust(patient)], server)
    openssl = wiring.look_at_openssl(patient.get("OPENSSL_CONF"), patient.root)
    if openssl is not None:
        yield from openssl_rules.findings(openssl)
    yield from bus_rules.findings(wiring.look_at_bus(patient.settings, patient.root))
    chips = []
    unnamed = not_named(patient.settings, patient.environment, patient.root)
    yield from chip_rules.not_named([str(path) for path in unnamed])
    for asked, question in chips_asked(patient.settings, patient.environment, patient.root):
        progress(f"Asking {question.module}")
        chips.append(chip.look(asked, question, patient.environment, patient.root))
        yield from chip_rules.findings(chips[-1])
    data = None if server is None else Path(server.data)
    held = identity.look(patient.settings, patient.environment, data, patient.now)
    if held is not None:
        yield from identity_rules.findings(held, tuple(chips))


def _trust(patient: Patient) -> Iterator[TrustSeen]:
    for name in _CAS:
        if (setting := patient.get(name)) is not None:
            path = Path(setting.value)
            count = bytes_of(path, _MAX_BUNDLE_BYTES).count(b"-----BEGIN CERTIFICATE-----")
            yield TrustSeen(setting, seen(path), count)
