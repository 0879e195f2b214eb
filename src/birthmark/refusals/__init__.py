"""Refusal ledger and the lookup behind `birthmark why`.

A refused client receives its protocol's own error; cause and fix are recorded here for the operator.
"""

from birthmark.refusals.ledger import Ledger
from birthmark.refusals.queries import refusals_about
from birthmark.refusals.store import Refusal

__all__ = ["Ledger", "Refusal", "refusals_about"]
