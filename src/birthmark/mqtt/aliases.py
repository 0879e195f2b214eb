"""Topic aliases of the messages that go out (5.0 section 3.3.2.3.4): which topics get one, and when.

A topic that comes a second time gets a number, and from then on the number stands for it. Those that came in are
in `terms`.
"""

MAX_ALIASES = 16  # of ours, whatever more the receiver takes: what one connection may cost
_MAX_SEEN = 64  # topics remembered, those included that came once
_WORTH_IT = range(4, 1025)  # shorter ones cost as much as an alias, longer ones are not kept


class OutboundAliases:
    """Which number stands for which topic at the receiver. The topics first seen make room for new ones."""

    __slots__ = ("_free", "_seen")

    def __init__(self, maximum: int) -> None:
        self._free = list(range(min(maximum, MAX_ALIASES), 0, -1))
        self._seen: dict[str, int] = {}  # topic -> alias, 0 when it came once

    def use(self, topic: str) -> tuple[int, bool]:
        """Return the alias to send, 0 for none, and whether the topic has to go with it."""
        alias = self._seen.get(topic)
        if alias:
            return alias, False
        if alias is None:
            if len(topic) in _WORTH_IT:
                self._remember(topic)
            return 0, False
        if not self._free:
            return 0, False
        self._seen[topic] = alias = self._free.pop()
        return alias, True

    def forget(self, topic: str) -> None:
        """The topic was not sent with its alias after all."""
        if alias := self._seen.pop(topic, 0):
            self._free.append(alias)

    def _remember(self, topic: str) -> None:
        if len(self._seen) >= _MAX_SEEN:
            self.forget(next(iter(self._seen)))
        self._seen[topic] = 0
