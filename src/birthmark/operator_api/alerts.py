"""Operator API of alerts: active alerts, rules, and silences."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import msgspec

from birthmark.alerts.model import Alert, AlertRule, Silence
from birthmark.alerts.rules import RULES, code_of, fix_of, is_silenced
from birthmark.alerts.service import Alerts
from birthmark.auth.permission_statements import Right
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows


class NewSilence(msgspec.Struct):
    """A silence: rule, subjects, duration and reason."""

    rule: str
    lifetime_s: Annotated[int, msgspec.Meta(ge=60, le=10**9)]
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] = "*"


class SilenceQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Subject of a silence, as specified at its creation."""

    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] = "*"


def alert_endpoints(alerts: Alerts, off: Sequence[str] = ()) -> Sequence[Endpoint]:
    """Return the routes of `birthmark alert`; the rules in `off` are not evaluated."""

    async def listing(_asked: ApiRequest) -> Rows:
        silences, now = await alerts.silences(), alerts.clock.now()
        return Rows([_view(one, is_silent=is_silenced(one, silences, now)) for one in await alerts.all()])

    async def rules(_asked: ApiRequest) -> Rows:
        return Rows([_rule_view(one, off) for one in RULES.values()])

    async def rule(request: ApiRequest) -> Any:
        found, raised, quiet = await alerts.get_rule(request["rule"])
        now = alerts.clock.now()
        return {
            **_rule_view(found, off),
            "holds_s": int(found.holds.total_seconds()),
            "prometheus": found.metric,
            "alerts": [_view(one, is_silent=is_silenced(one, quiet, now)) for one in raised],
            "silences": [_silence_view(one) for one in quiet],
        }

    async def silences(_asked: ApiRequest) -> Rows:
        return Rows([_silence_view(one) for one in await alerts.silences()])

    async def silence(request: ApiRequest) -> Any:
        body: NewSilence = request.body
        lifetime, by = timedelta(seconds=body.lifetime_s), request.caller.user or "operator"
        made = await alerts.silence(body.rule, body.subject, lifetime, body.reason, by=by, actor=request.actor)
        return _silence_view(made)

    async def unsilence(request: ApiRequest) -> None:
        await alerts.unsilence(request["rule"], request.query.subject, actor=request.actor)

    look, operate = Right.READ, Right.OPERATE
    one = "/alerts/silences/{rule}"
    return [
        Endpoint("GET", "/alerts", look, "List active alerts.", listing),
        Endpoint("GET", "/alerts/rules", look, "List alert rules.", rules),
        Endpoint("GET", "/alerts/rules/{rule}", look, "Return an alert rule, its alerts and its silences.", rule),
        Endpoint("GET", "/alerts/silences", look, "List silences.", silences),
        Endpoint("POST", "/alerts/silences", operate, "Silence an alert rule.", silence, NewSilence, status=201),
        Endpoint("DELETE", one, operate, "Delete a silence.", unsilence, status=204, query=SilenceQuery),
    ]


def _rule_view(rule: AlertRule, off: Sequence[str]) -> dict[str, Any]:
    view = {"rule": rule.name, "severity": rule.severity.value, "says": rule.says, "fix": rule.fix}
    return view | {"judged": rule.name not in off}


def _view(alert: Alert, *, is_silent: bool) -> dict[str, Any]:
    return {
        "rule": alert.rule,
        "subject": alert.subject,
        "severity": alert.severity.value,
        "says": alert.detail,
        "count": alert.count,
        "examples": list(alert.examples),
        "since": alert.seen_at.isoformat(),
        "silenced": is_silent,
        "fix": fix_of(alert),
        "code": code_of(alert),
    }


def _silence_view(silence: Silence) -> dict[str, Any]:
    return {
        "rule": silence.rule,
        "subject": silence.subject,
        "until": silence.until.isoformat(),
        "by": silence.by,
        "reason": silence.reason,
    }
