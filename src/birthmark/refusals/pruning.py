"""Which refusals leave: those that are too old, and of the others the oldest of the addresses that have most.

Pure; the ledger reads what there is page by page and removes what leaves in slices, so that nobody waits for it.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias

Kept: TypeAlias = tuple[str, int, str]
"""A row as far as it counts: its id, when it was, and whose share it is."""


def surplus(rows: Iterable[Kept], *, before: int, kept: int, of_one: int) -> list[str]:
    """Return the ids of the rows that leave: of before a moment, of a share beyond `of_one`, beyond `kept` in all.

    The latest of each share come first, then the second of each, and so on: who has most goes first.
    """
    leaving = []
    shares: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for one, at, share in rows:
        if at < before:
            leaving.append(one)
        else:
            shares[share].append((-at, one))
    places: list[tuple[int, int, str]] = []
    for of_share in shares.values():
        of_share.sort()
        leaving += [one for _, one in of_share[of_one:]]
        places += [(rank, since, one) for rank, (since, one) in enumerate(of_share[:of_one])]
    places.sort()
    return leaving + [one for _, _, one in places[kept:]]
