"""The vendors' samples: programs that make the same calls from the same environment, and the samples themselves.

Where BIRTHMARK_VENDOR_SAMPLES names a folder with the SDKs' repositories, their own files run too, unmodified.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from birthmark.testing.cloud import ChipFiles, Cloud
from support.aws.device import document, statement
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
OURS = Path(__file__).parents[1] / "vendor_calls"
VENDORS = os.environ.get("BIRTHMARK_VENDOR_SAMPLES")


def samples(name: str) -> list[Path]:
    """Return our program of this name, and the vendor's wherever it lies."""
    return [OURS / name, *(sorted(Path(VENDORS).rglob(name)) if VENDORS else [])]


@pytest.fixture
def chip(server: RunningServer, cloud: Cloud, tmp_path: Path) -> ChipFiles:
    """A software SE050 as its RSA key is used: awscrt takes no other by PKCS#11."""
    made = cloud.chip()
    certificate, key = str(tmp_path / "device.pem"), str(tmp_path / "device.key")
    server.run("chip", "cert", "0xF0000110", "--out", certificate, **made.environment)
    server.run("chip", "refkey", "0xF0000110", "--out", key, **made.environment)
    return replace(made, certificate_file=certificate, key_file=key)


def pin_of(chip: ChipFiles) -> str:
    return Path(chip.environment["BIRTHMARK_PIN_FILE"]).read_text().strip()


# ---- Microsoft: provision_x509.py


@pytest.mark.parametrize("sample", samples("provision_x509.py"), ids=str)
def test_provision_x509_registers_and_sends_with_the_chips_key(
    server: RunningServer, cloud: Cloud, chip: ChipFiles, sample: Path
) -> None:
    device = cloud.azure_device(by=chip)
    server.run("chip", "exec", "--", "python", str(sample), **device.environment(**chip.environment))
    assert len(device.messages()) == 10


@pytest.mark.parametrize("variable", ["PASS_PHRASE", "X509_PASS_PHRASE"])
def test_provision_x509_with_an_encrypted_key_file(cloud: Cloud, tmp_path: Path, variable: str) -> None:
    device, encrypted = cloud.azure_device(), str(tmp_path / "encrypted.pem")
    command = ["openssl", "pkcs8", "-topk8", "-in", device.key_file, "-out", encrypted, "-passout", "pass:hushhush"]
    subprocess.run(command, check=True)
    environment = device.environment(**{"X509_KEY_FILE": encrypted, variable: "hushhush"})
    subprocess.run([sys.executable, OURS / "provision_x509.py"], env=environment, check=True, timeout=60)
    assert len(device.messages()) == 10


# ---- Amazon: pkcs11_connect.py


@pytest.mark.parametrize("sample", samples("pkcs11_connect.py"), ids=str)
@pytest.mark.parametrize("names", [("token_label",), ("slot",), ("token_label", "slot")], ids=" and ".join)
def test_pkcs11_connect_finds_the_chip(
    server: RunningServer, cloud: Cloud, chip: ChipFiles, sample: Path, names: tuple[str, ...]
) -> None:
    (token, *_) = server.rows("chip", "ls", **chip.environment)
    told = {"token_label": chip.environment["BIRTHMARK_TOKEN"], "slot": str(token["slot"])}
    named = [word for name in names for word in (f"--{name}", told[name])]
    done = connect(cloud, chip, sample, "--pin", pin_of(chip), *named)
    assert done.returncode == 0, done.stderr
    assert "Connected!" in done.stdout


def test_an_empty_pin_opens_a_real_se050_and_not_the_software_chip(cloud: Cloud, chip: ChipFiles) -> None:
    """The tutorial says so: NXP's library takes any PIN and has one slot, SoftHSM has a PIN and a spare slot."""
    done = connect(cloud, chip, OURS / "pkcs11_connect.py", "--pin", "")
    assert done.returncode != 0
    assert "PKCS11" in done.stderr


def connect(cloud: Cloud, chip: ChipFiles, sample: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    thing = cloud.aws_thing(policy=document(statement("iot:Connect")), by=chip)
    where = ("--endpoint", thing.endpoint, "--ca_file", cloud.ca_file, "--client_id", thing.name)
    what = ("--cert", chip.certificate_file, "--pkcs11_lib", chip.environment["BIRTHMARK_PKCS11_MODULE"])
    command = (sys.executable, str(sample), *where, *what, "--key_label", "sss:F0000110", *options)
    return cloud.run(*command, environment=chip.environment)


# ---- openssl: proof of possession


def test_openssl_answers_a_clouds_challenge_for_a_cas_certificate(cloud: Cloud, tmp_path: Path) -> None:
    """Azure and AWS name a code; the CA issues a certificate of that name."""
    steps = (
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -days 30 -subj '/CN=Own CA'",
        "openssl genrsa -out verify.key 2048",
        'openssl req -new -key verify.key -out verify.csr -subj "/CN=$CODE"',
        "openssl x509 -req -in verify.csr -CA root.pem -CAkey root.key -CAcreateserial -out verify.pem -days 1 -sha256",
    )
    iot = cloud.boto3()
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


def test_openssl_proves_by_the_chip_that_it_has_its_key(
    server: RunningServer, cloud: Cloud, chip: ChipFiles, tmp_path: Path
) -> None:
    nonce, signature, public = (str(tmp_path / name) for name in ("nonce", "signature", "public"))
    Path(nonce).write_text("chosen by the asker\n")
    signing = ("openssl", "dgst", "-sha256", "-sign", chip.key_file, "-out", signature, nonce)
    server.run("chip", "exec", "--", *signing, **cloud.environment(**chip.environment))
    shown = subprocess.check_output(["openssl", "x509", "-in", chip.certificate_file, "-noout", "-pubkey"])
    Path(public).write_bytes(shown)
    checking = ["openssl", "dgst", "-sha256", "-verify", public, "-signature", signature, nonce]
    assert subprocess.check_output(checking, text=True) == "Verified OK\n"
