"""Late renewal: acceptance of an expired certificate as proof of identity (RFC 7030 leaves it to server policy).

It also accepts a certificate that is not yet valid: the server's own clock was ahead when it signed, and the device has
no other certificate.

An expired certificate is not compromised, because its key is still in the secure element. A certificate whose successor
was used is rejected, because a copy of the old one may exist.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from birthmark.ca.model import IssuedCertificate
from birthmark.errors import ForbiddenError
from birthmark.est.model import LateRenewalRule
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.path_validation import check_dates

_FIX = "Create a single-use token for the device: `birthmark pki token create {device_id}`"


class GracePeriodExpiredError(ForbiddenError):
    """The certificate expired too long ago for a late renewal."""

    code = "est.comeback_too_late"
    cause = (
        "The certificate of '{device_id}' expired at {not_after}; the profile '{profile}' permits late renewal for "
        "{window_s} s."
    )
    fix = f"{_FIX}. To change the grace period, set [est.late_renewal.{{profile}}] in the server's configuration."
    device_id: str
    not_after: str
    profile: str
    window_s: int


class CloneSuspectedError(ForbiddenError):
    """The certificate's successor is already in use."""

    code = "est.clone_suspected"
    message = "The certificate has been replaced"
    cause = (
        "'{device_id}' presented the expired certificate {thumbprint} although its successor {successor} was in use. "
        "An old key was copied, or the device was reset to an old state."
    )
    fix = f"Inspect the device. If it was reset: {_FIX[0].lower()}{_FIX[1:]}"
    device_id: str
    successor: str
    thumbprint: str


def check_late_renewal(
    issued: IssuedCertificate,
    rules: Mapping[str, LateRenewalRule],
    now: datetime,
    *,
    newer: Sequence[IssuedCertificate] = (),
    parents: Collection[Thumbprint] = (),
    in_use: Collection[Thumbprint] = (),
) -> LateRenewalRule | None:
    """Return the late renewal rule of an expired certificate, None for a valid one. Raise for a rejection.

    `newer` are the name's later certificates that were used, `parents` those that requested others, `in_use` the
    thumbprints of the device's other records.
    """
    certificate = issued.certificate
    rule = rules.get(issued.profile)
    if now < certificate.not_before:  # signed while this server's clock was ahead: still ours
        return None
    if rule is None or not rule.window or now <= certificate.not_after:
        check_dates(certificate, now)
        return None
    if now > certificate.not_after + rule.window:
        raise GracePeriodExpiredError(
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
    """Return a used certificate that replaced this one.

    An EST identity requests device certificates, which register and do not replace it. A certificate that this one
    requested is therefore its successor only if it is of the same kind: both register, or both request others. Among
    certificates with one requester, the one that registered is the successor, but not of one that requests others.
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
