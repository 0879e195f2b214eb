"""How long something lives, as people write it: `20s`, `30min`, `12h`, `365d`."""

import re
from datetime import timedelta

FORMS = "20s, 30min, 12h or 365d"
_LIFETIME = re.compile(r"([1-9][0-9]{0,8})(s|min|h|d)")
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def lifetime_of(text: str) -> timedelta:
    """Return the duration. Raise `ValueError`, which names the forms."""
    if (found := _LIFETIME.fullmatch(text)) is None:
        raise ValueError(f"give a number and a unit: {FORMS}")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])
