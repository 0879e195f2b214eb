"""An existing server, used like one that the tests start: devices are created and inspected there.

Commands that affect the entire server are refused, because others use it.
"""

import json
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from birthmark.clock_and_entropy import Clock, SystemClock, SystemEntropy
from birthmark.operator_api.client.server_discovery_and_api_client import OperatorClient, read_endpoints
from birthmark.testing import stdin_commands
from birthmark.testing.device_and_fault_factory import KIT, DeviceFactory
from birthmark.testing.errors import RunsByItselfError


class ExistingServer:
    """The server of a data directory, accessed with its operator's files. Threads use it in turn."""

    is_kept = True
    """Its state persists between tests."""
    is_running = True
    """Always true: a server that has ended is not restarted, and requests report it."""

    def __init__(self, data: Path) -> None:
        """Find the server. Raise `ServerNotRunningError`."""
        self.endpoints = read_endpoints(data)
        place = data / KIT / SystemEntropy().token(8).hex()  # other runs create devices there, even concurrently
        self._shop = DeviceFactory(data, OperatorClient.of(data), _AsItIs(data), place)
        self._data = data
        self._turn = threading.Lock()

    def start(self) -> None:
        """Do nothing: the server is running."""

    def stop(self) -> None:
        """Do nothing: the server continues."""

    def ask(self, word: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a command. Raise the `BirthmarkError` of its result."""
        asked = stdin_commands.parse_word(json.dumps(word).encode())
        match asked:
            case (
                stdin_commands.Reset()
                | stdin_commands.ClockWord()
                | stdin_commands.LineWord()
                | stdin_commands.ThrottleTier()
                | stdin_commands.ListMessages(at="aws")
            ):
                raise RunsByItselfError(word=stdin_commands.tag_of(asked), data=self._data)
            case _:
                with self._turn:
                    return self._shop.do(asked)


class _AsItIs:
    """Server-wide faults, all of which are refused."""

    def __init__(self, data: Path) -> None:
        self.clock: Clock = SystemClock()
        self.is_ending = False
        self._data = data

    def set_clock(self, ahead: timedelta) -> None:
        raise RunsByItselfError(word=f"clock {ahead}", data=self._data)

    def exhaust_quotas(self, duration: timedelta, *, is_day: bool = False) -> None:
        raise RunsByItselfError(word=f"throttle {duration} day={is_day}", data=self._data)
