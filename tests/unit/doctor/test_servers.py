"""Which variables are another server's, and which may well be meant."""

from pathlib import Path

import pytest

from birthmark.doctor.rules.server import findings
from birthmark.doctor.servers import _foreign, look
from birthmark.doctor.settings import Kind, Setting

NAME = "IOTHUB_CONNECTION_STRING"
OWN = "HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey=b3du"


@pytest.mark.parametrize(
    ("value", "is_foreign"),
    [
        (OWN, False),
        ("HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey=AAAA", True),
        ("HostName=localhost;SharedAccessKeyName=registryRead;SharedAccessKey=AAAA", False),
        ("HostName=mine.azure-devices.net;SharedAccessKeyName=iothubowner;SharedAccessKey=AAAA", False),
    ],
    ids=["own", "an earlier key", "another policy", "a real hub"],
)
def test_the_hubs_key_is_compared_where_the_policy_is_the_same(value: str, is_foreign: bool) -> None:
    found = list(_foreign(Path("data"), {NAME: OWN}, {NAME: value}))
    assert [(one.name, one.value) for one in found] == ([(NAME, "")] if is_foreign else [])


def test_a_server_that_ran_and_stopped_is_started_and_another_is_not_taken_for_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "server.lock").touch()
    setting = Setting(Kind.VARIABLE, "BIRTHMARK_DATA", str(data))
    seen = look(setting, {"PROVISIONING_HOST": "localhost"})
    assert seen is not None
    assert (seen.has_run, seen.others) == (True, ())
    (found,) = findings(seen)
    assert found.command == f"birthmark serve --data {data} &"
    assert "no server runs on it" in found.seen
