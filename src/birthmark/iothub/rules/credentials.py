"""May a connected device have a certificate in the place of its own, and which one goes with it? Pure.

Both certificates count until the device connects by the new one. A request belongs to the connection that made it:
who connects again has lost its answer and asks anew, whatever is left of the request before.
"""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

from birthmark.errors import ConflictError, ForbiddenError, InvalidRequestError, PolicyError
from birthmark.iothub.model import AuthenticationType, Credential, Device, DeviceAuthentication
from birthmark.iothub.wire import CredentialRequest
from birthmark.pki.certificates import Certificate
from birthmark.pki.names import MAKE_REQUEST, fold

LASTS = timedelta(seconds=60)
"""How long a request may be under way."""
REPEATED_WITHIN = timedelta(hours=1)
"""How long who asks again with the same key is given what was made for it."""
ANY = "*"


class OtherDeviceError(ForbiddenError):
    """A device asked for another's certificate."""

    code = "iothub.credential_of_another"
    message = "Device {device_id} may not ask for a certificate of {asked}"
    cause = "Device {device_id} of hub {hub} asked for a certificate of {asked}; a device asks for its own alone."
    fix = "Put the id of the connected device into the request. Those there are: `birthmark hub device ls --hub {hub}`"
    asked: str
    device_id: str
    hub: str


class CredentialNameError(InvalidRequestError):
    """The request is for another name."""

    code = "iothub.credential_name"
    message = "The certificate request is for '{asked}', not for {wanted}"
    cause = "Device {device_id} of hub {hub} sent a certificate request whose common name is '{asked}', not {wanted}."
    fix = f"Make the common name {{wanted}}. {MAKE_REQUEST}"
    asked: str
    device_id: str
    hub: str
    wanted: str


class NoCertificateError(PolicyError):
    """The device has no certificate that another could follow."""

    code = "iothub.credential_of_keys"
    message = "Device {device_id} connects by a key, and has no certificate to renew"
    cause = "Hub {hub} has device {device_id} on record with keys; a certificate follows one that it has."
    fix = (
        "Give its enrollment a policy and let it register with a certificate request, which makes it a device with a "
        "certificate. What is on record: `birthmark device ls`"
    )
    device_id: str
    hub: str


class NoCredentialPolicyError(PolicyError):
    """Nobody said that the device may have certificates."""

    code = "iothub.no_credential_policy"
    message = "Device {device_id} has no policy by which certificates are issued"
    cause = "Device {device_id} of hub {hub} asked for a certificate, and {detail}."
    fix = (
        "Give its enrollment a policy, and let the device register once more: "
        '`birthmark device enroll --cert "$X509_CERT_FILE" --issue device --update`'
    )
    detail: str
    device_id: str
    hub: str


class CredentialBusyError(ConflictError):
    """A request of this connection is under way."""

    code = "iothub.credential_busy"
    message = "The request {request_id} of device {device_id} is under way"
    cause = (
        "Device {device_id} of hub {hub} asked for a second certificate before its request {request_id} was answered."
    )
    fix = (
        "Wait for the answer, until {expires_at} at most, or replace that request: send the member replace, with its "
        "id or *. What the device was issued so far: `birthmark pki ls {device_id}`"
    )
    for_a_person = "the device's program asks"
    device_id: str
    expires_at: datetime
    hub: str
    request_id: str


class CredentialReplacedError(ConflictError):
    """Another request took the place of this one."""

    code = "iothub.credential_replaced"
    message = "Another request of device {device_id} took the place of {request_id}"
    cause = "Device {device_id} of hub {hub} asked again while its request {request_id} was under way."
    fix = "Nothing is wrong: the later request is answered. What it was issued: `birthmark pki ls {device_id}`"
    for_a_person = "there is nothing to do"
    device_id: str
    hub: str
    request_id: str


def check_own(device: Device, asked: CredentialRequest) -> None:
    """Raise `OtherDeviceError`, or `NoCertificateError` where there is none that another could follow."""
    if asked.device_id != device.device_id:
        raise OtherDeviceError(device_id=device.device_id, hub=device.hub, asked=asked.device_id[:128])
    if device.authentication.type is not AuthenticationType.SELF_SIGNED:
        raise NoCertificateError(device_id=device.device_id, hub=device.hub)


def check_name(device: Device, asked: CredentialRequest, names: Collection[str]) -> None:
    """Raise `CredentialNameError` unless the request is for one of the names that the device's certificates may have.

    Those are its own, and that of its registration.
    """
    if fold(asked.csr.subject_cn or "") not in {fold(one) for one in names}:
        raise CredentialNameError(
            device_id=device.device_id,
            hub=device.hub,
            asked=asked.csr.subject_cn or asked.csr.subject_text,
            wanted=" or ".join(sorted(names)),
        )


def check_is_alone(
    credential: Credential | None, asked: CredentialRequest, session: str, now: int, expires_at: datetime
) -> None:
    """Raise `CredentialBusyError` where the same connection has a request under way that this one does not replace."""
    if credential is None or credential.request_id is None or credential.session != session:
        return
    is_over = credential.expires_at is None or credential.expires_at <= now
    if is_over or asked.replaces in {ANY, credential.request_id}:
        return
    raise CredentialBusyError(
        device_id=credential.device_id, hub=credential.hub, request_id=credential.request_id, expires_at=expires_at
    )


def unused_of(device: Device, credential: Credential | None) -> Credential | None:
    """Return what is on record of a certificate that was issued and counts, and that the device did not connect by.

    A record of another generation, or of a certificate that an operator took off the device, counts for nothing.
    """
    if credential is None or credential.thumbprint is None or credential.generation_id != device.generation_id:
        return None
    return credential if credential.thumbprint == device.authentication.secondary_thumbprint else None


def is_repeated(unused: Credential, key_digest: bytes, not_after: datetime, now: datetime) -> bool:
    """Say whether a request is for the key of what was issued a moment ago, whose answer may have been lost."""
    if unused.key_digest != key_digest or unused.issued_at is None:
        return False
    since = timedelta(microseconds=int(now.timestamp() * 1_000_000) - unused.issued_at)
    return since <= min(REPEATED_WITHIN, (not_after - now + since) / 10)


def with_fresh(device: Device, leaf: Certificate | None, fresh: bytes) -> DeviceAuthentication:
    """Return the proofs of a device that has a new certificate: the one by which it is connected, and the new one."""
    present = device.authentication
    slots = (present.primary_thumbprint, present.secondary_thumbprint)
    shown = () if leaf is None else (leaf.thumbprint, leaf.x5t_sha1)
    in_use = next((one for one in slots if one in shown), present.primary_thumbprint)
    return replace(present, primary_thumbprint=in_use or fresh, secondary_thumbprint=fresh)


def with_it_alone(device: Device) -> DeviceAuthentication:
    """Return the proofs of a device that has connected by its new certificate, which takes both places."""
    present = device.authentication
    return replace(present, primary_thumbprint=present.secondary_thumbprint)
