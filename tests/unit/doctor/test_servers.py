"""Which variables are another server's, and which may well be meant."""

from pathlib import Path

import pytest

from birthmark.doctor.local_server_checks import _foreign, inspect_server
from birthmark.doctor.network import ask, places
from birthmark.doctor.rules.server import findings
from birthmark.doctor.setting_sources import SettingSource, SourcedSetting

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


@pytest.mark.parametrize("name", ["PROVISIONING_HOST", "AWS_ENDPOINT_URL_IOT"])
@pytest.mark.parametrize("value", ["http://[::1", "//[", "http://127.0.0.1:99999", "127.0.0.1:9\u0663", "\x1b"])
def test_what_is_no_address_is_nobody_s_and_ends_nothing(name: str, value: str) -> None:
    list(_foreign(Path("data"), {name: "127.0.0.1"}, {name: value}))
    (place,) = places({name: SourcedSetting(SettingSource.VARIABLE, name, value)})
    assert place.host
    assert 0 < place.port < 65536
    assert ask(place, {}).code


def test_a_server_that_ran_and_stopped_is_started_and_another_is_not_taken_for_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "server.lock").touch()
    setting = SourcedSetting(SettingSource.VARIABLE, "BIRTHMARK_DATA", str(data))
    seen = inspect_server(setting, {"PROVISIONING_HOST": "localhost"})
    assert seen is not None
    assert (seen.has_run, seen.others) == (True, ())
    (found,) = findings(seen)
    assert found.command == f"birthmark serve --data {data} &"
    assert "no server runs on it" in found.seen
