"""One agent per root."""

import asyncio
import fcntl
import os
import socket
import threading
from pathlib import Path

import pytest

from birthmark.agent.control import (
    AgentInProgramError,
    AgentNotRunningError,
    AgentRunningError,
    locked,
    running_pid,
    stop,
    tell,
)
from birthmark.agent.files import orders_beside
from birthmark.agent.orders import Order, Orders, answering, ask
from birthmark.agent.state import State, read_state, write_state
from fakes import FakeClock


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
        tell(path, Order.RENEW, FakeClock())
    with pytest.raises(AgentNotRunningError):
        stop(path, FakeClock())


def test_a_damaged_state_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert read_state(path) == State()
    write_state(path, State(hub="hub.test", renewals=3))
    assert read_state(path) == State(hub="hub.test", renewals=3)
    path.write_text("{")
    assert read_state(path) == State()


async def test_an_order_is_answered_by_who_took_it(tmp_path: Path) -> None:
    path, taken = tmp_path / "lock", Orders(takes_stop=False)
    async with answering(orders_beside(path), taken.give):
        with locked(path):
            assert await asyncio.to_thread(tell, path, Order.RENEW, FakeClock()) == os.getpid()
            with pytest.raises(AgentInProgramError):
                await asyncio.to_thread(tell, path, Order.STOP, FakeClock())
    assert taken.take() is Order.RENEW
    assert taken.take() is None
    assert not orders_beside(path).exists()


async def test_what_lay_in_the_place_of_the_socket_is_nobodys_any_more(tmp_path: Path) -> None:
    path = tmp_path / "lock.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    async with answering(path, Orders().give):
        assert (await asyncio.to_thread(ask, path, Order.STOP))[0]


async def test_words_that_are_no_order_and_endless_ones_do_nothing(tmp_path: Path) -> None:
    path, taken = tmp_path / "lock.sock", Orders()
    async with answering(path, taken.give):
        for words in (b"run\n", b"x" * 1000, b""):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(words)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
    assert taken.take() is None


async def test_an_identity_is_kept_where_no_socket_can_be_made(tmp_path: Path) -> None:
    async with answering(tmp_path / "nowhere" / "lock.sock", Orders().give):
        pass
