"""`birthmark alert`: active alerts, alert rules, and silences."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

import typer

from birthmark.cli.options.duration import parse_within
from birthmark.cli.options.server import ListOptions, ServerOutputOptions, at
from birthmark.cli.output.command_output import emit, say
from birthmark.durations import FORMS

_ALERTS, _SILENCES = at("alerts"), at("alerts", "silences")
_COLUMNS = ("severity", "rule", "subject", "says", "since", "silenced", "fix")
RuleArgument = Annotated[str, typer.Argument(metavar="RULE", help="Rule, as listed by `birthmark alert rules`.")]
SubjectOption = Annotated[
    str, typer.Option("--subject", metavar="NAME", help="Subject of the alert; may be a pattern.")
]


def list_(server: ListOptions) -> None:
    """List active alerts with the next command for each.

    The exit code is 0, with or without alerts.
    """
    server.show("alerts", columns=_COLUMNS, nothing="No active alerts.")


def show(server: ServerOutputOptions, rule: RuleArgument) -> None:
    """Show an alert rule with its alerts and silences.

    Also shows its description, examples and the next command.
    """
    found = server.client.get(at("alerts", "rules", rule))
    if server.as_json:
        emit(server.as_json, found)
        return
    raised = [_told(one) for one in found["alerts"]]
    silences = [
        f"{one['subject']} until {one['until'][:16]} UTC by {one['by']}: {one['reason']}" for one in found["silences"]
    ]
    row = {
        "rule": found["rule"],
        "severity": found["severity"],
        "says": found["says"],
        "judged": "yes" if found["judged"] else "no: alerts.off names it",
        "raised": "\n".join(raised) or "nothing",
        "silences": "\n".join(silences) or None,
        "metric": found["prometheus"],
        "next": found["fix"],
    }
    emit(server.as_json, row)


def _told(alert: Mapping[str, Any]) -> str:
    examples = f" ({alert['count']}, such as {', '.join(alert['examples'])})" if alert["examples"] else ""
    silenced = ", silenced" if alert["silenced"] else ""
    return f"{alert['subject']}: {alert['says']}{examples}, since {alert['since'][:16]} UTC{silenced}"


def rules(server: ListOptions) -> None:
    """List the alert rules."""
    server.show("alerts", "rules", columns=("rule", "severity", "judged", "says", "fix"), nothing="")


def silences(server: ListOptions) -> None:
    """List alert silences with user, expiry and reason."""
    server.show("alerts", "silences", columns=("rule", "subject", "until", "by", "reason"), nothing="No silences.")


def silence(
    server: ServerOutputOptions,
    rule: RuleArgument,
    lifetime: Annotated[
        timedelta,
        typer.Option("--lifetime", parser=parse_within, metavar="DURATION", help=f"Duration of the silence: {FORMS}."),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Reason for the silence, shown in lists.")],
    subject: SubjectOption = "*",
) -> None:
    """Silence an alert rule for a limited time.

    The rule is still evaluated and listed. Notifications resume when the silence ends.
    """
    body = {"rule": rule, "subject": subject, "lifetime_s": int(lifetime.total_seconds()), "reason": reason}
    made = server.client.post(_SILENCES, body)
    say(server.as_json, made, f"Alerts of {rule} ({made['subject']}) are silenced until {made['until'][:16]} UTC.")


def unsilence(server: ServerOutputOptions, rule: RuleArgument, subject: SubjectOption = "*") -> None:
    """Remove the silence of an alert rule."""
    server.client.delete(at("alerts", "silences", rule), subject=subject)
    say(server.as_json, {"rule": rule, "subject": subject}, f"{rule} is no longer silenced.")
