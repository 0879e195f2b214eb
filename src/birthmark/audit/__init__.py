"""The audit chain read back: every mutation in order, and whether a row was tampered with."""

from birthmark.audit.verify import AuditBrokenError, verify_chain

__all__ = ["AuditBrokenError", "verify_chain"]
