"""`method = "azure"`: what it takes, and where it is refused."""

from pathlib import Path

import pytest

from birthmark.agent.config import AzureIssuance, ConfigInvalidError, IssuedIdentity, PreloadedIdentity, parse_config
from birthmark.agent.config.model import TokenLocation

FILE = Path("/etc/aziot/config.toml")
DPS = """\
[provisioning]
source = "dps"
global_endpoint = "https://dps.example"
id_scope = "0ne00ABCDEF"
[provisioning.attestation]
method = "x509"
registration_id = "device-1"
"""
ISSUED = """\
[provisioning.attestation.identity_cert]
method = "azure"
bootstrap_identity_cert = "file:///born.pem"
bootstrap_identity_pk = "file:///born.key"
"""
MANUAL = """\
[provisioning]
source = "manual"
iothub_hostname = "hub.example"
device_id = "device-1"
[provisioning.authentication]
method = "x509"
"""


def issuance_of(text: str) -> AzureIssuance:
    identity = parse_config(FILE, text).source.identity
    assert isinstance(identity, IssuedIdentity)
    assert identity.common_name == "device-1"
    assert isinstance(identity.by, AzureIssuance)
    return identity.by


def test_the_bootstrap_certificate_is_what_registers() -> None:
    assert issuance_of(DPS + ISSUED).bootstrap == PreloadedIdentity(Path("/born.pem"), Path("/born.key"))


def test_its_key_may_be_in_a_token() -> None:
    key = ISSUED.replace("file:///born.key", "pkcs11:token=chip;object=born")
    keys = '[aziot_keys]\npkcs11_lib_path = "/usr/lib/softhsm/libsofthsm2.so"\n'
    assert isinstance(issuance_of(DPS + key + keys).bootstrap.key, TokenLocation)


def test_how_long_it_lives_is_not_the_devices_to_say() -> None:
    (warning,) = parse_config(FILE, f"{DPS}{ISSUED}expiry_days = 9\n").warnings
    assert "the policy of the enrollment decides" in warning.detail


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DPS + ISSUED.partition("bootstrap")[0], "registration requires a certificate"),
        (DPS + ISSUED.partition("bootstrap_identity_pk")[0], "bootstrap_identity_pk: is missing"),
        (
            DPS + ISSUED.replace("[provisioning.attestation", "[provisioning.authentication"),
            "is missing; line 8 contains it as provisioning.authentication.identity_cert",
        ),
        (MANUAL + ISSUED.replace("attestation", "authentication"), "with the registration"),
        (DPS + ISSUED + '[edge_ca]\nmethod = "azure"\ncommon_name = "x"\n', "a device's own certificate alone"),
    ],
    ids=["nobody introduces it", "no key", "misplaced", "the hub is given", "a CA"],
)
def test_anything_else_is_a_mistake(text: str, said: str) -> None:
    with pytest.raises(ConfigInvalidError) as refused:
        parse_config(FILE, text)
    assert said in refused.value.explain_cause() + str(refused.value)
