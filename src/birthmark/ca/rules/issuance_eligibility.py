"""Issuance rules: whether a principal may have a certificate. Pure: all inputs are arguments."""

import shlex

from birthmark.auth.principals import Principal, PrincipalKind, is_user_name
from birthmark.ca.model import SubjectStatus, key_digest
from birthmark.errors import ConflictError, ForbiddenError, PolicyError
from birthmark.pki.certificate_profiles import CertificateProfile, kind_of_key, takes_key
from birthmark.pki.csr import CertificateRequest
from birthmark.pki.names_and_registration_ids import (
    MAKE_REQUEST,
    RegistrationIdInvalidError,
    fold,
    parse_registration_id,
)

_NEW_KEY = {f"P-{bits}": f"EC -pkeyopt ec_paramgen_curve:P-{bits}" for bits in (256, 384)} | {
    f"RSA-{bits}": f"RSA -pkeyopt rsa_keygen_bits:{bits}" for bits in (2048, 3072, 4096)
}
"""OpenSSL options that generate a key, by key type."""


class NoCommonNameError(PolicyError):
    """The request must have exactly one common name."""

    code = "ca.no_common_name"
    cause = (
        "The subject '{subject}' of the request has no common name or several, but must have exactly one: the device "
        "ID."
    )
    fix = f"Set exactly one common name, the device ID. {MAKE_REQUEST}"
    subject: str


class NameNotAllowedError(ForbiddenError):
    """This identity cannot request certificates of that name."""

    code = "ca.name_not_allowed"
    cause = "{actor} requested a certificate for '{asked}', but can request certificates only for '{allowed}'."
    fix = (
        "Request a certificate for the name in the current certificate. To create a credential for the other name: "
        "`{command}`."
    )
    actor: str
    allowed: object
    asked: object
    command: str
    device_id: str


class NameHeldError(ForbiddenError):
    """Another key holds this name."""

    code = "ca.name_held"
    cause = (
        "{actor} requested the name '{asked}' with a new key, but '{holder}' holds that name until its certificate "
        "expires."
    )
    fix = (
        "If the device lost its key, release the name: `birthmark pki release {holder}`. To avoid this error, create "
        "a device-specific credential: `birthmark env --format aziot --registration-id {holder}`."
    )
    actor: str
    asked: str
    holder: str
    device_id: str


class CaNotIssuedError(PolicyError):
    """This profile issues no CA certificates."""

    code = "ca.ca_not_issued"
    cause = "The request contains CA:TRUE, but the profile '{profile}' issues no CA certificates."
    fix = f"Omit basicConstraints from the request. {MAKE_REQUEST}"
    profile: str


class KeyKindRefusedError(PolicyError):
    """The profile does not accept this type of key."""

    code = "ca.key_kind_refused"
    cause = "The key is {kind}, but the profile '{profile}' accepts only {kinds}."
    fix = (
        "Generate an accepted key and create a request: `(umask 077; set -C; openssl genpkey -algorithm {options} > "
        "new.key && openssl req -new -key new.key -subj /CN={asked} > new.csr)`."
    )
    asked: str
    kind: str
    kinds: str
    options: str
    profile: str


class KeyTakenError(ConflictError):
    """This public key belongs to another device."""

    code = "ca.key_taken"
    cause = "'{asked}' requested a certificate for a public key that already belongs to '{holder}'."
    fix = (
        "Generate a key for each device, in its own secure element; never include a private key in a firmware image. "
        f"{MAKE_REQUEST}"
    )
    asked: str
    holder: str
    device_id: str


class KeyRevokedError(ForbiddenError):
    """This key was revoked."""

    code = "ca.key_revoked"
    cause = "The public key in the request of '{asked}' was revoked at {revoked_at}."
    fix = f"A revoked key cannot be used again. {MAKE_REQUEST.replace('device-1', '{asked}')}"
    asked: str
    revoked_at: object
    device_id: str


class NameLostError(ForbiddenError):
    """The name was revoked with its lost device."""

    code = "ca.name_lost"
    cause = (
        "'{asked}' was revoked at {lost_at} because its device is lost; the CA issues no certificates for that name."
    )
    fix = "To reuse the name for a device, release the name: `birthmark pki release {asked}`."
    asked: str
    device_id: str
    lost_at: object


class TooManyAliveError(ForbiddenError):
    """The name has too many valid certificates."""

    code = "ca.too_many_alive"
    cause = "'{device_id}' has {most} valid certificates, the maximum, and requested another."
    fix = (
        "Check whether the device stores its certificates. The device can request more certificates when some "
        "expire. To raise the limit, add a line above all tables in the server's configuration: `est.max_live = "
        "{more}`. Alternatively, add `max_live = {more}` to an existing `[est]` table."
    )
    device_id: str
    more: int
    most: int


def check_alive(device_id: str, alive: int, limit: int | None) -> None:
    """Raise `TooManyAliveError` above `most`: revoking a device reads all certificates of its name."""
    if limit is not None and alive >= limit:
        raise TooManyAliveError(device_id=device_id, most=limit, more=2 * limit)


def decide(
    request: CertificateRequest, principal: Principal, profile: CertificateProfile, standing: SubjectStatus
) -> str:
    """Return the device ID of the certificate to issue, or raise the error that prevents it."""
    asked = name_asked_for(request, principal, profile)
    if asked is None:
        raise NoCommonNameError(subject=request.subject_text)
    if request.wants_ca and not profile.is_ca:
        raise CaNotIssuedError(profile=profile.name)
    # A principal that may request any name must not get a CA for it: only the name's own credential may, where an
    # endpoint allows it.
    if profile.is_ca and principal.kind is not PrincipalKind.OPERATOR and principal.device_id is None:
        raise CaNotIssuedError(profile=profile.name)
    check_speaks_for(principal, asked)
    _check_kind(request, asked, profile)
    if standing.lost_at is not None and principal.kind is not PrincipalKind.OPERATOR:
        raise NameLostError(asked=asked, device_id=asked, lost_at=standing.lost_at)
    if standing.key_revoked_at is not None:
        raise KeyRevokedError(asked=asked, device_id=asked, revoked_at=standing.key_revoked_at)
    if standing.key_holder not in {None, fold(asked)}:
        raise KeyTakenError(holder=standing.key_holder, asked=asked, device_id=asked)
    _check_name_is_free(request, principal, asked, standing)
    return asked


def name_asked_for(request: CertificateRequest, principal: Principal, profile: CertificateProfile) -> str | None:
    """Return the requested name: a device's own CA gets the device ID, whatever the CSR contains."""
    if profile.is_ca and principal.kind is not PrincipalKind.OPERATOR and principal.device_id is not None:
        return principal.device_id
    return request.subject_cn


def check_speaks_for(principal: Principal, asked: str | None) -> None:
    """Raise `NameNotAllowedError` if the principal may not request a name."""
    if not principal.may_act_for(asked):
        command = _credential_of(asked or "")
        refusal = NameNotAllowedError(
            actor=principal.actor,
            allowed=principal.device_id,
            asked=asked,
            command=command,
            device_id=asked or "",
        )
        if not command:
            refusal.quote(fix="Request the name of the current certificate.")
        raise refusal


def _credential_of(name: str) -> str:
    """Return the command that creates a credential for a name.

    It creates a device configuration if the name can register. It is empty for a name that is not a valid user name, or
    that the shell would read as an option.
    """
    word = shlex.quote(name)
    try:
        parse_registration_id(name)
    except RegistrationIdInvalidError:
        takes = is_user_name(name) and not name.startswith("-")
        return f"birthmark pki user create {word} --device {word}" if takes else ""
    return f"birthmark env --format aziot --registration-id {word}"


def _check_kind(request: CertificateRequest, asked: str, profile: CertificateProfile) -> None:
    if not profile.key_kinds:
        return
    kind = kind_of_key(request.public_key)
    if takes_key(profile, kind):
        return
    kinds = sorted(profile.key_kinds)
    raise KeyKindRefusedError(
        asked=asked,
        kind=kind,
        kinds=" or ".join(kinds),
        options=_NEW_KEY.get(kinds[0], _NEW_KEY["RSA-3072"]),
        profile=profile.name,
    )


def _check_name_is_free(request: CertificateRequest, principal: Principal, asked: str, standing: SubjectStatus) -> None:
    """Raise `NameHeldError` for a second key without a credential of the name, or for another spelling of it."""
    if principal.kind in {PrincipalKind.OPERATOR, PrincipalKind.AUTHORITY}:  # these check their requesters
        return
    key = key_digest(request.spki_der)
    for held in standing.live:
        is_another_key = principal.device_id is None and held.key_digest != key
        if is_another_key or held.device_id != asked:
            raise NameHeldError(actor=principal.actor, asked=asked, device_id=asked, holder=held.device_id)
