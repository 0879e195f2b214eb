"""One agent per root."""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark import flock
from birthmark.agent import control_socket, running_instance
from birthmark.agent.control_socket import ControlCommand, ControlServer, answering, ask
from birthmark.agent.running_instance import (
    AgentForeignError,
    AgentInProgramError,
    AgentNotRunningError,
    AgentRunningError,
    AgentSlowError,
    locked,
    running_pid,
    stop,
    tell,
)
from birthmark.agent.state import AgentState, read_state, write_state
from birthmark.agent.state_directory import StateNotWritableError, control_socket_of
from birthmark.clock_and_entropy import SystemClock
from support.fakes import FakeClock


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert running_pid(path) is None
    with locked(path):
        assert running_pid(path) == os.getpid()
        with pytest.raises(AgentRunningError) as refusal, locked(path):
            pass
        assert refusal.value.facts["pid"] == str(os.getpid())
    assert running_pid(path) is None


def test_whoever_looks_at_the_lock_does_not_keep_an_agent_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.08, os.close, (looking,)).start()
    with locked(path):
        assert running_pid(path) == os.getpid()


def test_nobody_is_told_when_nobody_runs(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("1\n")  # left by one that was killed: its number may be anybody's by now
    with pytest.raises(AgentNotRunningError):
        tell(path, ControlCommand.RENEW, FakeClock())
    with pytest.raises(AgentNotRunningError):
        stop(path, FakeClock())


@pytest.fixture
def lock_with_anothers_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lock held by this process where nothing can be written, and the number left in it is somebody else's by now."""
    path = tmp_path / "lock"

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(running_instance, "_SILENT_S", 0.1)
    with subprocess.Popen(["sleep", "100"]) as innocent:
        path.write_text(f"{innocent.pid}\n")
        with monkeypatch.context() as patched:
            patched.setattr(os, "ftruncate", refuse)
            stack = contextlib.ExitStack()
            stack.enter_context(locked(path))
        with stack:
            yield path
        innocent.kill()


def test_the_holder_is_named_by_the_kernel_and_not_by_what_an_earlier_one_wrote(
    lock_with_anothers_number: Path,
) -> None:
    assert running_pid(lock_with_anothers_number) == os.getpid()
    with pytest.raises(AgentSlowError) as refusal:
        tell(lock_with_anothers_number, ControlCommand.RENEW, SystemClock())
    assert f"`kill -KILL {os.getpid()}`" in refusal.value.explain_fix()


def test_nobody_is_named_to_be_killed_where_the_holder_is_not_known(
    lock_with_anothers_number: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flock, "holder", lambda _path: None)
    path = lock_with_anothers_number
    assert running_pid(path) is None
    with pytest.raises(AgentSlowError) as refusal:
        stop(path, SystemClock())
    assert "kill" not in refusal.value.explain_fix()
    assert f"`fuser {path}`" in refusal.value.explain_fix()
    with pytest.raises(AgentRunningError), locked(path):
        pass


def test_a_holder_the_kernel_does_not_list_is_known_by_the_file_it_has_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flock, "holder", lambda _path: None)  # as on btrfs, which counts devices in its own way
    with locked(tmp_path / "lock"):
        assert running_pid(tmp_path / "lock") == os.getpid()


def test_an_empty_lock_that_is_held_is_somebodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_instance, "_SILENT_S", 0.1)
    path = tmp_path / "lock"
    with locked(path):
        path.write_bytes(b"")  # as on a full disk
        with pytest.raises(AgentSlowError):
            stop(path, SystemClock())


def test_a_damaged_state_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert read_state(path) == AgentState()
    write_state(path, AgentState(hub="hub.test", renewals=3))
    assert read_state(path) == AgentState(hub="hub.test", renewals=3)
    path.write_text("{")
    assert read_state(path) == AgentState()


async def test_an_order_is_answered_by_who_took_it(tmp_path: Path) -> None:
    path, taken = tmp_path / "lock", ControlServer(takes_stop=False)
    async with answering(control_socket_of(path), taken.give):
        with locked(path):
            assert await asyncio.to_thread(tell, path, ControlCommand.RENEW, FakeClock()) == os.getpid()
            with pytest.raises(AgentInProgramError):
                await asyncio.to_thread(tell, path, ControlCommand.STOP, FakeClock())
    assert taken.take() is ControlCommand.RENEW
    assert taken.take() is None
    assert not control_socket_of(path).exists()


async def test_who_stops_an_agent_is_told_when_it_is_gone(tmp_path: Path) -> None:
    path, taken = tmp_path / "lock", ControlServer()
    async with answering(control_socket_of(path), taken.give):
        with locked(path):
            stopping = asyncio.create_task(asyncio.to_thread(stop, path, SystemClock()))
            while not taken.is_stopping:
                await asyncio.sleep(0.01)
            assert not stopping.done(), "it has taken the order, and is there still"
    assert await asyncio.wait_for(stopping, 10) == os.getpid()


async def test_an_agent_that_takes_its_order_to_stop_and_stays_is_named_with_what_ends_it(tmp_path: Path) -> None:
    path, taken = tmp_path / "lock", ControlServer()
    async with answering(control_socket_of(path), taken.give):
        with locked(path), pytest.raises(AgentSlowError) as refusal:
            await asyncio.to_thread(stop, path, SystemClock(), 0.1)
    assert "did not stop within 0.1 s" in refusal.value.explain_cause()
    assert f"`kill -KILL {os.getpid()}`" in refusal.value.explain_fix()


def test_an_agent_of_another_user_is_told_from_one_that_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    monkeypatch.setattr(control_socket, "_peer", lambda _line: (1, 4711))  # what the kernel says of the other end
    with socket.socket(socket.AF_UNIX) as theirs, locked(path):
        theirs.bind(str(control_socket_of(path)))
        theirs.listen()
        with pytest.raises(AgentForeignError) as refusal:
            tell(path, ControlCommand.RENEW, SystemClock())
    assert f"process {os.getpid()}" in refusal.value.explain_cause()


def test_a_root_whose_lock_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(StateNotWritableError) as refusal, locked(tmp_path / "nowhere" / "lock"):
        pass
    assert "no such file" in refusal.value.explain_cause()


async def test_what_lay_in_the_place_of_the_socket_is_nobodys_any_more(tmp_path: Path) -> None:
    path = tmp_path / "lock.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    async with answering(path, ControlServer().give):
        assert (await asyncio.to_thread(ask, path, ControlCommand.STOP))[0]


async def test_words_that_are_no_order_and_endless_ones_do_nothing(tmp_path: Path) -> None:
    path, taken = tmp_path / "lock.sock", ControlServer()
    async with answering(path, taken.give):
        for words in (b"run\n", b"x" * 1000, b""):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(words)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
    assert taken.take() is None


async def test_an_identity_is_kept_where_no_socket_can_be_made(tmp_path: Path) -> None:
    async with answering(tmp_path / "nowhere" / "lock.sock", ControlServer().give):
        pass


async def test_an_order_of_whoever_is_gone_again_is_not_carried_out(tmp_path: Path) -> None:
    path, given = tmp_path / "agent.sock", ControlServer()
    async with answering(path, given.give):
        with socket.socket(socket.AF_UNIX) as line:  # while the loop stands, as in a process that is stopped
            line.connect(str(path))
            line.sendall(b"stop\n")
        await asyncio.to_thread(ask, path, ControlCommand.RENEW)
    assert given.take() is ControlCommand.RENEW
    assert not given.is_any
