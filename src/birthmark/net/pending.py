"""Who has not finished the handshake, by address; and who goes when there are too many."""

from typing import Generic, TypeVar

Holder = TypeVar("Holder")


class Pending(Generic[Holder]):
    """See the module. Each call takes the same time, however many addresses there are."""

    __slots__ = ("_address", "_most", "_of", "_with")

    def __init__(self) -> None:
        self._address: dict[Holder, str] = {}
        self._of: dict[str, dict[Holder, None]] = {}  # the oldest of an address first
        self._with: list[dict[str, None]] = [{}]  # addresses, by how many they have
        self._most = 0

    def __len__(self) -> int:
        return len(self._address)

    def __contains__(self, holder: object) -> bool:
        return holder in self._address

    def add(self, holder: Holder, address: str) -> None:
        """Count one in."""
        self._address[holder] = address
        own = self._of.setdefault(address, {})
        own[holder] = None
        self._move(address, len(own) - 1, len(own))

    def remove(self, holder: Holder) -> None:
        """Count one out, if it is in."""
        if (address := self._address.pop(holder, None)) is None:
            return
        own = self._of[address]
        del own[holder]
        self._move(address, len(own) + 1, len(own))
        if not own:
            del self._of[address]

    def crowding(self) -> Holder:
        """Return the oldest of an address that has most: who has one, and a slow line, keeps it."""
        return next(iter(self._of[next(iter(self._with[self._most]))]))

    def _move(self, address: str, was: int, count: int) -> None:
        self._with[was].pop(address, None)
        if count == len(self._with):
            self._with.append({})
        if count:
            self._with[count][address] = None
        if count > self._most or not self._with[self._most]:
            self._most = count  # one more than the most, or one less of the only one that had it
