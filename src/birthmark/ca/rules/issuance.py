"""May this principal have this certificate? Pure: everything it depends on is an argument."""

from collections.abc import Collection

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.errors import ConflictError, ForbiddenError, PolicyError
from birthmark.pki.csr import CertificateRequest
from birthmark.pki.profiles import Profile


class NoCommonNameError(PolicyError):
    """The request does not name the device."""

    code = "ca.no_common_name"
    cause = "The request's subject '{subject}' has no common name, or several; it must be the device id."
    fix = "Make the request with exactly one CN, for example `-subj /CN=device-1`."


class NameNotAllowedError(ForbiddenError):
    """The principal may not speak for this device."""

    code = "ca.name_not_allowed"
    cause = "{actor} may have certificates for '{allowed}' only, and asked for '{asked}'."
    fix = (
        "Ask for the name of the certificate in use. For another device use its own identity or a bootstrap credential."
    )


class CaNotIssuedError(PolicyError):
    """A CA certificate was asked for where only device certificates are issued."""

    code = "ca.ca_not_issued"
    cause = "The request asks for CA:TRUE, and the profile '{profile}' is not of a CA."
    fix = "Leave basicConstraints out of the request, or ask where CA certificates are issued."


class KeyTakenError(ConflictError):
    """Two devices with one key: one of them is a copy."""

    code = "ca.key_taken"
    cause = "The public key belongs to '{holder}' already, and '{asked}' asks for it too."
    fix = "Generate a key for each device, in its own chip; a firmware image must not carry one."


def decide(request: CertificateRequest, principal: Principal, profile: Profile, holders_of_key: Collection[str]) -> str:
    """Return the device id the certificate will be for, or raise why there will be none."""
    asked = request.subject_cn
    if asked is None:
        raise NoCommonNameError("The request needs exactly one common name.", subject=request.subject_text)
    if request.wants_ca and not profile.is_ca:
        raise CaNotIssuedError("CA certificates are not issued here.", profile=profile.name)
    if profile.is_ca and principal.kind is not PrincipalKind.OPERATOR:
        raise CaNotIssuedError("Only an operator may have a CA certificate.", profile=profile.name)
    if principal.device_id is not None and principal.device_id != asked:
        raise NameNotAllowedError(
            "This identity may not ask for that name.", actor=principal.actor, allowed=principal.device_id, asked=asked
        )
    if others := [holder for holder in holders_of_key if holder != asked]:
        raise KeyTakenError("This public key belongs to another device.", holder=others[0], asked=asked)
    return asked
