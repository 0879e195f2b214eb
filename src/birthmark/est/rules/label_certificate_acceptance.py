"""Rules of an EST label: the label's own rules apply to every caller, whatever certificate it presents.

A certificate of the label's profile was issued by the label's rules, and is renewed by them. One of another profile,
such as a short-lived identity at the label of a long-lived one, proves only the name.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from birthmark.auth.principals import PrincipalKind
from birthmark.est.model import CallerProof, EstLabel, LateRenewalRule
from birthmark.est.rules.late_renewal import check_late_renewal


def late_renewal_at(
    label: EstLabel, proof: CallerProof, rules: Mapping[str, LateRenewalRule], now: datetime
) -> LateRenewalRule | None:
    """Return the stricter late renewal rule: the expired certificate's own, or the label's.

    Raise the error of `check_comeback` if the label's profile has no rule, or a shorter window. None for a valid
    certificate.
    """
    own, issued = proof.late_renewal, proof.issued
    if own is None or issued is None or issued.profile == label.profile.name:
        return own
    here = check_late_renewal(replace(issued, profile=label.profile.name), rules, now)
    return None if here is None else LateRenewalRule(min(own.window, here.window), own.approval or here.approval)


def is_unknown_at(label: EstLabel, proof: CallerProof) -> bool:
    """Return whether the caller has no certificate of the label's profile, so that approval may be required."""
    kind = proof.principal.kind
    if kind in {PrincipalKind.EST_USER, PrincipalKind.BOOTSTRAP}:
        return True
    return kind is PrincipalKind.DEVICE and proof.issued is not None and proof.issued.profile != label.profile.name
