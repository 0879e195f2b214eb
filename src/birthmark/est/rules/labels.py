"""Which rules count for whoever comes through a door: its own, whatever certificate is shown there.

A certificate of the profile that a door gives was given by this door's rules, and renews by them. One of another
profile, such as a short-lived identity at the door of a long-lived one, proves the name and no more.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from birthmark.auth.principals import PrincipalKind
from birthmark.est.model import CallerProof, EstLabel, LateRenewalRule
from birthmark.est.rules.late_renewal import check_comeback


def comeback_at(
    door: EstLabel, proof: CallerProof, rules: Mapping[str, LateRenewalRule], now: datetime
) -> LateRenewalRule | None:
    """Return the stricter of the two rules by which an expired certificate counts: its own, and the door's.

    Raise as `check_comeback` does where the door's profile has none, or a shorter window. None for a live certificate.
    """
    own, issued = proof.comeback, proof.issued
    if own is None or issued is None or issued.profile == door.profile.name:
        return own
    here = check_comeback(replace(issued, profile=door.profile.name), rules, now)
    return None if here is None else LateRenewalRule(min(own.window, here.window), own.approval or here.approval)


def is_stranger_at(door: EstLabel, proof: CallerProof) -> bool:
    """Say whether the door gives what the caller has not: then an operator decides, where the door says so."""
    kind = proof.principal.kind
    if kind in {PrincipalKind.EST_USER, PrincipalKind.BOOTSTRAP}:
        return True
    return kind is PrincipalKind.DEVICE and proof.issued is not None and proof.issued.profile != door.profile.name
