"""Thread-safe preparation of msgspec types.

msgspec caches type information on the type before it is complete. A second thread that reads the same type at that time
crashes the process with a null pointer (seen with 0.22). After preparation, any thread may use the type.
"""

import threading
from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T")
_lock = threading.Lock()
_known: set[Any] = set()


def prepare_type(kind: type[_T]) -> type[_T]:
    """Return `kind` after msgspec has prepared it and all types that it contains."""
    if kind not in _known:
        with _lock:
            msgspec.json.Decoder(kind)  # noqa: TID251 - not used to decode
            _known.add(kind)
    return kind
