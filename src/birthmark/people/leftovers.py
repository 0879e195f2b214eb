"""What a user made and was shown, and what stays when the user is removed: by the audit trail, the latest first."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from birthmark.audit.latest import Wanted, latest
from birthmark.store import Database

MAX_LEFT = 250
_MAX_PAGES, _PAGE = 40, 250
"""So much of what a user did is looked through."""
_Row = Mapping[str, Any]


def _command(*words: str) -> Callable[[_Row], str]:
    def typed(row: _Row) -> str:
        facts = {**row["detail"], "subject": row["subject"]}
        return shlex.join(["birthmark", *(word.format_map(facts) for word in words)])

    return typed


_ROTATE_HUB = _command("hub", "policy", "rotate", "{policy}", "primary", "--hub", "{subject}")
_ROTATE_DPS = _command("dps", "policy", "rotate", "{policy}", "primary", "--dps", "{subject}")
_USER, _WEBHOOK = _command("user", "rm", "{subject}"), _command("webhook", "rm", "{subject}")
_LEFT: Mapping[str, Callable[[_Row], str]] = {
    "awsiot.key_add": _command("aws", "key", "rm", "{subject}"),
    "dps.enrollment_key_show": lambda _: "",
    "dps.key_rotate": _ROTATE_DPS,
    "dps.key_show": _ROTATE_DPS,
    "est.bootstrap.add": _command("pki", "bootstrap", "rm", "{subject}"),
    "est.user.add": _command("pki", "user", "rm", "{subject}"),
    "est.user.show": _command("pki", "user", "rm", "{subject}"),
    "iothub.device_key_show": lambda _: "",
    "iothub.key_rotate": _ROTATE_HUB,
    "iothub.key_show": _ROTATE_HUB,
    "people.invite": _USER,
    "people.password_set": _USER,
    "people.role_add": _command("role", "revoke", "{subject}", "{role}", "--at", "{place}"),
    "people.token_add": _command("token", "rm", "{id}"),
    "people.user_create": _USER,
    "server.machine_invite": lambda _: "",
    "webhook.create": _WEBHOOK,
    "webhook.rotate": _command("webhook", "rotate", "{subject}"),
}
"""Actions that leave something to whoever did them, and what to type about it."""
_OF_OTHERS = ("people.invite", "people.password_set", "people.role_add", "people.token_add")
"""What is the user's own goes with the user."""


async def left_by(database: Database, user: str) -> Sequence[Mapping[str, Any]]:
    """Return what stays of a user, each thing once: when, which action, of what, and what to type."""
    found: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    before = ""
    for _ in range(_MAX_PAGES):
        page = await latest(database, Wanted(actor=f"user:{user}"), before=before, limit=_PAGE)
        for row in page.items:
            action, subject = row["action"], row["subject"]
            if action not in _LEFT or (action in _OF_OTHERS and subject == user):
                continue
            command = _LEFT[action](row)
            found.setdefault(
                (action, subject, command),
                {"at": row["at"], "action": action, "subject": subject} | {"command": command},
            )
        if page.last is None or len(found) >= MAX_LEFT:
            break
        before = page.last
    return list(found.values())[:MAX_LEFT]
