"""Rate limit for frames that carry no message, such as FLOW: a token bucket that deliveries refill, too."""


class ControlAllowance:
    """Counts control frames of a peer; `spend` returns False once they are too frequent."""

    __slots__ = ("_maximum", "_per_s", "_remaining", "_updated")

    def __init__(self, maximum: int, per_s: float) -> None:
        self._maximum = float(maximum)
        self._per_s = per_s
        self._remaining = self._maximum
        self._updated: float | None = None

    def update(self, now: float) -> None:
        """Refill for the time since the last call."""
        if self._updated is not None and now > self._updated:
            self._remaining = min(self._maximum, self._remaining + (now - self._updated) * self._per_s)
        self._updated = now

    def refill(self, frames: int) -> None:
        """Allow more frames, because messages were delivered."""
        self._remaining = min(self._maximum, self._remaining + frames)

    def spend(self, frames: int = 1) -> bool:
        """Count frames and return whether they are within the limit."""
        self._remaining -= frames
        return self._remaining >= 0
