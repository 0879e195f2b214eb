"""Does this connection prove to be that device? (IoT Hub documentation, "Authenticate identities with X.509")"""

from datetime import datetime
from typing import Any

from birthmark.auth.sas import check_resource, check_sas, parse_sas
from birthmark.errors import ForbiddenError, UnauthenticatedError
from birthmark.iothub.model import AuthenticationType, Device
from birthmark.pki.certificates import Certificate
from birthmark.pki.chains import check_dates
from birthmark.pki.checks import check_client


class DeviceDisabledError(ForbiddenError):
    """The operator has switched the identity off."""

    code = "iothub.device_disabled"
    message = "Device {device_id} is disabled"
    cause = "Device {device_id} is disabled in hub {hub}."
    fix = "If it may connect again: `birthmark hub device enable {device_id} --hub {hub}`"
    device_id: str
    hub: str


class ThumbprintMismatchError(UnauthenticatedError):
    """The certificate is not the one on record."""

    code = "iothub.thumbprint_mismatch"
    cause = "Device {device_id} showed the certificate {thumbprint}; hub {hub} has {expected} on record."
    fix = (
        "If the device's certificate was renewed, let it register again, which puts the new thumbprint on record: "
        "`birthmark device register`. If not, another key answers for this device: find out whose."
    )
    device_id: str
    expected: str
    hub: str
    thumbprint: bytes


class NoCredentialsError(UnauthenticatedError):
    """Neither certificate nor token."""

    code = "iothub.no_credentials"
    message = "The device came with {presented}"
    cause = "Device {device_id} showed {presented}, and hub {hub} has it on record with {type} authentication."
    fix = (
        "Give the client the device's certificate and key, or its key, as it was enrolled. With X509_CERT_FILE and "
        'X509_KEY_FILE this sends: `birthmark device send hello --hub "$PROVISIONING_HOST" --device-id {device_id}`'
    )
    device_id: str
    hub: str
    presented: str
    type: str


def authenticate(device: Device, host: str, leaf: Certificate | None, password: bytes | None, now: datetime) -> None:
    """Return when the connection proves to be `device`, else raise why not."""
    facts: dict[str, Any] = {"device_id": device.device_id, "hub": device.hub}
    if not device.is_enabled:
        raise DeviceDisabledError(**facts)
    authentication = device.authentication
    match authentication.type:
        case AuthenticationType.SELF_SIGNED:
            if leaf is None:
                raise NoCredentialsError(presented="no certificate", type="X.509", **facts)
            on_record = [t for t in (authentication.primary_thumbprint, authentication.secondary_thumbprint) if t]
            if {leaf.thumbprint, leaf.x5t_sha1}.isdisjoint(on_record):
                expected = " or ".join(t.hex() for t in on_record) or "none"
                raise ThumbprintMismatchError(thumbprint=leaf.thumbprint, expected=expected, **facts)
            check_client(leaf, is_pinned=True)
            check_dates(leaf, now)
        case AuthenticationType.SAS:
            if not password:
                raise NoCredentialsError(presented="no token", type="SAS", **facts)
            token = parse_sas(password.decode("utf-8", "replace"))
            keys = [k for k in (authentication.primary_key, authentication.secondary_key) if k]
            check_sas(token, keys, now)
            check_resource(token, [f"{host}/devices/{device.device_id}"])
