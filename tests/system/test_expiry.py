"""Which expired certificates come back, by real handshakes with a server whose clock goes on: the whole table.

A device of each kind gets its certificate today. The server is then started at a later time, where every certificate of
one lifetime has expired, and each device shows what it has.
"""

import base64
import http.client
import json
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from birthmark.agent.state_directory import AgentPaths
from birthmark.est import wire
from birthmark.pki.certificates import Certificate
from support.agent.device import AgentOnDevice
from support.pki.pki_builders import Holder, a_ca, a_csr, a_device, a_key, key_pem
from support.server.servers import BIRTHMARK, RunningServer, clean_environment, free_address, with_clock

pytestmark = pytest.mark.system
LIFETIMES = {"day": 1, "month": 30, "years": 730}
RULES = {"never": None, "itself": False, "word": True}
WINDOW_DAYS = 30
CONDITIONS = ("honest", "revoked", "cloned", "wrong_key")
CLOCKS = ("right", "1970", "ten years ahead")

NOBODY, NO, WAIT, YES = 401, 403, 202, 200
WITHIN: Mapping[tuple[str, str], int] = {
    ("never", "honest"): NOBODY,
    ("never", "revoked"): NO,
    ("never", "cloned"): NOBODY,
    ("never", "wrong_key"): NOBODY,
    ("itself", "honest"): YES,
    ("itself", "revoked"): NO,
    ("itself", "cloned"): NO,
    ("itself", "wrong_key"): NOBODY,
    ("word", "honest"): WAIT,
    ("word", "revoked"): NO,
    ("word", "cloned"): NO,
    ("word", "wrong_key"): NOBODY,
}
AFTER: Mapping[tuple[str, str], int] = {
    place: NO if answer in {YES, WAIT} else answer for place, answer in WITHIN.items()
}
"""Later than the window, nobody."""


def configuration() -> str:
    lines = ["[est]", "renewals_per_s = 100000"]
    for (lifetime, days), (rule, approval) in product(LIFETIMES.items(), RULES.items()):
        name = f"{lifetime}-{rule}"
        lines += [f"[ca.profiles.{name}]", 'based_on = "device"', f'lifetime = "{days}d"']
        lines += [f"[est.labels.{name}]", f'profile = "{name}"']
        if approval is not None:
            lines += [f"[est.late_renewal.{name}]", f'window = "{WINDOW_DAYS}d"', f"approval = {json.dumps(approval)}"]
    return "\n".join(lines) + "\n"


@dataclass
class Shown:
    """What a device holds: a certificate and a key, which may not belong together."""

    name: str
    label: str
    certificate: Certificate
    file: Path

    @classmethod
    def of(cls, name: str, label: str, certificate: Certificate, key: str, directory: Path) -> "Shown":
        file = directory / f"{name}.pem"
        file.write_text(key + certificate.pem())
        return cls(name, label, certificate, file)


def ask(server: RunningServer, name: str, label: str, shown: Shown | str) -> tuple[int, bytes, str]:
    """Ask for a certificate, by what a device holds or a password. Return status, body, and the new key as PEM."""
    # Whether the server's certificate is good is for others to show: here its clock is years ahead of ours.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    headers, key = {"Content-Type": wire.PKCS10}, a_key()
    if isinstance(shown, str):
        headers["Authorization"] = f"Basic {shown}"
    else:
        context.load_cert_chain(shown.file)
    connection = http.client.HTTPSConnection(server.address, 8085, context=context, timeout=30)
    connection.request("POST", f"{wire.BASE_PATH}/{label}/simpleenroll", wire.render_csr(a_csr(name, key=key)), headers)
    answer = connection.getresponse()
    told = answer.read()
    connection.close()
    return answer.status, told, key_pem(key)


def got(server: RunningServer, name: str, label: str, directory: Path, by: Shown | str) -> Shown:
    """Have a certificate issued."""
    status, told, key = ask(server, name, label, by)
    assert status == 200, told
    (leaf,) = wire.parse_certs_only(told)
    return Shown.of(f"{name}-{leaf.serial:x}", label, leaf, key, directory)


def lookalike(one: Certificate) -> Holder:
    """Return a certificate that says the same under a CA of the same name, and has a key of its own."""
    ca = a_ca(one.issuer.rfc4514_string().removeprefix("CN="))
    return a_device(ca, one.subject_cn or "")


@dataclass
class Fleet:
    """One device for each lifetime, rule and condition."""

    server: RunningServer
    shown: Mapping[tuple[str, str, str], Shown]


def prepared(server: RunningServer, directory: Path) -> Fleet:
    made = server.rows("pki", "user", "create", "factory", "--any-name")[0]
    basic = base64.b64encode(f"factory:{made['password']}".encode()).decode()
    shown = {}
    for lifetime, rule, condition in product(LIFETIMES, RULES, CONDITIONS):
        name, label = f"{lifetime}-{rule}-{condition}".replace("_", "-"), f"{lifetime}-{rule}"
        first = got(server, name, label, directory, basic)
        if condition == "revoked":
            server.run("pki", "revoke", first.certificate.thumbprint.hex(), "--yes")
        if condition == "cloned":
            got(server, name, label, directory, got(server, name, label, directory, first))
        if condition == "wrong_key":
            other = lookalike(first.certificate)
            first = Shown.of(f"{name}-other", label, other.certificate, other.key_pem, directory)
        shown[lifetime, rule, condition] = first
    return Fleet(server, shown)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("expiry")
    (directory / "server.toml").write_text(configuration())
    server = RunningServer(directory / "data", free_address(), directory / "server.toml").start()
    try:
        (directory / "devices").mkdir()
        yield prepared(server, directory / "devices")
    finally:
        if server.process is not None:
            server.stop()


def later(server: RunningServer, days: int) -> RunningServer:
    server.stop()
    server.clock = f"+{days}d"
    return server.start()


@pytest.mark.parametrize("lifetime", LIFETIMES)
@pytest.mark.parametrize(("since_days", "table"), [(10, WITHIN), (40, AFTER)], ids=["within", "after"])
def test_who_comes_back(fleet: Fleet, lifetime: str, since_days: int, table: Mapping[tuple[str, str], int]) -> None:
    server = later(fleet.server, LIFETIMES[lifetime] + since_days)
    answers = {}
    for rule, condition in table:
        one = fleet.shown[lifetime, rule, condition]
        name = f"{lifetime}-{rule}-{condition}".replace("_", "-")
        answers[rule, condition] = ask(server, name, one.label, one)[0]
    assert answers == table


@dataclass
class AgentWithClock:
    """A device that has nothing but the certificate of its first start, and a clock of its own."""

    device: AgentOnDevice
    clock: str

    @classmethod
    def enrolled(cls, server: RunningServer, label: str, directory: Path, name: str, clock: str) -> "AgentWithClock":
        device = AgentOnDevice(server, directory / name, name)
        device.configure(lambda text: text.replace('/.well-known/est"', f'/.well-known/est/{label}"'))
        device.row("apply")
        server.run("pki", "user", "rm", server.est_credential(name).name, "--yes")
        return cls(device, clock)

    def switched_on(self, offset_days: int) -> subprocess.CompletedProcess[str]:
        """Apply after another start, when the machine's clock says what it says."""
        state = AgentPaths(self.device.root).state
        state.write_text(json.dumps({**json.loads(state.read_text()), "clock_boot": "another start"}))
        told = {
            "right": f"+{offset_days}d",
            "1970": "@1970-01-02 00:00:00",
            "ten years ahead": f"+{offset_days + 3650}d",
        }[self.clock]
        command = [BIRTHMARK, "agent", "apply", "--root", str(self.device.root), "--json"]
        environment = clean_environment(HOME=str(self.device.root), **self.device.environment, **with_clock(told))
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.mark.parametrize("lifetime", LIFETIMES)
def test_an_agent_comes_back_whatever_its_clock_says_and_a_revoked_one_does_not(lifetime: str, tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text(configuration())
    server = RunningServer(tmp_path / "data", free_address(), tmp_path / "server.toml").start()
    try:
        server.run("dps", "ca", "create", "est-root", server.endpoints["trust_bundle"], "--verified")
        server.run("device", "enroll-group", "est-group", "--ca-name", "est-root")
        with ThreadPoolExecutor(6) as pool:  # what takes its time is the pause that DPS asks for
            enrolled = partial(AgentWithClock.enrolled, server, f"{lifetime}-itself", tmp_path)
            honest = list(pool.map(enrolled, (f"honest-{n}" for n, _ in enumerate(CLOCKS)), CLOCKS))
            revoked = list(pool.map(enrolled, (f"revoked-{n}" for n, _ in enumerate(CLOCKS)), CLOCKS))
            for one in revoked:
                server.run("pki", "revoke", "--device", one.device.name, "--yes")
            days = LIFETIMES[lifetime] + 10
            later(server, days)
            switched_on = list(pool.map(lambda one: one.switched_on(days), [*honest, *revoked]))
        for one, done in zip(honest, switched_on, strict=False):
            assert done.returncode == 0, (one.clock, done.stderr)
            assert one.device.thumbprint_at_hub() == json.loads(done.stdout)["thumbprint"]
        assert 0 not in [done.returncode for done in switched_on[len(honest) :]]
    finally:
        server.stop()
