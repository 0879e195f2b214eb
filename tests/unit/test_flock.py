"""A lock is that of the file which has the name: one that its holder removed is nobody's."""

import fcntl
import os
import shutil
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
    assert flock.is_locked(path)
    assert flock.take(path, 1) is None
    os.close(waited)


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    """Whose directory it is could have root make a file wherever it likes."""
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "lock").symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        flock.take(tmp_path / "lock", 1)
    assert not flock.is_locked(tmp_path / "lock")
    assert not elsewhere.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes into another user's directory")
def test_a_lock_that_root_makes_in_a_services_directory_is_the_services(tmp_path: Path) -> None:
    """The first `agent apply` by root kept the service of another user from ever starting."""
    shutil.chown(tmp_path, "nobody", "nogroup")
    held = flock.take(tmp_path / "lock", 1)
    assert held is not None
    os.close(held)
    assert ((tmp_path / "lock").owner(), (tmp_path / "lock").group()) == ("nobody", "nogroup")
