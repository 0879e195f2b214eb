"""What a mail says of events: in the subject what is worst, in the text one after the other. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from birthmark.text import printable

_RAISED, _OVER = "birthmark.alert.raised", "birthmark.alert.over"
_MAX_SUBJECT = 120


def letter(events: Sequence[Mapping[str, Any]], source: str) -> tuple[str, str]:
    """Return subject and text."""
    parts = [_part(one) for one in events]
    more = f" (and {len(events) - 1} more)" if len(events) > 1 else ""
    subject = printable(f"{_heading(_first(events))}{more} - {source}")
    return subject[:_MAX_SUBJECT], "\n\n".join(parts) + f"\n\n-- \n{printable(source)}\n"


def _first(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the one that somebody has to see first."""
    critical = [one for one in events if one["type"] == _RAISED and one["data"].get("severity") == "critical"]
    raised = [one for one in events if one["type"] == _RAISED]
    return (critical or raised or events)[0]


def _heading(event: Mapping[str, Any]) -> str:
    data = event["data"]
    if event["type"] == _RAISED:
        return f"{str(data.get('severity', '')).upper()}: {data.get('says', event['subject'])}"
    if event["type"] == _OVER:
        return f"Over: {data.get('says', event['subject'])}"
    return f"{event['type']} {event['subject']}"


def _part(event: Mapping[str, Any]) -> str:
    data = event["data"]
    lines = [_heading(event), f"  at     {event['time'][:19]} UTC"]
    if event["type"] in {_RAISED, _OVER}:
        lines.append(f"  since  {str(data.get('since', ''))[:19]} UTC")
        lines.append(f"  rule   {data.get('rule', '')}, {event['subject']}")
        if data.get("examples"):
            lines.append(f"  such as {', '.join(map(str, data['examples']))}")
        if data.get("fix") and event["type"] == _RAISED:
            lines.append(f"  next   {data['fix']}")
    else:
        lines.append(f"  by     {data.get('actor', '')}")
    return "\n".join(printable(line) for line in lines)
