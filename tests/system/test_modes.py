"""What a server makes in its data directory is its user's alone; only certificates that others trust are for all."""

import stat
from pathlib import Path

import pytest

from support.server.servers import a_server

pytestmark = pytest.mark.system


def is_of_certificates(path: Path) -> bool:
    """Say whether a file has certificates alone, which others trust or check."""
    return path.is_file() and path.read_bytes().startswith(b"-----BEGIN CERTIFICATE-----")


def test_files_of_the_data_directory_are_their_users_alone(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        made = [one for one in server.data.rglob("*") if not one.is_symlink()]
        open_ones = {one for one in made if stat.S_IMODE(one.stat().st_mode) & 0o077}
    assert {str(one.relative_to(server.data)) for one in open_ones if not is_of_certificates(one)} == set()
    assert len(made) > 10
