"""Delay of Ctrl-C (SIGINT) during critical operations."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def uninterrupted(*, twice: bool = False) -> Iterator[None]:
    """Delay Ctrl-C; with `twice` only the first.

    A signal mask does not help: another thread takes the signal, and the handler runs in this one.
    """
    if threading.current_thread() is not threading.main_thread():  # no handler runs there
        yield
        return
    held: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def hold(number: int, _frame: FrameType | None) -> None:
        held.append(number)
        if twice and len(held) > 1:
            signal.signal(signal.SIGINT, before)
            signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if len(held) == 1 or (held and not twice):
            signal.raise_signal(signal.SIGINT)
