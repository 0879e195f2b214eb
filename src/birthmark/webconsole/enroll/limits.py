"""Limits of uploaded lists: size, number and retention; docs/reference/limits.md has the same values."""

from datetime import timedelta

DROP = "/enroll/drop"
DIRECTORY = "enrolling"
"""Subdirectory of the data directory; backups exclude it."""
_MIB = 1024 * 1024
MAX_FILES_BYTES = 64 * _MIB
"""Total size of the files of an upload."""
MAX_DROP_BYTES = MAX_FILES_BYTES + _MIB
"""Size of an upload including the form."""
MAX_FILES, MAX_FIELD_BYTES, MAX_FIELDS = 500, 4096, 16
MAX_TRUST_BYTES = _MIB
"""Total size of the certificates of signers, stations and roots."""
MAX_ROWS = 20_000
MOST_DROPS, MOST_OF_ONE, MOST_RECEIVED, MOST_AT_ONCE = 32, 5, 4, 2
"""Maximum number of uploads: stored in total, stored per user, received at a time, and checked or run at a time."""
KEPT, KEPT_DONE = timedelta(hours=1), timedelta(days=1)
"""Retention of a list that was only checked, and of the results of a run."""
PAUSE_S = 0.002
"""Pause between two rows, for other requests."""
