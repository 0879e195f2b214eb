"""Which events come too late: older than what was handed on of the same kind and entity."""

from collections import OrderedDict

from birthmark.store.events import Event, kind_of

MAX_ENTITIES = 65_536


class Latest:
    """Remembers the version that was handed on last, of as many entities as there is room for."""

    def __init__(self, max_entities: int = MAX_ENTITIES) -> None:
        self._max_entities = max_entities
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def admits(self, event: Event) -> bool:
        """Say whether `event` may be handed on, and remember that it was."""
        if event.version <= 0:
            return True
        key = kind_of(type(event)), event.entity
        if event.version < self._known.get(key, 0):
            return False
        self._known[key] = event.version
        self._known.move_to_end(key)
        if len(self._known) > self._max_entities:
            self._known.popitem(last=False)
        return True
