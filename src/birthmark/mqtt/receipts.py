"""QoS 1 messages that came in and are not acknowledged: acknowledgements leave in the order of the messages.

[MQTT-4.6.0-2] asks for that order, and rooms finish in any: what is settled early waits for what came before it. The
number of them is what a Receive Maximum bounds (5.0 section 4.9).
"""

MAX_OWED = 65_535  # every packet id at once


class Receipts:
    """Packet ids in the order they came, and the acknowledgements that wait for their turn."""

    __slots__ = ("_early", "_owed")

    def __init__(self) -> None:
        self._owed: list[int] = []
        self._early: dict[int, list[bytes]] = {}  # more than one where a client used an id twice

    def __len__(self) -> int:
        return len(self._owed)

    def take(self, packet_ids: list[int], maximum: int) -> int:
        """Note messages in their order; return how many of the last are too many, which are not noted.

        The list is given away: nearly always there is nothing to add it to.
        """
        if self._owed:
            self._owed += packet_ids
        else:
            self._owed = packet_ids
        excess = len(self._owed) - maximum
        if excess <= 0:
            return 0
        del self._owed[-excess:]
        return excess

    def settle_next(self, packet_ids: list[int]) -> bool:
        """Settle all of these if they are the next to be acknowledged, and say whether they are."""
        if self._early:
            return False
        owed, count = self._owed, len(packet_ids)
        if owed == packet_ids:
            self._owed = []
        elif owed[:count] == packet_ids:
            del owed[:count]
        else:
            return False
        return True

    def settle(self, packet_id: int, data: bytes) -> bytes:
        """Settle one with its acknowledgement and return all that may leave now.

        What was never received leaves at once: its sender knows more than we do.
        """
        owed, early = self._owed, self._early
        if packet_id not in owed:
            return data
        early.setdefault(packet_id, []).append(data)
        count, ready = 0, []
        for head in owed:
            waiting = early.get(head)
            if waiting is None:
                break
            ready.append(waiting.pop(0))
            if not waiting:
                del early[head]
            count += 1
        del owed[:count]
        return b"".join(ready)
