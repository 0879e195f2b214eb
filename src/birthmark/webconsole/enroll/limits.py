"""How large a dropped list may be, how many there are, how long they stay; docs/reference/limits.md has the same."""

from datetime import timedelta

DROP = "/enroll/drop"
DIRECTORY = "enrolling"
"""Below the data directory; a backup leaves it out."""
_MIB = 1024 * 1024
MAX_FILES_BYTES = 64 * _MIB
"""All files of one drop together."""
MAX_DROP_BYTES = MAX_FILES_BYTES + _MIB
"""With what stands around them in a form."""
MAX_FILES, MAX_FIELD_BYTES, MAX_FIELDS = 500, 4096, 16
MAX_TRUST_BYTES = _MIB
"""Certificates of signers, stations and roots, together."""
MAX_ROWS = 20_000
MOST_DROPS, MOST_OF_ONE, MOST_RECEIVED, MOST_AT_ONCE = 32, 5, 4, 2
"""Kept by all together, and of one; read at a time, and looked at or put on record at a time."""
KEPT, KEPT_DONE = timedelta(hours=1), timedelta(days=1)
"""A list that was only looked at, and what became of one."""
PAUSE_S = 0.002
"""Between two rows, so that others are served."""
