"""`[alerts]` section of the server configuration: thresholds and disabled rules."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

import msgspec

from birthmark.alerts.model import Thresholds
from birthmark.alerts.rules import RULES
from birthmark.durations import lifetime_of

_SELDOM = timedelta(minutes=10)


class AlertSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Alert thresholds and disabled rules."""

    off: tuple[str, ...] = ()
    every: str = "10s"
    """Evaluation interval."""
    disk_free: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    clock_off: str = "5s"
    unrenewed: str = "7d"
    ca_ends: str = "30d"
    crl_ends: str = "1d"
    server_ends: str = "7d"
    refusals: Annotated[int, msgspec.Meta(ge=1)] = 100
    spike: Annotated[float, msgspec.Meta(ge=1)] = 5.0
    renewals: Annotated[int, msgspec.Meta(ge=1)] = 3
    enrollments: Annotated[int, msgspec.Meta(ge=1)] = 3
    behind: str = "15m"

    @property
    def interval(self) -> timedelta:
        """Evaluation interval. Raise `ValueError` if it is not a duration."""
        return lifetime_of(self.every)

    @property
    def thresholds(self) -> Thresholds:
        """Rule thresholds. Raise `ValueError` if a duration is invalid."""
        return Thresholds(
            disk_free=self.disk_free,
            clock_off=lifetime_of(self.clock_off),
            unrenewed=lifetime_of(self.unrenewed),
            ca_ends=lifetime_of(self.ca_ends),
            crl_ends=lifetime_of(self.crl_ends),
            server_ends=lifetime_of(self.server_ends),
            refusals=self.refusals,
            spike=self.spike,
            renewals=self.renewals,
            enrollments=self.enrollments,
            behind=lifetime_of(self.behind),
        )


def mistakes_of_alerts(alerts: AlertSettings) -> Iterator[str]:
    """Yield errors in the combination of individually valid values."""
    for name in ("every", "unrenewed", "ca_ends", "crl_ends", "server_ends", "behind", "clock_off"):
        try:
            lasts = lifetime_of(getattr(alerts, name))
        except ValueError as error:
            yield f"alerts.{name} is not a duration: {error}"
            continue
        if name == "every" and lasts > _SELDOM:
            yield f"alerts.every must be at most {_SELDOM.total_seconds() / 60:.0f}min, so that alerts are sent in time"
    if unknown := sorted(set(alerts.off) - set(RULES)):
        yield f"alerts.off contains unknown rules: {', '.join(unknown)}; valid rules: {', '.join(sorted(RULES))}"
