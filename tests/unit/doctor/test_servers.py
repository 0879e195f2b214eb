"""Which variables are another server's, and which may well be meant."""

from pathlib import Path

import pytest

from birthmark.doctor.network import ask, places
from birthmark.doctor.servers import _foreign
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


@pytest.mark.parametrize("name", ["PROVISIONING_HOST", "AWS_ENDPOINT_URL_IOT"])
@pytest.mark.parametrize("value", ["http://[::1", "//[", "http://127.0.0.1:99999", "127.0.0.1:9\u0663", "\x1b"])
def test_what_is_no_address_is_nobody_s_and_ends_nothing(name: str, value: str) -> None:
    list(_foreign(Path("data"), {name: "127.0.0.1"}, {name: value}))
    (place,) = places({name: Setting(Kind.VARIABLE, name, value)})
    assert place.host
    assert 0 < place.port < 65536
    assert ask(place, {}).code
