"""Who has not finished the handshake, by address; and who goes when there are too many."""

from typing import Generic, TypeVar

Holder = TypeVar("Holder")


class Pending(Generic[Holder]):
    """See the module."""

    __slots__ = ("_address", "_of")

    def __init__(self) -> None:
        self._address: dict[Holder, str] = {}
        self._of: dict[str, dict[Holder, None]] = {}  # the oldest of an address first

    def __len__(self) -> int:
        return len(self._address)

    def __contains__(self, holder: object) -> bool:
        return holder in self._address

    def add(self, holder: Holder, address: str) -> None:
        """Count one in."""
        self._address[holder] = address
        self._of.setdefault(address, {})[holder] = None

    def remove(self, holder: Holder) -> None:
        """Count one out, if it is in."""
        if (address := self._address.pop(holder, None)) is not None:
            own = self._of[address]
            del own[holder]
            if not own:
                del self._of[address]

    def crowding(self) -> Holder:
        """Return the oldest of the address that has most: who has one, and a slow line, keeps it."""
        most = max(self._of, key=lambda address: len(self._of[address]))
        return next(iter(self._of[most]))
