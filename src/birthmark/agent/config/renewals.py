"""`auto_renew` tables."""

import re

from birthmark.agent.config.reader import FLAG, TEXT, Table
from birthmark.agent.renewal import Renewal, Span, leaves_time, parse_span

_MINUTES = re.compile("([0-9]+)m")
_ALL_THREE = "is missing: auto_renew needs rotate_key, threshold and retry"
_GRAMMAR = 'a whole number and %, min or day without a space, like "80%", "60min", "2day"; percent from 1 to 99'


def parse_renewal(table: Table) -> Renewal:
    """Return the rules of an `auto_renew` table; all three keys are needed when the table is there."""
    rotate = table.take("rotate_key", FLAG)
    if rotate is None:
        table.wrong("rotate_key", _ALL_THREE, "`rotate_key = true`")
    renewal = Renewal(rotate is True, _span(table, "threshold", "80%"), _span(table, "retry", "4%"))
    if not leaves_time(renewal):
        table.wrong(
            "retry",
            f"is {renewal.retry}, longer than the time left after the threshold of {renewal.threshold}",
            '`threshold = "80%"` with `retry = "4%"` leaves five tries',
        )
    table.finish()
    return renewal


def _span(table: Table, name: str, example: str) -> Span:
    text, accepted = table.take(name, TEXT), f'`{name} = "{example}"`: {_GRAMMAR}'
    span = parse_span(text or "")
    if span is None and (minutes := _MINUTES.fullmatch(text or "")) is not None:
        meant = f"{minutes[1]}min"
        table.warn(name, f'"{text}" is taken for "{meant}"; aziot itself refuses it')
        span = parse_span(meant)
    if span is None:
        table.wrong(name, _ALL_THREE if text is None else "is outside the grammar", accepted)
    return span or Span(percent=1)
