"""Authentication of devices at a hub (IoT Hub documentation, "Authenticate identities with X.509")."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from birthmark.auth.sas import SasSignatureError, SasToken, check_resource, check_sas, parse_sas
from birthmark.errors import ForbiddenError, InvalidRequestError, UnauthenticatedError
from birthmark.iothub.model import AuthenticationType, Identity
from birthmark.iothub.wire import own_topics
from birthmark.pki.certificates import Certificate
from birthmark.pki.path_validation import check_dates
from birthmark.pki.single_certificate_checks import check_client, check_strength


class DeviceDisabledError(ForbiddenError):
    """The device is disabled."""

    code = "iothub.device_disabled"
    message = "Device {device_id} is disabled"
    cause = "Device {device_id} is disabled in hub {hub}."
    fix = "Enable the device: `birthmark hub device enable {device_id} --hub {hub}`"
    device_id: str
    hub: str


class ThumbprintMismatchError(UnauthenticatedError):
    """The certificate is not the registered one."""

    code = "iothub.thumbprint_mismatch"
    cause = (
        "Device {device_id} presented the certificate with the thumbprint {thumbprint}, but the thumbprint "
        "registered in hub {hub} is {expected}."
    )
    fix = (
        "If the certificate was renewed, register the device again to update the thumbprint: `birthmark device "
        "register`. Otherwise, another client uses this device ID: identify that client."
    )
    device_id: str
    expected: str
    hub: str
    thumbprint: bytes


class CommonNameError(UnauthenticatedError):
    """The CA-signed certificate has another common name than the device ID."""

    code = "iothub.common_name_mismatch"
    cause = (
        "Device {device_id} of hub {hub} authenticates with CA-signed certificates. The presented certificate "
        "(thumbprint {thumbprint}) has the common name '{common_name}' instead of the device ID."
    )
    fix = "Issue a certificate whose common name is exactly the device ID: `birthmark ca issue {device_id} --dir ca`"
    common_name: str
    device_id: str
    hub: str
    thumbprint: bytes


class CaNotTrustedError(UnauthenticatedError):
    """No verified CA of this hub issued the certificate."""

    code = "iothub.ca_not_trusted"
    cause = (
        "Device {device_id} presented a certificate issued by '{issuer}'. This certificate does not chain to a "
        "verified CA certificate of hub {hub}: {detail}."
    )
    fix = (
        "If the issuer is your CA, register the CA certificate (root.pem in the CA's directory): `birthmark hub ca "
        "create {name} ca/root.pem --verified --hub {hub}`. To list the CA certificates and their states: `birthmark "
        "hub ca ls --hub {hub}`"
    )
    detail: str
    device_id: str
    hub: str
    issuer: str
    name: str


class CaUnverifiedError(CaNotTrustedError):
    """The certificate's CA is registered, but not verified."""

    code = "iothub.ca_unverified"
    fix = (
        "Verify the CA certificate without proof of possession: `birthmark hub ca verify {name} --without-proof "
        "--hub {hub}`. To prove possession instead, as Azure requires, first generate a verification code: "
        "`birthmark hub ca code {name} --hub {hub}`"
    )


class DeviceCaNotTrustedError(UnauthenticatedError):
    """A device's CA issued this certificate."""

    code = "iothub.devices_own_ca"
    cause = (
        "The certificate of {device_id} was issued by '{subject}', which is a device's CA. Such a CA cannot "
        "authenticate devices of hub {hub}."
    )
    fix = (
        "If you trust the device, re-create it with its own certificate: `birthmark hub device rm {device_id} --hub "
        '{hub} --yes; birthmark hub device create {device_id} --hub {hub} --cert "$X509_CERT_FILE"`'
    )
    device_id: str
    hub: str
    subject: str


class PolicyKeyError(UnauthenticatedError):
    """The shared access policy does not permit this operation."""

    code = "iothub.policy_refused"
    cause = "The request presented {presented}, but requires a token of one of the policies {allowed}."
    fix = "Use a connection string of such a policy. To get one: `{command}`"
    allowed: str
    command: str = 'eval "$(birthmark env)"'
    presented: str


DEVICE_CONNECT = frozenset({"iothubowner", "device"})
"""Policies whose tokens can connect any device with keys (IoT Hub, "Control access with SAS tokens")."""


class NoCredentialsError(UnauthenticatedError):
    """The device presented no certificate and no token."""

    code = "iothub.no_credentials"
    message = "The device presented {presented}"
    cause = "Device {device_id} presented {presented}, but hub {hub} requires {type} authentication for this device."
    fix = (
        "Configure the client with the enrolled certificate and key, or with the enrolled symmetric key. To send a "
        'test message with X509_CERT_FILE and X509_KEY_FILE: `birthmark device send hello --hub "$PROVISIONING_HOST" '
        "--device-id {device_id}`"
    )
    device_id: str
    hub: str
    presented: str
    type: str


class ClientIdError(InvalidRequestError):
    """The client ID is not the device ID."""

    code = "iothub.client_id_mismatch"
    message = "The client ID {client_id} is not the device ID {device_id}"
    cause = (
        "Device {device_id} of hub {hub} connected with the client ID {client_id}; a hub accepts only the device ID."
    )
    fix = (
        "Set the client ID to {device_id}, as the SDKs and this command do: `birthmark device send hello --hub "
        '"$PROVISIONING_HOST" --device-id {device_id}`'
    )
    client_id: str
    device_id: str
    hub: str


def check_client_id(identity: Identity, client_id: str) -> None:
    """Raise `ClientIdError` unless the MQTT client ID is the device ID, or DEVICE/MODULE (IoT Hub MQTT support)."""
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
    """Authenticate a connection as this identity; return its token, or None for a certificate. Raise the refusal.

    `path` is that of an HTTPS request: a token may be limited to it. `policies` are the hub's, with their keys.
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
            check_strength(leaf)  # the purpose does not matter: exactly this certificate is registered
            check_dates(leaf, now)
        case AuthenticationType.AUTHORITY:
            if leaf is None:
                raise NoCredentialsError(presented="no certificate", type="X.509", **facts)
            if leaf.subject_cn != identity.name:  # case-sensitive, as in the registry
                raise CommonNameError(common_name=leaf.subject_cn or "", thumbprint=leaf.thumbprint, **facts)
            check_client(leaf)
            check_dates(leaf, now)
        case AuthenticationType.SAS:
            if not password:
                raise NoCredentialsError(presented="no token", type="SAS", **facts)
            token = parse_sas(password.decode("utf-8", "replace"))
            _check_signature(token, identity, policies, now)
            check_resource(token, [f"{host}/{path.strip('/') or own_topics(identity.name).rstrip('/')}"])
            return token
    return None


def _check_signature(
    token: SasToken, identity: Identity, policies: Mapping[str, tuple[bytes, bytes]], now: datetime
) -> None:
    """Raise unless a key of the device, or of a policy with DeviceConnect, signed the token."""
    proof = identity.authentication
    own = [key for key in (proof.primary_key, proof.secondary_key) if key]
    may_connect = token.policy in DEVICE_CONNECT
    try:
        check_sas(token, [*own, *(policies.get(token.policy or "", ()) if may_connect else ())], now)
    except SasSignatureError as error:
        noun = "module" if "/" in identity.name else "device"
        error.add_facts(command=f"birthmark hub {noun} key {identity.name.replace('/', ' ')} --hub {identity.hub}")
        if token.policy not in policies or may_connect:
            raise
        presented = f"the policy {token.policy}"
        raise PolicyKeyError(allowed=", ".join(sorted(DEVICE_CONNECT)), presented=presented) from error
