"""What the service manager hears, over a real socket."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.systemd_notify import SystemdNotifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.settimeout(5)
        yield path, listening


def test_who_is_connected_is_ready_and_who_stops_says_so(manager: tuple[str, socket.socket]) -> None:
    path, listening = manager
    notifier = SystemdNotifier.of({"NOTIFY_SOCKET": path}, pid=7)
    notifier.status("connected", {"hub": "hub.test"})
    assert listening.recv(4096).decode().splitlines() == ["READY=1", "STATUS=connected hub.test"]
    notifier.status("failed", {"cause": "two\nlines"})
    assert listening.recv(4096).decode().splitlines() == ["STATUS=failed two lines"]
    notifier.status("failed", {"cause": "no text: \udcff"})
    assert listening.recv(4096) == b"STATUS=failed no text: ?"
    notifier.status("stopped", {})
    assert listening.recv(4096).decode().splitlines()[0] == "STOPPING=1"


async def test_the_watchdog_is_fed_twice_in_each_period(manager: tuple[str, socket.socket]) -> None:
    path, listening = manager
    notifier = SystemdNotifier.of({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": "7"}, pid=7)
    async with notifier.watched():
        await asyncio.sleep(0.05)
    assert listening.recv(4096) == b"WATCHDOG=1"
    assert listening.recv(4096) == b"WATCHDOG=1"


def test_an_abstract_socket_is_found_by_its_at_sign() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0birthmark-notify-test")
        listening.settimeout(5)
        SystemdNotifier.of({"NOTIFY_SOCKET": "@birthmark-notify-test"}, pid=7).tell(ready="1")
        assert listening.recv(100) == b"READY=1"


def test_without_a_manager_nothing_happens_and_another_process_s_watchdog_is_not_ours() -> None:
    SystemdNotifier.of({}, pid=7).tell(ready="1")
    SystemdNotifier.of({"NOTIFY_SOCKET": "/nowhere/at/all"}, pid=7).tell(ready="1")
    assert SystemdNotifier.of({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "8"}, pid=7).watchdog_s is None
    assert SystemdNotifier.of({"WATCHDOG_USEC": "x"}, pid=7).watchdog_s is None
