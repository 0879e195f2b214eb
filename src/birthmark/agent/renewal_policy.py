"""Renewal times and retry pauses: aziot's grammar, and jitter that spreads a fleet's load. Pure.

`threshold` is a part of the lifetime or the time before expiry; `retry` is a part of the lifetime or a pause.
Percentages count from notBefore, which servers backdate slightly; that only makes the renewal earlier.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

_SPAN = re.compile(r"\+?([0-9]{1,6})(%|min|day)")
_UNITS = {"min": timedelta(minutes=1), "day": timedelta(days=1)}
_FIRST_PAUSE = timedelta(minutes=1)
_MAX_ASKED, _LONGEST_ASKED = timedelta(hours=1), timedelta(days=7)
_JITTER = 0.1
_MAX_DOUBLINGS = 20
_WHOLE = 100


@dataclass(frozen=True, slots=True)
class RenewalSpan:
    """A part of a lifetime in percent, or a duration: exactly one of the two."""

    percent: int | None = None
    duration: timedelta | None = None

    def of(self, lifetime: timedelta) -> timedelta:
        """Return the span's duration for a lifetime."""
        if self.percent is not None:
            return lifetime * self.percent / _WHOLE
        return self.duration or timedelta(0)

    def __str__(self) -> str:
        if self.percent is not None:
            return f"{self.percent}%"
        duration = self.duration or timedelta(0)
        days, rest = divmod(duration, timedelta(days=1))
        return f"{duration // timedelta(minutes=1)}min" if rest else f"{days}day"


@dataclass(frozen=True, slots=True)
class Renewal:
    """Settings of one `auto_renew` table."""

    rotate_key: bool = True
    threshold: RenewalSpan = RenewalSpan(percent=80)
    retry: RenewalSpan = RenewalSpan(percent=4)


def parse_span(text: str) -> RenewalSpan | None:
    """Return the span; None for text outside the grammar (`80%`, `30min`, `2day`; 1 to 99 percent)."""
    if (found := _SPAN.fullmatch(text)) is None:
        return None
    number = int(found[1])
    if found[2] == "%":
        return RenewalSpan(percent=number) if 0 < number < _WHOLE else None
    return RenewalSpan(duration=number * _UNITS[found[2]]) if number else None


def leaves_time(renewal: Renewal) -> bool:
    """Return whether at least one retry fits between threshold and expiry, as far as known without a lifetime.

    Before a certificate exists, a part of the lifetime and a fixed time cannot be compared.
    """
    threshold, retry = renewal.threshold, renewal.retry
    if threshold.percent is not None and retry.percent is not None:
        return retry.percent <= _WHOLE - threshold.percent
    if threshold.duration is not None and retry.duration is not None:
        return retry.duration <= threshold.duration
    return True


def renew_at(not_before: datetime, not_after: datetime, threshold: RenewalSpan) -> datetime:
    """Return the time of the first attempt: never after expiry; at once for an empty lifetime."""
    lifetime = not_after - not_before
    if lifetime <= timedelta(0):
        return not_before
    if threshold.percent is not None:
        return not_before + threshold.of(lifetime)
    return not_after - min(threshold.of(lifetime), lifetime)


def spread(timestamp: datetime, until: datetime, retry: timedelta, chance: float) -> datetime:
    """Return a time soon after `timestamp`, so that devices with certificates issued together do not renew together.

    It is in the first quarter of the time left `until` the end, because a fraction of a long lifetime may exceed that.
    """
    return timestamp + min(retry / 2, max(until - timestamp, timedelta(0)) / 4) * chance


def moment_in(window: tuple[datetime, datetime], not_before: datetime, not_after: datetime, chance: float) -> datetime:
    """Return a time in a window, within the certificate's validity; the window's end if they do not overlap."""
    start, end = max(window[0], not_before), min(window[1], not_after)
    return start + max(end - start, timedelta(0)) * chance


def overdue_pause(remaining: timedelta, retry: timedelta, chance: float) -> timedelta:
    """Return the delay of an overdue renewal after an outage, during which other devices waited too."""
    return max(timedelta(0), min(retry, remaining / 4)) * chance


def retry_pause(failures: int, retry: timedelta, chance: float) -> timedelta:
    """Return the pause after consecutive failures: 1, 2, 4 … minutes up to `retry`, plus or minus a tenth of `retry`.

    `chance` is 0 to 1. Retries never stop, even after expiry.
    """
    grown: timedelta = _FIRST_PAUSE * 2.0 ** min(max(failures, 1) - 1, _MAX_DOUBLINGS)
    pause = min(grown, retry)
    return max(timedelta(seconds=0.1), pause + retry * _JITTER * (2 * chance - 1) * (pause / retry if retry else 0))


def pause_as_asked(asked_s: float, chance: float, remaining: timedelta = timedelta(0)) -> timedelta:
    """Return the pause that a server requested, plus up to a tenth, so that clients do not return at once.

    The maximum is a week, or an hour if the device has no valid identity.
    """
    asked = timedelta(seconds=asked_s)
    return min(asked, _LONGEST_ASKED if remaining > timedelta(0) else _MAX_ASKED) * (1 + _JITTER * chance)


def pause_within(pause: timedelta, remaining: timedelta) -> timedelta:
    """Return a pause that ends well before a certificate expires, so that another attempt fits."""
    return min(pause, max(remaining / 2, _FIRST_PAUSE)) if remaining > timedelta(0) else pause


def warn_at(not_before: datetime, not_after: datetime, renewal: Renewal) -> datetime:
    """Return from when on an expiry check should warn: two retries after the renewal was due, in proportion to life."""
    due = renew_at(not_before, not_after, renewal.threshold)
    return due + min(2 * renewal.retry.of(not_after - not_before), not_after - due)


def chance_of(token: bytes) -> float:
    """Return a fraction from 0 to 1, derived from random bytes."""
    return int.from_bytes(token[:4], "big") / 0xFFFFFFFF
