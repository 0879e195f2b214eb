"""Lasting access that an audited action creates or displays: credentials, trust, data destinations.

A narrowed or short-lived token may create it for a single device only. When a user is deleted, all lasting access that
this user created or saw is listed.
"""

import shlex
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from birthmark.actor import Takes
from birthmark.audit.queries import AuditQuery, latest
from birthmark.iam.missing_right_errors import NarrowedTokenError
from birthmark.store import Database
from birthmark.store.pagination import Page

_PAGE = 250
"""Audit rows per page."""
_Row = Mapping[str, Any]


class CleanupCommand(NamedTuple):
    """The command that removes what an action left, per audit row, and whether it affects one device only."""

    command: Callable[[_Row], str]
    is_of_a_device: bool = False


def _typed(*words: str) -> Callable[[_Row], str]:
    def typed(row: _Row) -> str:
        facts = {"of": "*", "which": "primary", **row["detail"], "subject": row["subject"]}
        try:
            return shlex.join([word.format_map(facts) for word in words])
        except KeyError:  # Earlier releases have fewer fields.
            return ""

    return typed


def _left(*words: str) -> CleanupCommand:
    return CleanupCommand(_typed("birthmark", *words))


def _at_aws(*words: str) -> CleanupCommand:
    return CleanupCommand(_typed("aws", "iot", *words))


def _rotated(service: str) -> tuple[CleanupCommand, CleanupCommand]:
    """Return the commands that rotate one key of a policy, and both keys if they were displayed together."""

    def words(key: str) -> Callable[[_Row], str]:
        return _typed("birthmark", service, "policy", "rotate", "{policy}", key, f"--{service}", "{subject}")

    one, other = words("primary"), words("secondary")
    return CleanupCommand(words("{which}")), CleanupCommand(lambda row: f"{one(row)} && {other(row)}")


def _of_a_device(left: CleanupCommand) -> CleanupCommand:
    return left._replace(is_of_a_device=True)


_NO_COMMAND = CleanupCommand(lambda _row: "")
"""No cleanup command; also for a hub or provisioning service, whose removal would delete its devices."""
_ROTATE_HUB, _SHOWN_HUB = _rotated("hub")
_ROTATE_DPS, _SHOWN_DPS = _rotated("dps")
_AUTHORIZER = _at_aws("update-authorizer", "--authorizer-name", "{subject}", "--status", "INACTIVE")
_AWS_CA = _at_aws("update-ca-certificate", "--certificate-id", "{subject}", "--new-status", "INACTIVE")
_CERTIFICATE = _at_aws("update-certificate", "--certificate-id", "{subject}", "--new-status", "INACTIVE")
_EST_USER = _left("pki", "user", "rm", "{subject}")
_HUB_CA = _left("hub", "ca", "rm", "{subject}", "--hub", "{hub}")
_POLICY = _at_aws("list-targets-for-policy", "--policy-name", "{subject}")
_ROLE_ALIAS = _at_aws("delete-role-alias", "--role-alias", "{subject}")
_CONFIGURATION = _left("hub", "configuration", "rm", "{subject}", "--hub", "{hub}")
_ROUTE = _left("hub", "route", "rm", "{subject}", "--hub", "{hub}")
_RULE = _left("aws", "rule", "rm", "{subject}")
_TEMPLATE = _left("aws", "template", "rm", "{subject}")
_USER, _WEBHOOK = _left("user", "rm", "{subject}"), _left("webhook", "rm", "{subject}")
LEFT: Mapping[str, CleanupCommand] = {
    "alert.silence": _left("alert", "unsilence", "{subject}", "--subject", "{of}"),
    "awsiot.authorizer_change": _AUTHORIZER,
    "awsiot.authorizer_create": _AUTHORIZER,
    "awsiot.ca_add": _AWS_CA,
    "awsiot.ca_update": _AWS_CA,
    "awsiot.certificate_add": _of_a_device(_CERTIFICATE),
    "awsiot.certificate_claim": _CERTIFICATE,
    "awsiot.certificate_renew": _of_a_device(_CERTIFICATE),
    "awsiot.default_authorizer_set": _at_aws("clear-default-authorizer"),
    "awsiot.job_create": _left("aws", "job", "cancel", "{subject}"),
    "awsiot.job_template_create": _at_aws("delete-job-template", "--job-template-id", "{subject}"),
    "awsiot.job_targets": _left("aws", "job", "cancel", "{subject}"),
    "awsiot.job_resume": _left("aws", "job", "cancel", "{subject}"),
    "awsiot.events_configure": _NO_COMMAND,
    "awsiot.indexing_configure": _NO_COMMAND,
    "awsiot.key_add": _left("aws", "key", "rm", "{subject}"),
    "awsiot.certificate_status": _of_a_device(_CERTIFICATE),
    "awsiot.policy_attach": _of_a_device(_POLICY),
    "awsiot.policy_change": _POLICY,
    "awsiot.policy_create": _POLICY,
    "awsiot.role_alias_change": _ROLE_ALIAS,
    "awsiot.role_alias_create": _ROLE_ALIAS,
    "awsiot.rule_create": _RULE,
    "awsiot.rule_destination_create": _NO_COMMAND,
    "awsiot.rule_destination_update": _NO_COMMAND,
    "awsiot.rule_enable": _RULE,
    "awsiot.rule_replace": _RULE,
    "awsiot.stream_create": _at_aws("delete-stream", "--stream-id", "{subject}"),
    "awsiot.task_start": _at_aws("stop-thing-registration-task", "--task-id", "{subject}"),
    "awsiot.thing_attach": _of_a_device(_at_aws("list-thing-principals", "--thing-name", "{subject}")),
    "awsiot.thing_group_add": _of_a_device(_at_aws("list-things-in-thing-group", "--thing-group-name", "{subject}")),
    "awsiot.thing_group_create": _at_aws("delete-thing-group", "--thing-group-name", "{subject}"),
    "awsiot.thing_group_update": _at_aws("describe-thing-group", "--thing-group-name", "{subject}"),
    "awsiot.template_change": _TEMPLATE,
    "awsiot.template_create": _TEMPLATE,
    "certificate.comeback": _of_a_device(_NO_COMMAND),
    "certificate.issue": _of_a_device(_left("pki", "revoke", "{thumbprint}")),
    "dps.ca_add": _NO_COMMAND,
    "dps.ca_trust": _NO_COMMAND,
    "dps.ca_verify": _NO_COMMAND,
    "dps.create": _NO_COMMAND,
    "dps.enrollment_key_show": _NO_COMMAND,
    "dps.enrollment_put": _of_a_device(_NO_COMMAND),
    "dps.key_rotate": _ROTATE_DPS,
    "dps.key_show": _SHOWN_DPS,
    "dps.link": _NO_COMMAND,
    "dps.tier": _left("dps", "tier", "{subject}", "none"),
    "est.authority.add": _left("pki", "ra", "rm", "{thumbprint}"),
    "est.bootstrap.add": _left("pki", "manufacturer", "rm", "{thumbprint}"),
    "est.request.approve": _of_a_device(_NO_COMMAND),
    "est.token.add": _of_a_device(_EST_USER),
    "est.user.add": _EST_USER,
    "est.user.show": _EST_USER,
    "iothub.ca_add": _HUB_CA,
    "iothub.ca_verify": _HUB_CA,
    "iothub.configuration_create": _CONFIGURATION,
    "iothub.configuration_rollout": _CONFIGURATION,
    "iothub.configuration_update": _CONFIGURATION,
    "iothub.create": _NO_COMMAND,
    "iothub.device_key_show": _NO_COMMAND,
    "iothub.device_put": _of_a_device(_left("hub", "device", "rm", "{subject}", "--hub", "{hub}")),
    "iothub.endpoint_add": _left("hub", "endpoint", "rm", "{subject}", "--hub", "{hub}"),
    "iothub.file_sas": _left("hub", "policy", "rotate", "iothubowner", "primary", "--hub", "{subject}"),
    "iothub.job_create": _left("hub", "job", "cancel", "{subject}", "--hub", "{hub}"),
    "iothub.key_rotate": _ROTATE_HUB,
    "iothub.key_show": _SHOWN_HUB,
    "iothub.module_put": _of_a_device(_NO_COMMAND),
    "iothub.registry_export": _NO_COMMAND,
    "iothub.registry_import": _NO_COMMAND,
    "iothub.route_add": _ROUTE,
    "iothub.route_change": _ROUTE,
    "iothub.route_enable": _ROUTE,
    "iothub.route_enrich": _left("hub", "enrichment", "rm", "{subject}", "--hub", "{hub}"),
    "iothub.tier": _left("hub", "tier", "{subject}", "none"),
    "people.invite": _USER,
    "people.password_set": _USER,
    "people.role_add": _left("role", "revoke", "{subject}", "{role}", "--at", "{place}"),
    "people.token_add": _left("token", "rm", "{id}"),
    "people.user_create": _USER,
    "server.machine_invite": _NO_COMMAND,
    "webhook.create": _WEBHOOK,
    "webhook.resume": _left("webhook", "pause", "{subject}"),
    "webhook.rotate": _left("webhook", "rotate", "{subject}"),
}
"""Cleanup command by audit action; actions not listed leave no access and no data destination."""
_OFF = frozenset({"INACTIVE", "DISABLED"})
_ONLY_WHERE = ("active", "continuous", "enabled")
_WIDER = frozenset({"lasting", "thing_group", "webhook", "wide"})
"""Detail keys of actions that outlive one device's enrollment or reach further."""
_OF_OTHERS = ("people.invite", "people.password_set", "people.role_add", "people.token_add")
"""Actions whose result is deleted together with the user it concerns."""


def _find_cleanup_command(action: str, detail: Mapping[str, object]) -> CleanupCommand | None:
    """Return the cleanup command of an action, or None if it leaves nothing.

    Actions that switch something off leave nothing. An action on a group is not limited to one device.
    """
    if (left := LEFT.get(action)) is None:
        return None
    is_wider = detail.get("kind") == "group" or not _WIDER.isdisjoint(detail)
    if detail.get("status") in _OFF or (not is_wider and any(detail.get(name) is False for name in _ONLY_WHERE)):
        return None
    return left._replace(is_of_a_device=False) if is_wider else left


def restrict_to_one_device(takes: Takes | None) -> Takes:
    """Return a hook for `Actor.takes` that rejects actions with lasting access beyond one device."""

    def checked(action: str, detail: Mapping[str, object]) -> Any:
        if (left := _find_cleanup_command(action, detail)) is not None and not left.is_of_a_device:
            raise NarrowedTokenError
        return None if takes is None else takes(action, detail)

    return checked


def restrict_wide_policies(takes: Takes | None, check: Callable[[], None]) -> Takes:
    """Return a hook for `Actor.takes` that requires operator rights for wide device policies.

    `check` raises for a caller who is no operator: a device with a wide policy can do all that an operator can.
    """

    def checked(action: str, detail: Mapping[str, object]) -> Any:
        if "wide" in detail:
            check()
        return None if takes is None else takes(action, detail)

    return checked


async def list_leftovers(database: Database, user: str, *, after: str = "") -> Page[Mapping[str, Any]]:
    """Return the lasting access that a user leaves, latest first, one page of the audit trail at a time.

    Each entry has its time, action, subject, cleanup command, and whether it affects one device only. A page may be
    empty and still have successors. Raise `PageInvalidError`.
    """
    page = await latest(database, AuditQuery(actor=f"user:{user}"), before=after, limit=_PAGE)
    found: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for row in page.items:
        action, subject, detail = row["action"], row["subject"], row["detail"]
        if (left := _find_cleanup_command(action, detail)) is None or (action in _OF_OTHERS and subject == user):
            continue
        command = left.command(row)
        if target := detail.get("certificate_id") or detail.get("thing_group"):
            subject = f"{subject} at {target}"
        told = {"action": action, "subject": subject, "command": command, "is_of_a_device": left.is_of_a_device}
        found.setdefault((action, subject, command), {"at": row["at"], **told})
    return Page(list(found.values()), page.last)
