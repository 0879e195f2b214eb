"""One agent per root."""

import fcntl
import os
import threading
from pathlib import Path

import pytest

from birthmark.agent.control import AgentNotRunningError, AgentRunningError, Order, locked, running_pid, stop, tell
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
        tell(path, Order.RENEW)
    with pytest.raises(AgentNotRunningError):
        stop(path, FakeClock())


def test_a_damaged_state_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert read_state(path) == State()
    write_state(path, State(hub="hub.test", renewals=3))
    assert read_state(path) == State(hub="hub.test", renewals=3)
    path.write_text("{")
    assert read_state(path) == State()
