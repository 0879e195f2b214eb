"""The operator interface of alerts: what is raised, the rules, and what somebody wants to hear nothing of."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

import msgspec

from birthmark.alerts.model import Alert, AlertRule, Silence
from birthmark.alerts.rules import RULES, code_of, fix_of, is_silenced
from birthmark.alerts.service import Alerts
from birthmark.auth.permissions import Right
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows


class NewSilence(msgspec.Struct):
    """Of which rule nothing is said, of which subjects, for how long, and why."""

    rule: str
    lifetime_s: Annotated[int, msgspec.Meta(ge=60, le=10**9)]
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] = "*"


class SilenceQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The subjects that were silenced, as they were named."""

    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] = "*"


def alert_endpoints(alerts: Alerts, off: Sequence[str] = ()) -> Sequence[Endpoint]:
    """Return the routes of `birthmark alert`; the rules that are `off` are not judged."""

    async def listing(_asked: ApiRequest) -> Rows:
        silences, now = await alerts.silences(), alerts.clock.now()
        return Rows([_view(one, is_silent=is_silenced(one, silences, now)) for one in await alerts.all()])

    async def rules(_asked: ApiRequest) -> Rows:
        return Rows([_rule_view(one, off) for one in RULES.values()])

    async def rule(asked: ApiRequest) -> Any:
        found, raised, quiet = await alerts.one(asked["rule"])
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

    async def silence(asked: ApiRequest) -> Any:
        body: NewSilence = asked.body
        lifetime, by = timedelta(seconds=body.lifetime_s), asked.caller.user or "operator"
        made = await alerts.silence(body.rule, body.subject, lifetime, body.reason, by=by, actor=asked.actor)
        return _silence_view(made)

    async def unsilence(asked: ApiRequest) -> None:
        await alerts.unsilence(asked["rule"], asked.query.subject, actor=asked.actor)

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


def _rule_view(one: AlertRule, off: Sequence[str]) -> dict[str, Any]:
    view = {"rule": one.name, "severity": one.severity.value, "says": one.says, "fix": one.fix}
    return view | {"judged": one.name not in off}


def _view(one: Alert, *, is_silent: bool) -> dict[str, Any]:
    return {
        "rule": one.rule,
        "subject": one.subject,
        "severity": one.severity.value,
        "says": one.detail,
        "count": one.count,
        "examples": list(one.examples),
        "since": one.seen_at.isoformat(),
        "silenced": is_silent,
        "fix": fix_of(one),
        "code": code_of(one),
    }


def _silence_view(one: Silence) -> dict[str, Any]:
    return {
        "rule": one.rule,
        "subject": one.subject,
        "until": one.until.isoformat(),
        "by": one.by,
        "reason": one.reason,
    }
