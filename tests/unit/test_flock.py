"""A lock is that of the file which has the name: one that its holder removed is nobody's."""

import fcntl
import os
from pathlib import Path

import pytest

from birthmark import flock


def test_who_waited_for_a_lock_whose_holder_removed_the_file_has_one_that_others_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    held = flock.take(path, 1)
    assert held is not None
    system = fcntl.flock

    def meanwhile(descriptor: int, how: int) -> None:
        """The holder removes the file and ends when the other has opened it already."""
        monkeypatch.setattr(fcntl, "flock", system)
        path.unlink()
        os.close(held)
        system(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    waited = flock.take(path, 2)
    assert waited is not None
    assert flock.is_taken(path)
    assert flock.take(path, 1) is None
    os.close(waited)
