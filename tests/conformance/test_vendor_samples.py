"""The vendors' samples: programs that make the same calls from the same environment, and the samples themselves.

Where BIRTHMARK_VENDOR_SAMPLES names a folder with the SDKs' repositories, their own files run too, unmodified.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from birthmark.pki.certificates import parse_pem
from servers import RunningServer, a_new_server

pytestmark = pytest.mark.system
OURS = Path(__file__).parents[1] / "vendor_calls"
VENDORS = os.environ.get("BIRTHMARK_VENDOR_SAMPLES")


def samples(name: str) -> list[Path]:
    """Return our program of this name, and the vendor's wherever it lies."""
    return [OURS / name, *(sorted(Path(VENDORS).rglob(name)) if VENDORS else [])]


@dataclass(frozen=True)
class Chip:
    """A software SE050 at a server that knows its certificate."""

    server: RunningServer
    directory: Path
    environment: dict[str, str]
    slot: int

    @property
    def cert(self) -> str:
        return str(self.directory / "device.pem")

    @property
    def name(self) -> str:
        return str(parse_pem(Path(self.cert).read_text()).subject_cn)

    @property
    def pin(self) -> str:
        return Path(self.environment["BIRTHMARK_PIN_FILE"]).read_text().strip()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("vendors")) as running:
        yield running


@pytest.fixture
def chip(server: RunningServer, tmp_path: Path) -> Chip:
    made = json.loads(server.run("chip", "simulate", str(tmp_path / "chip"), "--json").stdout)
    environment = {name: value for name, value in made.items() if name.isupper()}
    server.run("chip", "cert", "0xF0000110", "--out", str(tmp_path / "device.pem"), **environment)
    server.run("chip", "refkey", "0xF0000110", "--out", str(tmp_path / "device.key"), **environment)
    listed = server.run("chip", "ls", "--json", **environment).stdout.splitlines()
    return Chip(server, tmp_path, environment, json.loads(listed[0])["slot"])


@pytest.fixture
def registered_at_aws(chip: Chip) -> Chip:
    iot = chip.server.cloud.boto3()
    made = iot.register_certificate_without_ca(certificatePem=Path(chip.cert).read_text(), status="ACTIVE")
    allowed = {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iot.create_policy(policyName=chip.name, policyDocument=policy)
    iot.attach_policy(policyName=chip.name, target=made["certificateArn"])
    return chip


# ---- Microsoft: provision_x509.py


@pytest.mark.parametrize("sample", samples("provision_x509.py"), ids=str)
def test_provision_x509_registers_and_sends_with_the_chips_key(chip: Chip, sample: Path) -> None:
    chip.server.run("device", "enroll", "--cert", chip.cert)
    identity = {"X509_CERT_FILE": chip.cert, "X509_KEY_FILE": str(chip.directory / "device.key")}
    environment = {**chip.server.environment, **chip.environment, **identity, "DPS_X509_REGISTRATION_ID": chip.name}
    chip.server.run("chip", "exec", "--", "python", str(sample), **environment)
    assert len(chip.server.rows("hub", "messages", chip.name)) == 10


@pytest.mark.parametrize("variable", ["PASS_PHRASE", "X509_PASS_PHRASE"])
def test_provision_x509_with_an_encrypted_key_file(server: RunningServer, tmp_path: Path, variable: str) -> None:
    name = variable.lower().replace("_", "-")
    server.run("ca", "init", "--name", "Factory", "--dir", str(tmp_path / "ca"))
    server.run("ca", "issue", name, "--dir", str(tmp_path / "ca"), "--out-dir", str(tmp_path))
    key, encrypted = tmp_path / f"{name}.key.pem", tmp_path / "encrypted.pem"
    command: list[str | Path] = [
        "openssl",
        "pkcs8",
        "-topk8",
        "-in",
        key,
        "-out",
        encrypted,
        "-passout",
        "pass:hushhush",
    ]
    subprocess.run(command, check=True)
    cert = str(tmp_path / f"{name}.cert.pem")
    server.run("device", "enroll", "--cert", cert)
    identity = {"X509_CERT_FILE": cert, "X509_KEY_FILE": str(encrypted), "DPS_X509_REGISTRATION_ID": name}
    environment = {**server.environment, **identity, variable: "hushhush"}
    subprocess.run([sys.executable, OURS / "provision_x509.py"], env=environment, check=True, timeout=60)
    assert len(server.rows("hub", "messages", name)) == 10


# ---- Amazon: pkcs11_connect.py


@pytest.mark.parametrize("sample", samples("pkcs11_connect.py"), ids=str)
@pytest.mark.parametrize("names", [("token_label",), ("slot",), ("token_label", "slot")], ids=" and ".join)
def test_pkcs11_connect_finds_the_chip(registered_at_aws: Chip, sample: Path, names: tuple[str, ...]) -> None:
    chip = registered_at_aws
    told = {"token_label": chip.environment["BIRTHMARK_TOKEN"], "slot": str(chip.slot)}
    named = [word for name in names for word in (f"--{name}", told[name])]
    done = connect(chip, sample, "--pin", chip.pin, *named, "--key_label", "sss:F0000110")
    assert done.returncode == 0, done.stderr
    assert "Connected!" in done.stdout


def test_an_empty_pin_opens_a_real_se050_and_not_the_software_chip(registered_at_aws: Chip) -> None:
    """The tutorial says so: NXP's library takes any PIN and has one slot, SoftHSM has a PIN and a spare slot."""
    done = connect(registered_at_aws, OURS / "pkcs11_connect.py", "--pin", "", "--key_label", "sss:F0000110")
    assert done.returncode != 0
    assert "PKCS11" in done.stderr


def connect(chip: Chip, sample: Path, *options: str) -> subprocess.CompletedProcess[str]:
    endpoint = chip.server.endpoints["aws"]["data_endpoint"]
    where = ("--endpoint", endpoint, "--ca_file", chip.server.endpoints["trust_bundle"], "--client_id", chip.name)
    what = ("--cert", chip.cert, "--pkcs11_lib", chip.environment["BIRTHMARK_PKCS11_MODULE"])
    environment = {**chip.server.environment, **chip.environment}
    command = [sys.executable, str(sample), *where, *what, *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


# ---- openssl: proof of possession


def test_openssl_answers_a_clouds_challenge_for_a_cas_certificate(server: RunningServer, tmp_path: Path) -> None:
    """Azure and AWS name a code; the CA issues a certificate of that name."""
    steps = (
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -days 30 -subj '/CN=Own CA'",
        "openssl genrsa -out verify.key 2048",
        'openssl req -new -key verify.key -out verify.csr -subj "/CN=$CODE"',
        "openssl x509 -req -in verify.csr -CA root.pem -CAkey root.key -CAcreateserial -out verify.pem -days 1 -sha256",
    )
    iot = server.cloud.boto3()
    code = iot.get_registration_code()["registrationCode"]
    for step in steps:
        subprocess.run(["bash", "-c", step], cwd=tmp_path, env={**os.environ, "CODE": code}, check=True, stderr=-1)
    made = iot.register_ca_certificate(
        caCertificate=(tmp_path / "root.pem").read_text(),
        verificationCertificate=(tmp_path / "verify.pem").read_text(),
        setAsActive=True,
    )
    assert (
        iot.describe_ca_certificate(certificateId=made["certificateId"])["certificateDescription"]["status"] == "ACTIVE"
    )


def test_openssl_proves_by_the_chip_that_it_has_its_key(chip: Chip) -> None:
    (chip.directory / "nonce").write_text("chosen by the asker\n")
    key, signature = str(chip.directory / "device.key"), chip.directory / "signature"
    environment = {**chip.server.environment, **chip.environment}
    signing = ("openssl", "dgst", "-sha256", "-sign", key, "-out", str(signature), str(chip.directory / "nonce"))
    chip.server.run("chip", "exec", "--", *signing, **environment)
    public = chip.directory / "public.pem"
    public.write_bytes(subprocess.check_output(["openssl", "x509", "-in", chip.cert, "-noout", "-pubkey"]))
    checking: list[str | Path] = [
        "openssl",
        "dgst",
        "-sha256",
        "-verify",
        public,
        "-signature",
        signature,
        chip.directory / "nonce",
    ]
    assert subprocess.check_output(checking, text=True) == "Verified OK\n"
