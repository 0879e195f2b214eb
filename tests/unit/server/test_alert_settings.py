"""`[alerts]`: each limit reaches the rules, and what is no limit is said with its name."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from birthmark.alerts.model import Thresholds
from birthmark.server.alert_settings import AlertSettings, mistakes_of_alerts

CONFIGURATION = Path(__file__).parents[3] / "docs" / "reference" / "server-config.md"
OTHER = AlertSettings(
    disk_free=0.2,
    clock_off="1s",
    unrenewed="2d",
    ca_ends="3d",
    crl_ends="4d",
    server_ends="5d",
    refusals=6,
    spike=7,
    renewals=8,
    enrollments=9,
    behind="10min",
)


def test_without_a_word_the_limits_are_those_that_prometheus_has() -> None:
    assert AlertSettings().thresholds == Thresholds()
    assert [*mistakes_of_alerts(AlertSettings())] == []


def test_each_limit_can_be_another() -> None:
    plain, other = msgspec.structs.asdict(AlertSettings()), OTHER.thresholds
    for name in plain.keys() - {"off", "every"}:
        assert getattr(other, name) != getattr(Thresholds(), name), name
    assert other.crl_ends == timedelta(days=4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (AlertSettings(every="soon"), "alerts.every is not a duration"),
        (AlertSettings(every="11min"), "alerts.every must be at most 10min"),
        (AlertSettings(clock_off="5"), "alerts.clock_off is not a duration"),
        (AlertSettings(unrenewed="0s"), "alerts.unrenewed is not a duration"),
        (AlertSettings(off=("disk-ful",)), "alerts.off contains unknown rules: disk-ful"),
    ],
)
def test_what_is_no_limit_is_said_with_its_name(settings: AlertSettings, said: str) -> None:
    (mistake,) = mistakes_of_alerts(settings)
    assert said in mistake


def test_each_is_in_the_reference() -> None:
    page = CONFIGURATION.read_text()
    assert [name for name in msgspec.structs.asdict(AlertSettings()) if f"`alerts.{name}`" not in page] == []
