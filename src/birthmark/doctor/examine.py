"""The examination: what is looked at, in which order, offline first."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from birthmark.doctor import chip, servers
from birthmark.doctor.asking import chips_asked
from birthmark.doctor.facts import Setting, TrustSeen
from birthmark.doctor.looking import bytes_of, seen
from birthmark.doctor.model import Finding
from birthmark.doctor.rules import chip as chip_rules
from birthmark.doctor.rules import environment as environment_rules

_CAS = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
_MAX_BUNDLE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: settings by name, as options, variables or the agent's configuration say them."""

    environment: Mapping[str, str]
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
    for asked, question in chips_asked(patient.settings, patient.environment, patient.root):
        progress(f"Asking {question.module}")
        yield from chip_rules.findings(chip.look(asked, question, patient.environment, patient.root))


def _trust(patient: Patient) -> Iterator[TrustSeen]:
    for name in _CAS:
        if (setting := patient.get(name)) is not None:
            path = Path(setting.value)
            count = bytes_of(path, _MAX_BUNDLE_BYTES).count(b"-----BEGIN CERTIFICATE-----")
            yield TrustSeen(setting, seen(path), count)
