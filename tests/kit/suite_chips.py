"""EST and chips, as somebody's own tests use them."""

import ssl
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from birthmark.errors import BirthmarkError


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
        ["device", "send", "hello", "--cert", chip.certificate_file, "--chip"],
    ):
        done = subprocess.run([*birthmark, *command], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert birthmark_cloud.messages(at_least=1)[0]["body"] == "hello"


PROGRAM = """
import os
from azure.iot.device import X509, IoTHubDeviceClient, Message, ProvisioningDeviceClient
proof = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
name, scope = os.environ["PROVISIONING_REGISTRATION_ID"], os.environ["PROVISIONING_IDSCOPE"]
dps = ProvisioningDeviceClient.create_from_x509_certificate(os.environ["PROVISIONING_HOST"], name, scope, proof)
found = dps.register().registration_state
client = IoTHubDeviceClient.create_from_x509_certificate(proof, found.assigned_hub, found.device_id)
client.connect()
client.send_message("by the chip")
client.shutdown()
"""


def test_a_device_is_known_by_the_certificate_on_its_chip(birthmark_cloud, chip):
    device = birthmark_cloud.azure_device(by=chip)
    assert (device.certificate_file, device.key_file) == (chip.certificate_file, chip.key_file)
    birthmark = [sys.executable, "-c", "from birthmark.cli.app import main; main()"]
    command = [*birthmark, "chip", "exec", "--", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=device.environment(**chip.environment), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert device.messages(at_least=1)[0]["body"] == "by the chip"


def test_a_thing_is_known_by_the_certificate_that_it_got_by_est(birthmark_cloud, est_identity, revoked):
    thing = birthmark_cloud.aws_thing(by=est_identity)
    assert thing.name == est_identity.name
    connection = thing.connection()
    connection.connect().result(20)
    connection.disconnect().result(20)
    revoked(thing)
    with pytest.raises(Exception, match="AWS_ERROR"):
        thing.connection().connect().result(20)
    assert thing.why()["code"] == "awsiot.certificate_inactive"


def test_who_has_no_certificate_is_known_by_none(birthmark_cloud):
    with pytest.raises(AssertionError, match="has no certificate"):
        birthmark_cloud.aws_thing(by=birthmark_cloud.chip(kind="generic"))
    chip = birthmark_cloud.chip()
    with pytest.raises(BirthmarkError, match="azure-device") as refused:
        birthmark_cloud.azure_device(by=chip, auth="key")
    assert refused.value.code == "testing.word_invalid"


class Shown(NamedTuple):
    certificate_file: str
    key_file: str


def test_files_that_are_no_identity_are_refused_by_what_is_wrong(birthmark_cloud, azure_device, est_identity, tmp_path):
    certificate, key = azure_device.certificate_file, azure_device.key_file
    text = Path(certificate).read_text()
    (der := tmp_path / "der.cer").write_bytes(ssl.PEM_cert_to_DER_cert(text))
    (wide := tmp_path / "wide.pem").write_bytes(text.encode("utf-16"))
    (mac := tmp_path / "mac.pem").write_bytes(text.replace("\n", "\r").encode())
    sealed = subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret"], capture_output=True, check=True
    )
    (locked := tmp_path / "locked.key").write_bytes(sealed.stdout)
    for shown, wrong in (
        (Shown(str(mac), key), "OpenSSL cannot load"),
        (Shown(certificate, str(locked)), "needs a passphrase"),
        (Shown(certificate, est_identity.key_file), "is not the key of"),
        (Shown(certificate, "/nowhere.key"), "/nowhere.key cannot be read: no such file or directory"),
        (Shown(str(der), key), "is not PEM in UTF-8"),
        (Shown(str(wide), key), "is not PEM in UTF-8"),
        (Shown("/nowhere.pem", key), "/nowhere.pem cannot be read: no such file or directory"),
    ):
        for make in (birthmark_cloud.azure_device, birthmark_cloud.aws_thing):
            with pytest.raises(BirthmarkError, match="Invalid command: ") as refused:
                make("shown", by=shown)
            assert (refused.value.code, wrong in refused.value.cause) == ("testing.word_invalid", True)
    for files, wrong in (
        ({"key_file": key}, "key_file needs a certificate_file, which is missing"),
        ({"certificate_file": "no.pem", "key_file": key}, "no.pem cannot be read: no such file or directory"),
    ):
        with pytest.raises(BirthmarkError, match="Invalid command: ") as refused:
            birthmark_cloud.ask("azure-device", name="shown", **files)
        assert (refused.value.code, wrong in refused.value.cause) == ("testing.word_invalid", True)


def test_a_certificate_and_a_key_that_are_swapped_are_told_with_their_cause(birthmark_cloud, azure_device):
    with pytest.raises(BirthmarkError) as refused:
        birthmark_cloud.aws_thing(by=Shown(azure_device.key_file, azure_device.certificate_file))
    assert refused.value.code == "pki.certificate_key_swapped"
    assert any("variables are swapped" in note for note in refused.value.__notes__)


def test_a_key_in_a_chip_is_for_a_program_of_its_own(birthmark_cloud, chip):
    device, thing = birthmark_cloud.azure_device(by=chip), birthmark_cloud.aws_thing("thing", by=chip)
    for asked in (device.register, device.client, thing.connection, thing.client5):
        with pytest.raises(AssertionError, match=r"its key is in a chip, .*chip exec"):
            asked()


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
