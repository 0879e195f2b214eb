"""May an expired certificate still prove who a device is? (RFC 7030 leaves it to the server's policy.)

And one that has not begun: the server's own clock was ahead when it signed, and its device has no other.

What expired was not compromised: the key is still in its chip. But a certificate whose successor was seen in use does
not come back: somebody may have a copy of the old one.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from birthmark.ca.model import IssuedCertificate
from birthmark.errors import ForbiddenError
from birthmark.est.model import LateRenewalRule
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.path_validation import check_dates

_FIX = "Create a single-use token for the device: `birthmark pki token create {device_id}`"


class ComebackTooLateError(ForbiddenError):
    """The certificate expired too long ago for a late renewal."""

    code = "est.comeback_too_late"
    cause = (
        "The certificate of '{device_id}' expired at {not_after}; the profile '{profile}' permits late renewal for "
        "{window_s} s."
    )
    fix = f"{_FIX}. To change the grace period, set [est.comeback.{{profile}}] in the server's configuration."
    device_id: str
    not_after: str
    profile: str
    window_s: int


class CloneSuspectedError(ForbiddenError):
    """The certificate's successor is already in use."""

    code = "est.clone_suspected"
    message = "This certificate was replaced"
    cause = (
        "'{device_id}' presented the expired certificate {thumbprint} although its successor {successor} was in use. "
        "An old key was copied, or the device was reset to an old state."
    )
    fix = f"Inspect the device. If it was reset: {_FIX[0].lower()}{_FIX[1:]}"
    device_id: str
    successor: str
    thumbprint: str


def check_comeback(
    issued: IssuedCertificate,
    rules: Mapping[str, LateRenewalRule],
    now: datetime,
    *,
    newer: Sequence[IssuedCertificate] = (),
    parents: Collection[Thumbprint] = (),
    in_use: Collection[Thumbprint] = (),
) -> LateRenewalRule | None:
    """Return the rule by which an expired certificate counts, None for one that is alive. Raise why it does not count.

    `newer` are the name's later certificates that were used, `parents` those that asked for others, `in_use` the
    thumbprints by which the device is on record elsewhere.
    """
    certificate = issued.certificate
    rule = rules.get(issued.profile)
    if now < certificate.not_before:  # this server's clock was ahead when it signed: it is ours all the same
        return None
    if rule is None or not rule.window or now <= certificate.not_after:
        check_dates(certificate, now)
        return None
    if now > certificate.not_after + rule.window:
        raise ComebackTooLateError(
            device_id=issued.device_id,
            not_after=certificate.not_after.isoformat(),
            profile=issued.profile,
            window_s=int(rule.window.total_seconds()),
        )
    if (successor := _successor(issued, newer, parents, in_use)) is not None:
        raise CloneSuspectedError(
            device_id=issued.device_id,
            thumbprint=certificate.thumbprint.hex(),
            successor=successor.certificate.thumbprint.hex(),
        )
    return rule


def _successor(
    issued: IssuedCertificate,
    newer: Sequence[IssuedCertificate],
    parents: Collection[Thumbprint],
    in_use: Collection[Thumbprint],
) -> IssuedCertificate | None:
    """Return a certificate that took this one's place and was used.

    An EST identity asks for device certificates, which register and take nobody's place; so what this one asked for is
    its successor only when it is of the same kind: one that registers too, or one that asks for others itself. Of
    certificates that one other asked for, the one that registered is the successor, but not of one that asks itself.
    """
    own = issued.certificate.thumbprint
    registers = issued.registered_at is not None or own in in_use
    can_have_siblings = issued.parent is not None and (registers or own not in parents)
    for one in newer:
        thumbprint = one.certificate.thumbprint
        is_registered = one.registered_at is not None or thumbprint in in_use
        is_child = one.parent == own and (registers if is_registered else thumbprint in parents)
        is_sibling = can_have_siblings and one.parent == issued.parent and is_registered
        if is_child or is_sibling:
            return one
    return None
