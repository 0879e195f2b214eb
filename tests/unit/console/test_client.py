"""What the command line finds in a data directory before it asks the server."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.console.client import DataDirectoryClosedError, ServerNotRunningError, read_endpoints

WHOLE: dict[str, dict[str, str]] = {name: {} for name in ("trust_bundle", "est", "dps", "iothub", "aws", "health_url")}


def test_endpoints_are_read(tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text(json.dumps(WHOLE))
    assert read_endpoints(tmp_path) == WHOLE


def test_no_file_means_no_server(tmp_path: Path) -> None:
    with pytest.raises(ServerNotRunningError) as refused:
        read_endpoints(tmp_path)
    assert f"birthmark serve --data {tmp_path}" in refused.value.explain_fix()


@given(content=st.binary(max_size=200) | st.sampled_from([b"{", b"[]", b"null", b'{"dps": {}}', b"\xff"]))
def test_a_damaged_file_is_said_to_be_damaged(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    data = tmp_path_factory.getbasetemp() / "damaged"
    data.mkdir(exist_ok=True)
    (data / "endpoints.json").write_bytes(content)
    with pytest.raises(ServerNotRunningError) as refused:
        read_endpoints(data)
    assert "damaged" in refused.value.explain_cause()


def test_a_directory_of_another_user_gives_no_rights(tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text(json.dumps(WHOLE))
    tmp_path.chmod(0)
    was, owner = os.geteuid(), tmp_path.owner()
    try:
        if was == 0:
            os.seteuid(65534)
        with pytest.raises(DataDirectoryClosedError) as refusal:
            read_endpoints(tmp_path)
        assert refusal.value.facts["owner"] in {owner, "OWNER"}
    finally:
        os.seteuid(was)
        tmp_path.chmod(0o700)
