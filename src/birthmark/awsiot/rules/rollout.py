"""How fast a job goes out: how many executions are due by now (developer guide, "Job rollout configurations").

A rate is spread over its minute. What was not used counts for a minute at most, so that neither a pause nor a clock
that jumps lets everything out at once; a clock that was put back begins anew.
"""

from datetime import datetime, timedelta

from birthmark.awsiot.wire.jobs import ExponentialRate, RolloutConfig

MINUTE = timedelta(minutes=1)
MAX_PER_MINUTE = 1000


def rate_of(config: RolloutConfig | None, rolled: int, succeeded: int) -> int | None:
    """Return how many a minute go out now; None without a limit."""
    if config is None:
        return None
    most = config.maximum_per_minute
    if (exponential := config.exponential_rate) is None:
        return most
    return min(_grown(exponential, rolled, succeeded), most or MAX_PER_MINUTE)


def _grown(rate: ExponentialRate, rolled: int, succeeded: int) -> int:
    by = rate.rate_increase_criteria
    steps = rolled // by.number_of_notified_things if by.number_of_notified_things else 0
    if by.number_of_succeeded_things:
        steps = succeeded // by.number_of_succeeded_things
    grown = float(rate.base_rate_per_minute)
    for _ in range(min(steps, 100)):  # by then the smallest factor is far beyond the most that there may be
        grown = min(grown * rate.increment_factor, float(MAX_PER_MINUTE))
    return int(grown)


def due(rate: int | None, since: datetime, now: datetime, most: int) -> tuple[int, datetime]:
    """Return how many are due, at most `most`, and from when the next ones count."""
    if rate is None:
        return most, now
    if since > now:
        return 0, now
    since = max(since, now - MINUTE)
    number = min(int((now - since) * rate / MINUTE), most)
    return number, since + MINUTE * number / rate
