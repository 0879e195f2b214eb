"""EST and chips, as somebody's own tests use them."""

import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding


def enroll(device, operation, *proof):
    """Ask by curl, as RFC 7030 says, for a certificate of the device's own key."""
    request = f"openssl req -new -key {device.key_file} -subj /CN={device.name} -outform DER | base64"
    csr = subprocess.run(["sh", "-c", request], capture_output=True, check=True).stdout
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", *proof, "--data-binary", "@-"]
    headers = ["-H", "Content-Type: application/pkcs10", "-H", "Content-Transfer-Encoding: base64"]
    told = subprocess.run([*command, *headers, f"{device.url}/{operation}"], input=csr, capture_output=True, check=True)
    return told.stdout.decode()


def test_a_device_has_a_certificate_of_the_ca(birthmark_cloud, est_identity):
    found = x509.load_pem_x509_certificate(open(est_identity.certificate_file, "rb").read())
    assert found.subject.rfc4514_string() == f"CN={est_identity.name}"
    assert found.public_bytes(Encoding.PEM)


def test_it_renews_by_its_certificate(birthmark_cloud, est_identity):
    shown = ("--cert", est_identity.certificate_file, "--key", est_identity.key_file)
    assert enroll(est_identity, "simplereenroll", *shown) == "200"


def test_a_revoked_certificate_renews_no_more(est_identity, revoked):
    revoked(est_identity)
    shown = ("--cert", est_identity.certificate_file, "--key", est_identity.key_file)
    assert enroll(est_identity, "simplereenroll", *shown) == "403"
    assert est_identity.why()["code"] == "est.client_certificate_revoked"


def test_a_user_that_is_removed_gets_nothing(est_identity, refuse):
    refuse("est.password_wrong", est_identity)
    user = ("-u", f"{est_identity.identity.username}:{est_identity.identity.password}")
    assert enroll(est_identity, "simpleenroll", *user) == "401"
    assert est_identity.why()["code"] == "est.password_wrong"


def test_a_chip_registers_its_device(birthmark_cloud, chip):
    environment = birthmark_cloud.environment(**chip.environment)
    birthmark = [sys.executable, "-c", "from birthmark.cli.app import main; main()"]
    for command in (
        ["device", "enroll", "--cert", chip.certificate_file],
        ["device", "send", "hello", "--cert", chip.certificate_file, "--element"],
    ):
        done = subprocess.run([*birthmark, *command], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert birthmark_cloud.messages(at_least=1)[0]["body"] == "hello"


@pytest.mark.parametrize("time", ["once", "and again"])
@pytest.mark.parametrize("kind", ["se050", "atecc608"])
def test_each_test_has_a_chip_of_its_own(birthmark_cloud, kind, time):
    made = [birthmark_cloud.chip(kind=kind), birthmark_cloud.chip("another", kind=kind)]
    assert len({chip.directory for chip in made}) == 2
    assert len({open(chip.certificate_file).read() for chip in made}) == 2


def test_a_token_of_no_maker_has_nothing_on_it_yet(birthmark_cloud):
    made = birthmark_cloud.chip(kind="generic")
    assert (made.certificate_file, made.key_file, made.key_label) == ("", "", "")
    birthmark = [sys.executable, "-c", "from birthmark.cli.app import main; main()"]
    keygen = birthmark_cloud.run(*birthmark, "chip", "keygen", "device", environment=made.environment)
    assert keygen.returncode == 0, keygen.stderr


def test_the_root_is_exchanged(birthmark_cloud, rollover):
    assert open(birthmark_cloud.ca_file).read().count("BEGIN CERTIFICATE") == 1
    assert rollover.start()["state"] == "both trusted, the old signs"
    assert open(birthmark_cloud.ca_file).read().count("BEGIN CERTIFICATE") == 2
    assert rollover.next()["state"] == "both trusted, the new signs"
    assert birthmark_cloud.est_identity().name
    assert rollover.back()["state"] == "both trusted, the old signs"


def test_the_root_is_the_first_one_again(birthmark_cloud):
    assert open(birthmark_cloud.ca_file).read().count("BEGIN CERTIFICATE") == 1
