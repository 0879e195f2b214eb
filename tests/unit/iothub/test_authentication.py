"""Which credential opens a device's connection to its hub, and why each other does not."""

from dataclasses import replace
from datetime import timedelta

import pytest

from birthmark.auth.sas import SasExpiredError, SasScopeError, SasSignatureError
from birthmark.errors import BirthmarkError
from birthmark.iothub.model import AuthenticationType, Device, DeviceAuthentication, parse_device_id
from birthmark.iothub.rules.authentication import (
    ClientIdError,
    DeviceDisabledError,
    NoCredentialsError,
    ThumbprintMismatchError,
    authenticate,
    check_client_id,
)
from birthmark.pki import certificate_profiles
from birthmark.pki.path_validation import CertificateExpiredError
from birthmark.pki.single_certificate_checks import WrongPurposeError
from support.azure.sas_tokens import make_sas
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_device

HOST, KEY, OTHER_KEY = "hub.example", b"k" * 32, b"o" * 32
LEAF = a_device(common_name="device-1").certificate
BY_KEYS = DeviceAuthentication(AuthenticationType.SAS, primary_key=KEY, secondary_key=OTHER_KEY)
SOON_S = int((NOON + timedelta(hours=1)).timestamp())


def a_hub_device(authentication: DeviceAuthentication, *, is_enabled: bool = True) -> Device:
    device_id = parse_device_id("device-1")
    return Device(
        "main",
        device_id,
        "g",
        "e",
        is_enabled,
        None,
        authentication,
        is_iot_edge=False,
        created_at=NOON,
        updated_at=NOON,
    )


def by_thumbprints(*thumbprints: bytes) -> Device:
    return a_hub_device(DeviceAuthentication(AuthenticationType.SELF_SIGNED, *thumbprints))


def a_token(key: bytes = KEY, resource: str = f"{HOST}/devices/device-1", expiry_s: int = SOON_S) -> bytes:
    return make_sas(resource, key, expiry_s).encode()


@pytest.mark.parametrize(
    "thumbprints",
    [(LEAF.thumbprint,), (LEAF.x5t_sha1,), (b"x" * 32, LEAF.thumbprint)],
    ids=["SHA-256", "SHA-1", "the secondary"],
)
def test_a_certificate_on_record_opens(thumbprints: tuple[bytes, ...]) -> None:
    authenticate(by_thumbprints(*thumbprints), HOST, LEAF, None, NOON)


@pytest.mark.parametrize("key", [KEY, OTHER_KEY], ids=["primary", "secondary"])
def test_a_token_of_either_key_opens(key: bytes) -> None:
    authenticate(a_hub_device(BY_KEYS), HOST, None, a_token(key), NOON)


def test_a_device_that_is_switched_off_is_refused_with_the_right_certificate() -> None:
    device = replace(by_thumbprints(LEAF.thumbprint), is_enabled=False)
    with pytest.raises(DeviceDisabledError):
        authenticate(device, HOST, LEAF, None, NOON)


def test_another_certificate_is_refused_and_what_was_expected_is_told() -> None:
    with pytest.raises(ThumbprintMismatchError) as refusal:
        authenticate(by_thumbprints(b"\1" * 32, b"\2" * 20), HOST, LEAF, None, NOON)
    assert refusal.value.facts["expected"] == f"{'01' * 32} or {'02' * 20}"


def test_without_a_thumbprint_on_record_no_certificate_opens() -> None:
    with pytest.raises(ThumbprintMismatchError) as refusal:
        authenticate(by_thumbprints(), HOST, LEAF, None, NOON)
    assert refusal.value.facts["expected"] == "none"


def test_a_certificate_on_record_that_has_expired_is_refused() -> None:
    with pytest.raises(CertificateExpiredError):
        authenticate(by_thumbprints(LEAF.thumbprint), HOST, LEAF, None, NOON + timedelta(days=36500))


@pytest.mark.parametrize(
    "profile", [certificate_profiles.SERVER, certificate_profiles.EDGE_CA], ids=lambda profile: profile.name
)
def test_what_a_certificate_is_for_does_not_count_where_its_thumbprint_is_registered(
    profile: certificate_profiles.CertificateProfile,
) -> None:
    leaf = a_device(a_ca(), "device-1", profile=profile).certificate
    authenticate(by_thumbprints(leaf.thumbprint), HOST, leaf, None, NOON)


def test_a_servers_certificate_of_a_hubs_ca_opens_nothing() -> None:
    leaf = a_device(a_ca(), "device-1", profile=certificate_profiles.SERVER).certificate
    device = a_hub_device(DeviceAuthentication(AuthenticationType.AUTHORITY))
    with pytest.raises(WrongPurposeError):
        authenticate(device, HOST, leaf, None, NOON)


def test_a_token_does_not_stand_in_for_a_certificate() -> None:
    with pytest.raises(NoCredentialsError, match="no certificate"):
        authenticate(by_thumbprints(LEAF.thumbprint), HOST, None, a_token(), NOON)


@pytest.mark.parametrize("password", [None, b""])
def test_a_certificate_does_not_stand_in_for_a_token(password: bytes | None) -> None:
    with pytest.raises(NoCredentialsError, match="no token"):
        authenticate(a_hub_device(BY_KEYS), HOST, LEAF, password, NOON)


@pytest.mark.parametrize(
    ("token", "error"),
    [
        (a_token(b"x" * 32), SasSignatureError),
        (a_token(resource=f"{HOST}/devices/device-2"), SasScopeError),
        (a_token(resource="other.example/devices/device-1"), SasScopeError),
        (a_token(expiry_s=int(NOON.timestamp()) - 3600), SasExpiredError),
    ],
    ids=["of another key", "for another device", "for another hub", "expired"],
)
def test_a_token_that_does_not_hold_is_refused(token: bytes, error: type[BirthmarkError]) -> None:
    with pytest.raises(error):
        authenticate(a_hub_device(BY_KEYS), HOST, None, token, NOON)


def test_a_device_whose_keys_were_taken_away_has_no_token_that_opens() -> None:
    with pytest.raises(SasSignatureError):
        authenticate(a_hub_device(DeviceAuthentication(AuthenticationType.SAS)), HOST, None, a_token(), NOON)


def test_a_client_id_is_the_device_id_in_its_letter_case() -> None:
    device = by_thumbprints(LEAF.thumbprint)
    check_client_id(device, "device-1")
    for other in ("device-2", "DEVICE-1", "device-1/module", ""):
        with pytest.raises(ClientIdError):
            check_client_id(device, other)


def test_a_token_is_returned_that_says_when_it_ends() -> None:
    token = authenticate(a_hub_device(BY_KEYS), HOST, None, a_token(), NOON)
    assert token is not None
    assert token.expiry_s == SOON_S
    assert authenticate(by_thumbprints(LEAF.thumbprint), HOST, LEAF, None, NOON) is None


def test_a_token_for_the_endpoint_alone_opens_that_endpoint_and_no_other() -> None:
    path = "devices/device-1/messages/events"
    token = a_token(resource=f"{HOST}/{path}")
    authenticate(a_hub_device(BY_KEYS), HOST, None, token, NOON, path=f"/{path}")
    for other in ("", "/devices/device-1/messages/devicebound"):
        with pytest.raises(SasScopeError):
            authenticate(a_hub_device(BY_KEYS), HOST, None, token, NOON, path=other)
