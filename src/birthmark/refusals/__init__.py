"""Why something was refused: a ledger of refusals and the look-up behind `birthmark why`.

What a refused client learns is its protocol's own error; the cause and the fix are for the operator and live here.
"""

from birthmark.refusals.ledger import Ledger, refusals_about
from birthmark.refusals.store import Refusal

__all__ = ["Ledger", "Refusal", "refusals_about"]
