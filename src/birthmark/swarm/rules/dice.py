"""Chance that can be had again: numbers from a seed (splitmix64), 8 bytes of state for a device."""

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


class Dice:
    """Rolls numbers from 0 up to 1; the same seed rolls the same."""

    __slots__ = ("_state",)

    def __init__(self, seed: int, number: int = 0) -> None:
        self._state = _mixed((seed * _STEP + number * 0xD1B54A32D192ED03) & _MASK)

    def roll(self) -> float:
        """Return the next number."""
        self._state = (self._state + _STEP) & _MASK
        return (_mixed(self._state) >> 11) / (1 << 53)


def _mixed(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)
