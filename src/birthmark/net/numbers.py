"""Whole numbers in headers and queries."""

_MAX_DIGITS = 18  # within 64 bits


def whole_number(text: str) -> int | None:
    """Return the number that `text` writes in ASCII digits, or None: `int` takes far more, and `str.isdigit` lies."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None
