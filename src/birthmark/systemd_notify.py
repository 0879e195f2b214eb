"""systemd notifications (sd_notify(3)): readiness, watchdog, stopping, and status.

- In: NOTIFY_SOCKET, a path or an abstract name with @; WATCHDOG_USEC and WATCHDOG_PID. Optional.
- Out: datagrams of `NAME=value` lines. Delivery is not checked.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

_MAX_STATUS_CHARS = 200
_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class SystemdNotifier:
    """Sends notifications to the service manager, if there is one."""

    address: str | None = None
    watchdog_s: float | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> "SystemdNotifier":
        """Return the notifier of the environment; a watchdog of another process is ignored."""
        found = environment.get("NOTIFY_SOCKET", "")
        address = "\0" + found[1:] if found.startswith("@") else found
        micros = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        watchdog_s = int(micros) / _MICRO if is_ours and micros.isascii() and micros.isdigit() else None
        return cls(address if found.startswith(("/", "@")) else None, watchdog_s or None)

    def tell(self, **words: str) -> None:
        """Send notifications such as `READY=1`; names are converted to upper case."""
        if self.address is None:
            return
        text = "\n".join(f"{name.upper()}={value[:_MAX_STATUS_CHARS]}" for name, value in words.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.settimeout(0)
            link.connect(self.address)
            link.send(text.encode(errors="replace"))

    def status(self, event: str, facts: Mapping[str, object]) -> None:
        """Send an event as a status line; the event `connected` also sends readiness."""
        about = facts.get("cause") or facts.get("hub") or facts.get("id") or ""
        line = " ".join(f"{event} {about}".split())
        if event == "connected":
            self.tell(ready="1", status=line)
        elif event == "stopped":
            self.tell(stopping="1", status=line)
        else:
            self.tell(status=line)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Send watchdog notifications twice per period from the event loop, until the block ends."""
        if self.watchdog_s is None:
            yield
            return
        task = asyncio.create_task(self._ping(self.watchdog_s / 2))
        try:
            yield
        finally:
            task.cancel()

    async def _ping(self, every_s: float) -> None:
        while True:
            self.tell(watchdog="1")
            await asyncio.sleep(every_s)


def notifier() -> SystemdNotifier:
    """Return the notifier of this process."""
    return SystemdNotifier.of(os.environ, os.getpid())
