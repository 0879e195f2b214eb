"""When to renew, and when to try again: aziot's grammar, and pauses that spread a fleet's load. Pure.

`threshold` is the part of the lifetime that has passed, or the time before expiry; `retry` a part of the lifetime, or a
pause. Percentages count from notBefore, which servers backdate a little: that only makes the renewal earlier.
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
    """A part of a lifetime in percent, or a duration: exactly one of them."""

    percent: int | None = None
    duration: timedelta | None = None

    def of(self, lifetime: timedelta) -> timedelta:
        """Return how long that is."""
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
    """One `auto_renew` table."""

    rotate_key: bool = True
    threshold: RenewalSpan = RenewalSpan(percent=80)
    retry: RenewalSpan = RenewalSpan(percent=4)


def parse_span(text: str) -> RenewalSpan | None:
    """Return the span; None for anything outside the grammar (`80%`, `30min`, `2day`; 1 to 99 percent)."""
    if (found := _SPAN.fullmatch(text)) is None:
        return None
    number = int(found[1])
    if found[2] == "%":
        return RenewalSpan(percent=number) if 0 < number < _WHOLE else None
    return RenewalSpan(duration=number * _UNITS[found[2]]) if number else None


def leaves_time(renewal: Renewal) -> bool:
    """Say whether at least one retry fits between threshold and expiry, as far as that can be told without a lifetime.

    A part of the lifetime and a fixed time cannot be compared before there is a certificate.
    """
    threshold, retry = renewal.threshold, renewal.retry
    if threshold.percent is not None and retry.percent is not None:
        return retry.percent <= _WHOLE - threshold.percent
    if threshold.duration is not None and retry.duration is not None:
        return retry.duration <= threshold.duration
    return True


def renew_at(not_before: datetime, not_after: datetime, threshold: RenewalSpan) -> datetime:
    """Return the moment of the first attempt: never after expiry, at once for a lifetime that is none."""
    lifetime = not_after - not_before
    if lifetime <= timedelta(0):
        return not_before
    if threshold.percent is not None:
        return not_before + threshold.of(lifetime)
    return not_after - min(threshold.of(lifetime), lifetime)


def spread(at: datetime, until: datetime, retry: timedelta, chance: float) -> datetime:
    """Return a moment soon after `at`: what was issued to a fleet at once is not renewed at once.

    It is in the first quarter of what is left `until` the end: a part of a long life may be longer than that.
    """
    return at + min(retry / 2, max(until - at, timedelta(0)) / 4) * chance


def moment_in(window: tuple[datetime, datetime], not_before: datetime, not_after: datetime, chance: float) -> datetime:
    """Return a moment of a window, as far as the certificate is alive in it; its end where it never is."""
    start, end = max(window[0], not_before), min(window[1], not_after)
    return start + max(end - start, timedelta(0)) * chance


def overdue_pause(left: timedelta, retry: timedelta, chance: float) -> timedelta:
    """Return how long to wait with a renewal that was due while nobody could be asked: others waited too."""
    return max(timedelta(0), min(retry, left / 4)) * chance


def retry_pause(failures: int, retry: timedelta, chance: float) -> timedelta:
    """Return the pause after so many failures: 1, 2, 4 … minutes up to `retry`, give or take a tenth of `retry`.

    `chance` is 0 to 1. There is no end to trying, also after expiry.
    """
    grown: timedelta = _FIRST_PAUSE * 2.0 ** min(max(failures, 1) - 1, _MAX_DOUBLINGS)
    pause = min(grown, retry)
    return max(timedelta(seconds=0.1), pause + retry * _JITTER * (2 * chance - 1) * (pause / retry if retry else 0))


def pause_as_asked(asked_s: float, chance: float, left: timedelta = timedelta(0)) -> timedelta:
    """Return the pause that a server asked for, and up to a tenth more, so that not all whom it told come at once.

    One answer does not put a device to sleep for more than a week, or an hour where it has nothing to live on.
    """
    asked = timedelta(seconds=asked_s)
    return min(asked, _LONGEST_ASKED if left > timedelta(0) else _MAX_ASKED) * (1 + _JITTER * chance)


def pause_within(pause: timedelta, left: timedelta) -> timedelta:
    """Return a pause that ends well before a certificate does, so that there is another try while it lives."""
    return min(pause, max(left / 2, _FIRST_PAUSE)) if left > timedelta(0) else pause


def warn_at(not_before: datetime, not_after: datetime, renewal: Renewal) -> datetime:
    """Return from when on an expiry check should warn: two retries after the renewal was due, in proportion to life."""
    due = renew_at(not_before, not_after, renewal.threshold)
    return due + min(2 * renewal.retry.of(not_after - not_before), not_after - due)


def chance_of(token: bytes) -> float:
    """Return 0 to 1 from entropy."""
    return int.from_bytes(token[:4], "big") / 0xFFFFFFFF
