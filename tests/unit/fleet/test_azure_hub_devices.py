"""What a hub that cannot be asked is told as."""

from pathlib import Path

import pytest

from birthmark.clock_and_entropy import SystemClock
from birthmark.fleet.azure_hub_devices import HubDevices
from birthmark.fleet.errors import TargetUnreachableError

CONNECTION = "HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey=a2V5"


def test_a_file_of_cas_that_is_not_there_is_a_refusal(tmp_path: Path) -> None:
    hub = HubDevices(CONNECTION, tmp_path / "none.pem", SystemClock())
    with pytest.raises(TargetUnreachableError):
        hub.get("pump-1")
