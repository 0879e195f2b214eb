"""What a lost device's places are told to do."""

from pathlib import Path
from typing import Any

import pytest

from birthmark.cli import app
from birthmark.devices.model import DeviceNotOnRecordError, RevocationOutcome, RevokedPart
from birthmark.fleet.azure_target import AzureTarget


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--to azure", {"dry_run": False, "block": False, "scope": "azure"}),
        ("--to azure --block", {"dry_run": False, "block": True, "scope": "azure"}),
        ("--to azure:cloud --block --dry-run", {"dry_run": True, "block": True, "scope": "azure:cloud"}),
    ],
)
def test_azure_is_told_whether_to_shut_a_name_out_that_nobody_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: str, told: dict[str, Any]
) -> None:
    asked: list[Any] = []

    def lose(_: AzureTarget, name: str, reason: str, **how: Any) -> list[RevokedPart]:
        asked.append((name, reason, how))
        return [RevokedPart("DPS dps.test", "enrollment", name, RevocationOutcome.REVOKED)]

    monkeypatch.setattr(AzureTarget, "revoke_device", lose)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(
        "PROVISIONING_CONNECTION_STRING", "HostName=dps.test;SharedAccessKeyName=owner;SharedAccessKey=a2V5"
    )
    monkeypatch.setattr("sys.argv", ["birthmark", "device", "revoke", "pump-1", "--yes", *options.split()])
    with pytest.raises(SystemExit) as left:
        app.main()
    assert not left.value.code
    assert asked == [("pump-1", "keyCompromise", told)]


def test_a_device_that_is_not_there_is_told_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[bool] = []

    def lose(_: AzureTarget, name: str, reason: str, *, dry_run: bool, **how: Any) -> list[RevokedPart]:
        asked.append(dry_run)
        raise DeviceNotOnRecordError(name=name)

    monkeypatch.setattr(AzureTarget, "revoke_device", lose)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(
        "PROVISIONING_CONNECTION_STRING", "HostName=dps.test;SharedAccessKeyName=owner;SharedAccessKey=a2V5"
    )
    monkeypatch.setattr("sys.argv", ["birthmark", "device", "revoke", "pump-9", "--to", "azure"])
    with pytest.raises(SystemExit) as left:
        app.main()
    assert (left.value.code, asked) == (3, [True])
    assert "device.not_on_record" in capsys.readouterr().err
