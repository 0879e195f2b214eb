"""Which variables are another server's, and which may well be meant."""

from pathlib import Path

import pytest

from birthmark.doctor.servers import _foreign

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
