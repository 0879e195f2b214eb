"""What root writes into another user's directory is that user's; what that user put in its place is not given away."""

import os
import shutil
from pathlib import Path

import pytest

from birthmark.ownership_and_sudo_commands import transfer_ownership

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def others(tmp_path: Path) -> Path:
    place = tmp_path / "others"
    place.mkdir()
    shutil.chown(place, "nobody", "nogroup")
    return place


def test_a_file_and_a_tree_are_given(others: Path) -> None:
    (others / "file").touch()
    (others / "tree" / "below").mkdir(parents=True)
    (others / "tree" / "below" / "file").touch()
    for name in ("file", "tree", "missing"):
        transfer_ownership(others / name, others)
    assert {(one.owner(), one.group()) for one in others.rglob("*")} == {("nobody", "nogroup")}


def test_roots_files_behind_a_link_or_another_name_stay_roots(others: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    (others / "link").symlink_to(tmp_path / "secret")
    os.link(tmp_path / "secret", others / "name")
    (others / "tree").mkdir()
    (others / "tree" / "link").symlink_to(tmp_path / "secret")
    for name in ("link", "name", "tree"):
        transfer_ownership(others / name, others)
    assert (tmp_path / "secret").owner() == "root"


def test_in_roots_own_directory_nothing_changes_hands(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    transfer_ownership(tmp_path / "file", tmp_path)
    assert (tmp_path / "file").owner() == "root"
