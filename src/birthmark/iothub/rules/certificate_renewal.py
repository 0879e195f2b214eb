"""Rules of certificate issuance to a connected device. Pure.

Both certificates are valid until the device connects with the new one. A request belongs to its connection: a device
that reconnects has lost the response and requests again.
"""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

from birthmark.errors import ConflictError, ForbiddenError, InvalidRequestError, PolicyError
from birthmark.iothub.model import AuthenticationType, Credential, Device, DeviceAuthentication
from birthmark.iothub.wire import CredentialRequest
from birthmark.pki.certificates import Certificate
from birthmark.pki.names_and_registration_ids import MAKE_REQUEST, fold

LASTS = timedelta(seconds=60)
"""Maximum duration of a request in progress."""
REPEATED_WITHIN = timedelta(hours=1)
"""Period in which a repeated request for the same key returns the same certificate."""
ANY = "*"


class OtherDeviceError(ForbiddenError):
    """A device requested another device's certificate."""

    code = "iothub.credential_of_another"
    message = "Device {device_id} cannot request a certificate for {asked}"
    cause = (
        "Device {device_id} of hub {hub} requested a certificate for {asked}, but a device can request only its own "
        "certificate."
    )
    fix = "Use the ID of the connected device in the request. List devices: `birthmark hub device ls --hub {hub}`"
    asked: str
    device_id: str
    hub: str


class CredentialNameError(InvalidRequestError):
    """The signing request is for another name."""

    code = "iothub.credential_name"
    message = "The signing request is for '{asked}', not for {wanted}"
    cause = "Device {device_id} of hub {hub} sent a signing request whose common name is '{asked}', not {wanted}."
    fix = f"Set the common name to {{wanted}}. {MAKE_REQUEST}"
    asked: str
    device_id: str
    hub: str
    wanted: str


class NoCertificateError(PolicyError):
    """The device has no certificate to renew."""

    code = "iothub.credential_of_keys"
    message = "Device {device_id} authenticates with a symmetric key and has no certificate"
    cause = (
        "Device {device_id} is registered in hub {hub} with symmetric keys, and only an existing certificate can be "
        "renewed."
    )
    fix = (
        "Set an issuing policy in the device's enrollment. Then register the device with a signing request to get a "
        "certificate. List enrollments: `birthmark device ls`"
    )
    device_id: str
    hub: str


class NoCredentialPolicyError(PolicyError):
    """The device has no issuing policy."""

    code = "iothub.no_credential_policy"
    message = "Device {device_id} has no issuing policy for certificates"
    cause = "Device {device_id} of hub {hub} requested a certificate, but {detail}."
    fix = (
        'Set an issuing policy in the device\'s enrollment: `birthmark device enroll --cert "$X509_CERT_FILE" '
        "--issue device --update`. Then register the device again."
    )
    detail: str
    device_id: str
    hub: str


class CredentialBusyError(ConflictError):
    """A certificate request of this connection is in progress."""

    code = "iothub.credential_busy"
    message = "The request {request_id} of device {device_id} is in progress"
    cause = (
        "Device {device_id} of hub {hub} requested a second certificate before the hub responded to request "
        "{request_id}."
    )
    fix = (
        "Wait for the response, until {expires_at} at the latest. To replace the request instead, set the member "
        "replace to the request ID or *. List the device's certificates: `birthmark pki ls {device_id}`"
    )
    for_a_person = "the device's program sends the requests"
    device_id: str
    expires_at: datetime
    hub: str
    request_id: str


class CredentialReplacedError(ConflictError):
    """Another request replaced this one."""

    code = "iothub.credential_replaced"
    message = "Another request of device {device_id} replaced {request_id}"
    cause = "Device {device_id} of hub {hub} sent another certificate request while {request_id} was in progress."
    fix = (
        "No action is needed: the hub responds to the later request. List the device's certificates: `birthmark pki "
        "ls {device_id}`"
    )
    for_a_person = "no action is needed"
    device_id: str
    hub: str
    request_id: str


def check_own(device: Device, request: CredentialRequest) -> None:
    """Raise `OtherDeviceError`, or `NoCertificateError` where the device has no certificate to replace."""
    if request.device_id != device.device_id:
        raise OtherDeviceError(device_id=device.device_id, hub=device.hub, asked=request.device_id[:128])
    if device.authentication.type is not AuthenticationType.SELF_SIGNED:
        raise NoCertificateError(device_id=device.device_id, hub=device.hub)


def check_name(device: Device, request: CredentialRequest, names: Collection[str]) -> None:
    """Raise `CredentialNameError` unless the CSR's name is permitted for the device's certificates.

    Permitted are the device's own name and that of its registration.
    """
    if fold(request.csr.subject_cn or "") not in {fold(one) for one in names}:
        raise CredentialNameError(
            device_id=device.device_id,
            hub=device.hub,
            asked=request.csr.subject_cn or request.csr.subject_text,
            wanted=" or ".join(sorted(names)),
        )


def check_is_alone(
    credential: Credential | None, request: CredentialRequest, session: str, now: int, expires_at: datetime
) -> None:
    """Raise `CredentialBusyError` if the connection has a request in progress that this one does not replace."""
    if credential is None or credential.request_id is None or credential.session != session:
        return
    is_over = credential.expires_at is None or credential.expires_at <= now
    if is_over or request.replaces in {ANY, credential.request_id}:
        return
    raise CredentialBusyError(
        device_id=credential.device_id, hub=credential.hub, request_id=credential.request_id, expires_at=expires_at
    )


def find_unused(device: Device, credential: Credential | None) -> Credential | None:
    """Return the record of a valid issued certificate that the device has not yet connected with, or None.

    A record of another generation, or of a certificate that an operator removed from the device, is ignored.
    """
    if credential is None or credential.thumbprint is None or credential.generation_id != device.generation_id:
        return None
    return credential if credential.thumbprint == device.authentication.secondary_thumbprint else None


def is_repeated(unused: Credential, key_digest: bytes, not_after: datetime, now: datetime) -> bool:
    """Return whether a request repeats the key of a recent issuance, whose response may have been lost."""
    if unused.key_digest != key_digest or unused.issued_at is None:
        return False
    since = timedelta(microseconds=int(now.timestamp() * 1_000_000) - unused.issued_at)
    return since <= min(REPEATED_WITHIN, (not_after - now + since) / 10)


def add_new_certificate(device: Device, leaf: Certificate | None, fresh: bytes) -> DeviceAuthentication:
    """Return a device's credentials with the current certificate and the new one."""
    present = device.authentication
    slots = (present.primary_thumbprint, present.secondary_thumbprint)
    shown = () if leaf is None else (leaf.thumbprint, leaf.x5t_sha1)
    in_use = next((one for one in slots if one in shown), present.primary_thumbprint)
    return replace(present, primary_thumbprint=in_use or fresh, secondary_thumbprint=fresh)


def keep_new_certificate(device: Device) -> DeviceAuthentication:
    """Return a device's credentials with the new certificate in both slots, once it has connected with it."""
    present = device.authentication
    return replace(present, primary_thumbprint=present.secondary_thumbprint)
