"""Does this connection prove to be that device? (IoT Hub documentation, "Authenticate identities with X.509")"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from birthmark.auth.sas import SasSignatureError, SasToken, check_resource, check_sas, parse_sas
from birthmark.errors import ForbiddenError, InvalidRequestError, UnauthenticatedError
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication, Identity
from birthmark.iothub.wire import own_topics
from birthmark.pki.certificate_checks import check_client, check_strength
from birthmark.pki.certificates import Certificate
from birthmark.pki.path_validation import check_dates


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


class CommonNameError(UnauthenticatedError):
    """A certificate of a CA, with another name in it."""

    code = "iothub.common_name_mismatch"
    cause = (
        "Device {device_id} of hub {hub} is known by certificates of a CA, and showed one whose common name is "
        "'{common_name}' ({thumbprint})."
    )
    fix = (
        "Issue a certificate whose common name is the device id, letter by letter: "
        "`birthmark ca issue {device_id} --dir ca`"
    )
    common_name: str
    device_id: str
    hub: str
    thumbprint: bytes


class CaNotTrustedError(UnauthenticatedError):
    """The certificate's CA vouches for no device of this hub."""

    code = "iothub.ca_not_trusted"
    cause = (
        "Device {device_id} showed a certificate that '{issuer}' issued, and hub {hub} has no verified CA certificate "
        "above it: {detail}."
    )
    fix = (
        "If that CA is yours, put its certificate on record, which is root.pem of the directory of a CA made here: "
        "`birthmark hub ca create {name} ca/root.pem --verified --hub {hub}`. Those there are, and which are verified: "
        "`birthmark hub ca ls --hub {hub}`"
    )
    detail: str
    device_id: str
    hub: str
    issuer: str
    name: str


class CaUnverifiedError(CaNotTrustedError):
    """The certificate's CA is on record, and nobody has proved to hold its key."""

    code = "iothub.ca_unverified"
    fix = (
        "Take your word for it: `birthmark hub ca verify {name} --without-proof --hub {hub}`. Or prove it, as Azure "
        "asks: `birthmark hub ca code {name} --hub {hub}`"
    )


class DevicesOwnCaError(UnauthenticatedError):
    """A device issued this certificate."""

    code = "iothub.devices_own_ca"
    cause = (
        "The certificate of {device_id} was issued by '{subject}', the CA of a device, which speaks for no device of "
        "hub {hub}, whose CA is above it."
    )
    fix = (
        "If you know the device, make it by its own certificate: `birthmark hub device rm {device_id} --hub {hub} "
        '--yes; birthmark hub device create {device_id} --hub {hub} --cert "$X509_CERT_FILE"`'
    )
    device_id: str
    hub: str
    subject: str


class PolicyKeyError(UnauthenticatedError):
    """The policy may not do this."""

    code = "iothub.policy_refused"
    cause = "The call needs a token of one of the policies {allowed}; it came with {presented}."
    fix = 'Use the connection string of the server, whose policy is iothubowner: `eval "$(birthmark env)"`'
    allowed: str
    presented: str


DEVICE_CONNECT = frozenset({"iothubowner", "device"})
"""The policies whose tokens connect any device that has keys (IoT Hub, "Control access with SAS tokens")."""


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


class ClientIdError(InvalidRequestError):
    """A client id that is not the device's."""

    code = "iothub.client_id_mismatch"
    message = "The client id {client_id} is not the device id {device_id}"
    cause = "Device {device_id} of hub {hub} connected with the client id {client_id}; a hub takes the device id alone."
    fix = (
        "Set the client id to {device_id}, as the SDKs do and as this does: "
        '`birthmark device send hello --hub "$PROVISIONING_HOST" --device-id {device_id}`'
    )
    client_id: str
    device_id: str
    hub: str


def check_client_id(identity: Identity, client_id: str) -> None:
    """Raise `ClientIdError` unless MQTT's client id is the device id, or DEVICE/MODULE (IoT Hub MQTT support)."""
    if client_id != identity.name:
        raise ClientIdError(client_id=client_id[:128], device_id=identity.name, hub=identity.hub)


def authenticate(
    identity: Identity,
    host: str,
    leaf: Certificate | None,
    password: bytes | None,
    now: datetime,
    *,
    path: str = "",
    policies: Mapping[str, tuple[bytes, bytes]] = MappingProxyType({}),
) -> SasToken | None:
    """Return the token that proves a connection to be that one, None for a certificate; else raise why it is not.

    `path` is that of an HTTPS request: a token may be for it alone. `policies` are the hub's, with their keys.
    """
    facts: dict[str, Any] = {"device_id": identity.name, "hub": identity.hub}
    if not identity.is_enabled:
        raise DeviceDisabledError(**facts | {"device_id": identity.device_id})
    authentication = identity.authentication
    match authentication.type:
        case AuthenticationType.SELF_SIGNED:
            if leaf is None:
                raise NoCredentialsError(presented="no certificate", type="X.509", **facts)
            on_record = [t for t in (authentication.primary_thumbprint, authentication.secondary_thumbprint) if t]
            if {leaf.thumbprint, leaf.x5t_sha1}.isdisjoint(on_record):
                expected = " or ".join(authentication.thumbprints) or "none"
                raise ThumbprintMismatchError(thumbprint=leaf.thumbprint, expected=expected, **facts)
            check_strength(leaf)  # what the certificate is for does not count: it is this one that is registered
            check_dates(leaf, now)
        case AuthenticationType.AUTHORITY:
            if leaf is None:
                raise NoCredentialsError(presented="no certificate", type="X.509", **facts)
            if leaf.subject_cn != identity.name:  # letter case counts, as in the registry
                raise CommonNameError(common_name=leaf.subject_cn or "", thumbprint=leaf.thumbprint, **facts)
            check_client(leaf)
            check_dates(leaf, now)
        case AuthenticationType.SAS:
            if not password:
                raise NoCredentialsError(presented="no token", type="SAS", **facts)
            token = parse_sas(password.decode("utf-8", "replace"))
            _check_signature(token, authentication, policies, now)
            check_resource(token, [f"{host}/{path.strip('/') or own_topics(identity.name).rstrip('/')}"])
            return token
    return None


def _check_signature(
    token: SasToken, proof: DeviceAuthentication, policies: Mapping[str, tuple[bytes, bytes]], now: datetime
) -> None:
    """Raise unless a key of the device signed it, or one of a policy with DeviceConnect."""
    own = [key for key in (proof.primary_key, proof.secondary_key) if key]
    may_connect = token.policy in DEVICE_CONNECT
    try:
        check_sas(token, [*own, *(policies.get(token.policy or "", ()) if may_connect else ())], now)
    except SasSignatureError as error:
        if token.policy not in policies or may_connect:
            raise
        presented = f"the policy {token.policy}"
        raise PolicyKeyError(allowed=", ".join(sorted(DEVICE_CONNECT)), presented=presented) from error
