"""The audit chain read back: every mutation in order, and whether it is the one that was written and signed."""

from birthmark.audit.heads import AuditKey, Head, HeadInvalidError, parse_head
from birthmark.audit.verify import AuditBrokenError, Verified, note_break, verify_chain

__all__ = [
    "AuditBrokenError",
    "AuditKey",
    "Head",
    "HeadInvalidError",
    "Verified",
    "note_break",
    "parse_head",
    "verify_chain",
]
