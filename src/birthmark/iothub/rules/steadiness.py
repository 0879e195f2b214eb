"""Whether the wall clock may be believed where something would be deleted by it.

A machine without a battery starts with a clock that is off by years, and an administrator may set one wrongly: both are
put right some minutes later.
"""

STEADY_S = 600.0
"""How long a clock has to go on as it is."""
_TOLERANCE_S = 60.0


class Steadiness:
    """Of a clock that is looked at now and then. Seconds."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._since = 0.0

    def seen(self, wall: float, monotonic: float) -> bool:
        """Note a look, and say whether the clock goes on undisturbed for `STEADY_S` already."""
        offset = wall - monotonic
        if self._offset is None or abs(offset - self._offset) > _TOLERANCE_S:
            self._offset, self._since = offset, monotonic
        return monotonic - self._since >= STEADY_S
