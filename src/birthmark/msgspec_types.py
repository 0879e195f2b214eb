"""Types as msgspec knows them, whichever thread asks first.

msgspec keeps what it finds out about a type on the type itself, and before it is whole: a second thread that reads the
same type meanwhile ends the process by a null pointer (seen with 0.22). Afterwards any thread may read it.
"""

import threading
from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T")
_lock = threading.Lock()
_known: set[Any] = set()


def known(kind: type[_T]) -> type[_T]:
    """Return `kind` when msgspec has looked at it, and at all that it is made of."""
    if kind not in _known:
        with _lock:
            msgspec.json.Decoder(kind)  # noqa: TID251 - nothing is read by it
            _known.add(kind)
    return kind
