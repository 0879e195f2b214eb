"""The directory of a swarm's keys is its user's alone."""

import os
from pathlib import Path

import pytest

from birthmark.swarm.errors import DirectoryOpenError
from birthmark.swarm.identities import IdentityDirectory
from birthmark.swarm.scenario.model import Identities
from support.fakes import SeededEntropy


@pytest.mark.parametrize("mode", [0o770, 0o703, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(DirectoryOpenError) as refused:
        IdentityDirectory(tmp_path).open(Identities(), SeededEntropy())
    assert f"mode {mode:04o}" in refused.value.explain_cause()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_a_directory_of_another_user_is_refused_though_it_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 1000, -1)
    with pytest.raises(DirectoryOpenError):
        IdentityDirectory(tmp_path).open(Identities(), SeededEntropy())


def test_one_s_own_is_used_again(tmp_path: Path) -> None:
    shelf = IdentityDirectory(tmp_path / "keys")
    tag = shelf.open(Identities(), SeededEntropy())
    assert shelf.open(Identities(), SeededEntropy()) == tag
