"""Replay of removals since the backup from exported audit rows.

A removal is final, whatever happened afterwards. For enable and disable operations the last one counts. A name that was
released again is not lost. Nothing is granted: an item enabled since the backup stays as in the backup. A row records
the removed value, and seldom its replacement: `came_back` lists items that are as in the backup although they changed.

A revocation row contains the key's digest (`key`) and, for a CA, the certificate. Older rows name a certificate only by
its thumbprint. The inventory has its key, unless it was issued after the backup; then only the thumbprint is known.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Table, bindparam, select

from birthmark.awsiot.model import CertificateStatus, JobStatus, target_of_group
from birthmark.awsiot.store import authorizers_and_role_aliases as credential_store
from birthmark.awsiot.store import certificates_and_access_keys as aws_store
from birthmark.awsiot.store import jobs as job_store
from birthmark.awsiot.store import policies as policy_store
from birthmark.awsiot.store import provisioning as provisioning_store
from birthmark.awsiot.store import registry as thing_store
from birthmark.awsiot.store import topic_rules_and_streams as rule_store
from birthmark.broker.store import drop_client
from birthmark.ca import store
from birthmark.ca.revocation import digest_of
from birthmark.dps import store as dps_store
from birthmark.est import store as est_store
from birthmark.events import store as feed_store
from birthmark.iam import sign_in_model
from birthmark.iam import store as people_store
from birthmark.iothub import configuration_store as hub_configuration_store
from birthmark.iothub import job_store as hub_job_store
from birthmark.iothub import store as hub_store
from birthmark.iothub import twin_index_store as hub_searching
from birthmark.iothub.model import HubJobStatus, space_of
from birthmark.pki.certificates import parse_der
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.pki.names_and_registration_ids import fold
from birthmark.server.backup.audit_export_verification import ExportedRow
from birthmark.store import Changes, Database, device_name_prefix_index, statement
from birthmark.store.compiled_statements import Statement
from birthmark.store.table_statements import change, remove

_SET_STATUS = change(aws_store.certificates, ("status",), "id")
_STOP_CA = change(aws_store.cas, ("active",), "id")
_STOP_REGISTERING = change(aws_store.cas, ("auto_registration",), "id")
_STOP_TEMPLATE = change(provisioning_store.templates, ("enabled",), "name")
_DROP_ENROLLMENT = remove(dps_store.enrollments)
_DROP_DEVICE = remove(hub_store.devices)
_DROP_MODULE = remove(hub_store.modules)
_SWITCH_OFF = change(hub_store.devices, ("enabled", "status_reason"), "hub", "device_id")

_GIVEN = frozenset(
    {
        *("awsiot.job_resume", "awsiot.policy_attach", "awsiot.thing_attach", "awsiot.thing_group_add"),
        *("est.request.approve", "dps.link"),
    }
)
Key = tuple[str, ...]


@dataclass(slots=True)
class ReplayedRevocation:
    """Result of a replay."""

    count: int = 0
    devices: dict[str, str] = field(default_factory=dict)
    """Completely revoked devices, each with the reason; the first start revokes them."""
    came_back: list[tuple[str, str]] = field(default_factory=list)
    """Kind and name of items that changed since and are as in the backup."""


async def replay_rows(
    database: Database, changes: Changes, rows: Sequence[ExportedRow], now: int
) -> ReplayedRevocation:
    """Add the removals in these rows to `changes`; items already removed stay so."""
    replay = _Replay(database, changes, now)
    for row in rows:
        await replay.follow(row)
    return await replay.ended()


class _Replay:
    """Sequential replay of rows; reversible operations are decided at the end."""

    def __init__(self, database: Database, changes: Changes, now: int) -> None:
        self._database, self._changes, self._now = database, changes, now
        self._done = ReplayedRevocation()
        self._last: dict[Key, ExportedRow] = {}
        self._gone: set[Key] = set()
        self._made: set[Key] = set()
        self._lost: set[str] = set()

    async def follow(self, row: ExportedRow) -> None:
        """Apply a removal, and record enable and disable operations."""
        if row.action in _REVOKING:
            self._done.count += 1
            await self._revoke(row)
        elif row.action == _LOSE:
            self._lost.add(fold(row.subject))
        elif row.action == _RELEASE:
            self._lost.discard(fold(row.subject))
            devices = self._done.devices.items()
            self._done.devices = {name: why for name, why in devices if fold(name) != fold(row.subject)}
        elif row.action == _DEVICE:
            reason = str(row.detail.get("reason", ""))
            known = reason in {one.value for one in RevocationReason}
            self._done.devices[row.subject] = reason if known else RevocationReason.UNSPECIFIED.value
        elif row.action in _REMOVALS:
            self._done.count += 1
            self._gone.add(_about(row))
            self._changes.merge(_REMOVALS[row.action](row.subject, row.detail))
        elif row.action in _MADE and await self._database.one(_MADE[row.action], name=row.subject) is None:
            self._made.add(_place(row))
        else:
            self._last.pop(_about(row), None)  # in order of the last rows
            self._last[_about(row)] = row

    async def ended(self) -> ReplayedRevocation:
        """Disable the items whose last state was disabled, and list those that return as in the backup."""
        for name in sorted(self._lost):
            self._done.count += 1
            self._changes.run(store.ADD_NAME, name=name, version=0, lost_at=None)
            self._changes.run(store.LOSE_NAME, key_name=name, lost_at=self._now)
        for key, row in self._last.items():
            switched = await self._off(row)
            self._done.count += switched is True
            if switched is False:
                self._done.came_back.append((key[0], " ".join(key[1:])))
        return self._done

    async def _off(self, row: ExportedRow) -> bool | None:
        """Disable the item of a row.

        Return True if disabled, False if it returns as in the backup, None if it was a grant.
        """
        subject, detail, changes = row.subject, row.detail, self._changes
        if (by_what_is_there := _BY_WHAT_IS_THERE.get(row.action)) is not None:
            return await by_what_is_there(self, row)
        match row.action:
            case "awsiot.certificate_status":
                if (status := str(detail.get("status"))) == CertificateStatus.ACTIVE:
                    return None
                changes.run(_SET_STATUS, key_id=subject, status=status)
            case "awsiot.ca_update" if (closed := _closed_ca(subject, detail)).writes:
                changes.merge(closed)
            case "awsiot.policy_detach":
                changes.run(policy_store.DETACH, policy=subject, target=_target(detail))
            case "awsiot.thing_group_remove":
                changes.run(thing_store.REMOVE_MEMBER, thing_group=subject, thing=detail["thing"])
            case "awsiot.thing_detach":
                changes.run(thing_store.DETACH, thing=subject, certificate_id=detail["certificate_id"])
            case _ if row.action in _GIVEN:
                return None
            case "est.request.reject":
                changes.run(est_store.DECIDE, key_id=detail["id"], decided_at=self._now, is_approved=0)
            case _:
                return None if _place(row) in self._made else False
        return True

    async def _listed(self, row: ExportedRow) -> bool | None:
        """Return False if an entry returns with the backup's pattern, otherwise None.

        None means that the entry is removed or unchanged.
        """
        (one, column), thumbprint = _LISTED[row.action], str(row.detail["thumbprint"])
        if (f"{row.action.removesuffix('.add')}.remove", thumbprint) in self._gone:
            return None
        found = await self._database.one(one, thumbprint=bytes.fromhex(thumbprint))
        return None if found is None or found[column] == row.detail.get(column) else False

    async def _pause(self, row: ExportedRow) -> bool | None:
        self._changes.run(job_store.PAUSE_JOB, key_job_id=row.subject, paused_at=self._now)
        return True

    async def _device_off(self, row: ExportedRow) -> bool | None:
        hub, name = str(row.detail["hub"]), row.subject
        found = await self._database.one(hub_store.GET_DEVICE, hub=hub, device_id=name)
        if found is None or _about(row) in self._gone:
            return None
        if row.action == "iothub.device_put" and row.detail.get("status") != "disabled":
            return False
        why = row.detail.get("why")
        self._changes.run(_SWITCH_OFF, key_hub=hub, key_device_id=name, enabled=0, status_reason=why)
        return True

    async def _enrollment_off(self, row: ExportedRow) -> bool | None:
        key: dict[str, Any] = {
            "scope": str(row.detail["scope"]),
            "kind": str(row.detail["kind"]),
            "id": row.subject.lower(),
        }
        is_off = row.detail.get("status") == "disabled"
        found = await self._database.one(dps_store.GET_ENROLLMENT, **key)
        if found is None or _about(row) in self._gone:
            return False if is_off else None  # it blocked its name in a group
        if not is_off:
            return False
        document = msgspec.structs.replace(dps_store.document_of(found), provisioning_status="disabled")
        text = msgspec.json.encode(document).decode()
        named: dict[str, Any] = {f"key_{name}": value for name, value in key.items()}
        etag = document.etag
        self._changes.run(dps_store.REPLACE_ENROLLMENT, **named, key_etag=etag, document=text, etag=etag)
        return True

    async def _revoke(self, row: ExportedRow) -> None:
        detail, changes = row.detail, self._changes
        reason = str(detail.get("reason", RevocationReason.UNSPECIFIED.value))
        facts: dict[str, Any] = {"revoked_at": self._now, "revocation_reason": reason}
        if row.action == _CERTIFICATE:
            thumbprint = bytes.fromhex(detail["thumbprint"])
            changes.run(store.REVOKE, key_thumbprint=thumbprint, **facts)
            digest = await self._taken_with(thumbprint, detail, reason)
        else:
            digest = bytes.fromhex(detail["key"])
        name = fold(row.subject)
        changes.run(store.ADD_KEY, key_digest=digest, name=name, revoked_at=None, revocation_reason=None)
        changes.run(store.REVOKE_KEY, key_key_digest=digest, **facts)
        if "ca" in detail:
            ca = parse_der(bytes.fromhex(detail["ca"]))
            changes.run(store.ADD_REVOKED_CA, **store.revoked_ca_row(ca, digest_of(ca), self._now))

    async def _taken_with(self, thumbprint: bytes, detail: Mapping[str, Any], reason: str) -> bytes:
        """Return the digest to revoke: that of the key, or the thumbprint to revoke only the certificate."""
        if "key" in detail:
            return bytes.fromhex(detail["key"])
        known = await self._database.one(store.BY_THUMBPRINT, thumbprint=thumbprint)
        if known is None or reason == RevocationReason.SUPERSEDED.value:  # the key remains valid
            return thumbprint
        return bytes(known["key_digest"])


def _target(detail: Mapping[str, Any]) -> str:
    group = detail.get("thing_group")
    return str(detail["certificate_id"]) if group is None else target_of_group(str(group))


def _empty_group(name: str, _detail: Mapping[str, Any]) -> Changes:
    """Remove all rights and members of a deleted thing group."""
    changes = Changes().run(policy_store.DETACH_ALL, target=target_of_group(name))
    return changes.run(thing_store.EMPTY_GROUP, thing_group=name)


def _named(table: Table, column: str) -> Statement:
    return statement(select(table.c[column]).where(table.c[column] == bindparam("name")))


def _drop_enrollment(subject: str, detail: Mapping[str, Any]) -> Changes:
    scope, kind = str(detail["scope"]), str(detail["kind"])
    changes = Changes().run(_DROP_ENROLLMENT, scope=scope, kind=kind, id=subject.lower())
    if kind == "group":
        return changes.run(dps_store.DROP_SIGNERS, scope=scope, group_id=subject)
    changes.run(dps_store.DELETE_OWN_REGISTRATION, scope=scope, registration_id=subject)
    changes.merge(device_name_prefix_index.unindex_name(dps_store.place_of(scope), subject.lower()))
    return changes.run(dps_store.DROP_ROOTS, scope=scope, registration_id=subject)


def _drop_device(subject: str, detail: Mapping[str, Any]) -> Changes:
    key: dict[str, Any] = {"hub": str(detail["hub"]), "device_id": subject}
    changes = Changes().run(_DROP_DEVICE, **key).run(hub_store.DELETE_TWIN, **key)
    changes.merge(hub_searching.without_terms(key["hub"], subject))
    for one in hub_store.DELETE_MODULES_OF:
        changes.run(one, **key)
    changes.merge(device_name_prefix_index.unindex_name(hub_store.place_of(key["hub"]), subject))
    return changes.merge(drop_client(space_of(key["hub"]), subject))


def _drop_module(subject: str, detail: Mapping[str, Any]) -> Changes:
    hub, (device_id, _, module_id) = str(detail["hub"]), subject.partition("/")
    changes = Changes().run(_DROP_MODULE, hub=hub, device_id=device_id, module_id=module_id)
    changes.run(hub_store.DELETE_TWIN, hub=hub, device_id=subject)
    changes.merge(hub_searching.without_terms(hub, subject))
    return changes.merge(drop_client(space_of(hub), subject))


def _drop_user(subject: str, _detail: Mapping[str, Any]) -> Changes:
    changes = Changes().run(people_store.REMOVE_USER, name=subject)
    of_user = (people_store.REMOVE_INVITATIONS, people_store.REMOVE_TOKENS, people_store.REMOVE_GRANTS)
    for one in (*of_user, *sign_in_model.REMOVE_OF):
        changes.run(one, user_name=subject)
    return changes


def _drop_password(subject: str, _detail: Mapping[str, Any]) -> Changes:
    """Remove the backup's password and sessions of a user, because the replacement is unknown."""
    changes = Changes().run(sign_in_model.REMOVE_PASSWORD, user_name=subject)
    return changes.run(sign_in_model.REMOVE_SESSIONS, user_name=subject)


def _end_session(subject: str, detail: Mapping[str, Any]) -> Changes:
    if detail["id"] == "*":
        return Changes().run(sign_in_model.REMOVE_SESSIONS, user_name=subject)
    return Changes().run(sign_in_model.REMOVE_SESSION, id=detail["id"])


def _switch_off(subject: str, detail: Mapping[str, Any]) -> Changes:
    """Disable an authorizer that was deleted or INACTIVE."""
    if detail.get("status") == "ACTIVE":
        return Changes()
    return Changes().run(credential_store.SWITCH_AUTHORIZER, key_name=subject, active=0)


def _closed_ca(ca_id: str, detail: Mapping[str, Any]) -> Changes:
    """Stop registrations by a CA that was deactivated or whose auto-registration was disabled."""
    changes = Changes()
    if detail.get("active") is False:
        changes.run(_STOP_CA, key_id=ca_id, active=0)
    if detail.get("auto_registration") is False:
        changes.run(_STOP_REGISTERING, key_id=ca_id, auto_registration=0)
    return changes


def _stop_template(name: str, detail: Mapping[str, Any]) -> Changes:
    """Disable a provisioning template that was deleted or disabled."""
    if detail.get("enabled") is True:
        return Changes()
    return Changes().run(_STOP_TEMPLATE, key_name=name, enabled=0)


def _stop_job(job_id: str, _detail: Mapping[str, Any]) -> Changes:
    """Cancel a job that was canceled or deleted."""
    return Changes().run(job_store.STOP_JOB, key_job_id=job_id, status=JobStatus.CANCELED.value)


def _withdraw_configuration(configuration_id: str, detail: Mapping[str, Any]) -> Changes:
    """Delete a configuration of a hub that was deleted; twins lose it when the server runs."""
    key: dict[str, Any] = {"key_hub": detail["hub"], "key_id": configuration_id}
    return Changes().run(hub_configuration_store.WITHDRAW_CONFIGURATION, is_deleted=1, is_pending=1, **key)


def _stop_hub_job(job_id: str, detail: Mapping[str, Any]) -> Changes:
    """Cancel a scheduled job of a hub that was cancelled."""
    status = HubJobStatus.CANCELLED.value
    return Changes().run(hub_job_store.STOP, key_hub=detail["hub"], key_job_id=job_id, status=status)


def _stop_rule(name: str, _detail: Mapping[str, Any]) -> Changes:
    """Disable a rule that was deleted or disabled."""
    return Changes().run(rule_store.STOP_RULE, key_name=name, is_disabled=1)


def _stop_destination(destination_id: str, _detail: Mapping[str, Any]) -> Changes:
    """Remove a deleted rule destination."""
    return Changes().run(rule_store.REMOVE_DESTINATION, id=destination_id)


def _bind_claim(certificate_id: str, detail: Mapping[str, Any]) -> Changes:
    """Limit a certificate that was marked as a claim certificate to that use."""
    if detail.get("claim") is not True:
        return Changes()
    return Changes().run(provisioning_store.SET_CLAIM, key_id=certificate_id, claim="")


_CERTIFICATE, _LOSE, _RELEASE, _DEVICE = "certificate.revoke", "name.lose", "name.release", "device.revoke"
_REVOKING = frozenset({_CERTIFICATE, "key.revoke"})
_REMOVALS: Mapping[str, Callable[[str, Mapping[str, Any]], Changes]] = {
    "awsiot.authorizer_change": _switch_off,
    "awsiot.authorizer_delete": _switch_off,
    "awsiot.default_authorizer_clear": lambda kind, _: Changes().run(credential_store.CLEAR_DEFAULT, kind=kind),
    "awsiot.role_alias_delete": lambda name, _: Changes().run(credential_store.DELETE_ALIAS, name=name),
    "awsiot.job_cancel": _stop_job,
    "awsiot.job_delete": _stop_job,
    "awsiot.rule_delete": _stop_rule,
    "awsiot.rule_disable": _stop_rule,
    "awsiot.rule_destination_delete": _stop_destination,
    "awsiot.stream_remove": lambda name, _: Changes().run(rule_store.REMOVE_STREAM, name=name),
    "awsiot.key_remove": lambda name, _: Changes().run(aws_store.DROP_KEY, id=name),
    "awsiot.registration_code_delete": lambda name, _: Changes().run(aws_store.DROP_CODE, account=name),
    "awsiot.thing_group_delete": _empty_group,
    "awsiot.template_change": _stop_template,
    "awsiot.template_delete": _stop_template,
    "awsiot.certificate_claim": _bind_claim,
    "dps.ca_remove": lambda name, told: Changes().run(dps_store.DELETE_AUTHORITY, scope=told["scope"], name=name),
    "dps.enrollment_delete": _drop_enrollment,
    "est.authority.remove": lambda name, _: Changes().run(est_store.REMOVE_AUTHORITY, thumbprint=bytes.fromhex(name)),
    "est.bootstrap.remove": lambda name, _: Changes().run(
        est_store.REMOVE_BOOTSTRAP_CA, thumbprint=bytes.fromhex(name)
    ),
    "est.user.remove": lambda name, _: Changes().run(est_store.REMOVE_USER, name=name),
    "iothub.configuration_delete": _withdraw_configuration,
    "iothub.device_delete": _drop_device,
    "iothub.job_cancel": _stop_hub_job,
    "iothub.module_delete": _drop_module,
    "iothub.ca_remove": lambda name, told: Changes().run(hub_store.DELETE_AUTHORITY, hub=told["hub"], name=name),
    "people.password_remove": _drop_password,
    "people.password_set": _drop_password,
    "people.role_remove": lambda name, told: Changes().run(
        people_store.REMOVE_GRANT, user_name=name, role=told["role"], place=told["place"]
    ),
    "people.session_end": _end_session,
    "people.token_remove": lambda _, told: Changes().run(people_store.REMOVE_TOKEN, id=told["id"]),
    "people.user_remove": _drop_user,
    "webhook.remove": lambda name, _: Changes().run(feed_store.REMOVE, name=name),
}
_BY_WHAT_IS_THERE: Mapping[str, Callable[[_Replay, ExportedRow], Awaitable[bool | None]]] = {
    **dict.fromkeys(("est.authority.add", "est.bootstrap.add"), _Replay._listed),  # noqa: SLF001 - same module
    **dict.fromkeys(("iothub.device_put", "iothub.device_take_back"), _Replay._device_off),  # noqa: SLF001 - likewise
    "awsiot.job_pause": _Replay._pause,  # noqa: SLF001 - likewise
    "dps.enrollment_put": _Replay._enrollment_off,  # noqa: SLF001 - likewise
}
_LISTED: Mapping[str, tuple[Statement, str]] = {
    "est.authority.add": (est_store.AUTHORITY, "names"),
    "est.bootstrap.add": (est_store.BOOTSTRAP_CA, "any_name"),
}
_MADE: Mapping[str, Statement] = {
    "awsiot.ca_add": _named(aws_store.cas, "id"),
    "awsiot.policy_create": _named(policy_store.policies, "name"),
    "dps.create": _named(dps_store.instances, "name"),
    "iothub.create": _named(hub_store.hubs, "name"),
}
"""Lookups by creation action: an item created since the backup is absent, unless its name was in use."""
# Subject type of each action: where several actions share a subject, the last row is its state.
_KINDS: Mapping[str, tuple[str, Sequence[str]]] = {
    "awsiot.ca_add": ("AWS CA", ()),
    "awsiot.ca_update": ("AWS CA", ()),
    "awsiot.certificate_status": ("AWS certificate", ()),
    "awsiot.job_pause": ("AWS job", ()),
    "awsiot.job_resume": ("AWS job", ()),
    "awsiot.policy_attach": ("AWS policy", ("certificate_id", "thing_group")),
    "awsiot.policy_detach": ("AWS policy", ("certificate_id", "thing_group")),
    "awsiot.policy_create": ("AWS policy", ()),
    "awsiot.policy_delete": ("AWS policy", ()),
    "awsiot.policy_change": ("AWS policy", ()),
    "awsiot.thing_attach": ("AWS thing", ("certificate_id",)),
    "awsiot.thing_detach": ("AWS thing", ("certificate_id",)),
    "awsiot.thing_group_add": ("AWS thing group", ("thing",)),
    "awsiot.thing_group_remove": ("AWS thing group", ("thing",)),
    "ca.rollover.back": ("CA rollover", ()),
    "ca.rollover.next": ("CA rollover", ()),
    "ca.rollover.start": ("CA rollover", ()),
    "dps.create": ("provisioning service", ()),
    "dps.delete": ("provisioning service", ()),
    "dps.enrollment_delete": ("enrollment", ("scope", "kind")),
    "dps.enrollment_put": ("enrollment", ("scope", "kind")),
    "dps.link": ("link of provisioning service", ("hub",)),
    "dps.unlink": ("link of provisioning service", ("hub",)),
    "dps.key_rotate": ("keys of provisioning service", ("policy", "which")),
    "est.authority.add": ("registration authority", ("thumbprint",)),
    "est.bootstrap.add": ("manufacturer CA", ("thumbprint",)),
    "est.request.approve": ("request", ("id",)),
    "est.request.reject": ("request", ("id",)),
    **dict.fromkeys(
        ("iothub.configuration_create", "iothub.configuration_rollout", "iothub.configuration_update"),
        ("configuration of hub", ("hub",)),
    ),
    "iothub.create": ("hub", ()),
    "iothub.delete": ("hub", ()),
    "iothub.device_delete": ("hub device", ("hub",)),
    "iothub.device_put": ("hub device", ("hub",)),
    "iothub.device_take_back": ("hub device", ("hub",)),
    "iothub.endpoint_add": ("endpoint of hub", ("hub",)),
    "iothub.endpoint_remove": ("endpoint of hub", ("hub",)),
    **dict.fromkeys(
        (
            *("iothub.route_add", "iothub.route_change", "iothub.route_disable", "iothub.route_enable"),
            *("iothub.route_enrich", "iothub.route_remove"),
        ),
        ("route of hub", ("hub",)),
    ),
    "iothub.module_delete": ("module", ("hub",)),
    "iothub.key_rotate": ("keys of hub", ("policy", "which")),
}
ACTIONS = frozenset({*_REVOKING, _LOSE, _RELEASE, _DEVICE, *_REMOVALS, *_MADE, *_KINDS})
"""Actions that remove something, or undo a removal."""


def _about(row: ExportedRow) -> Key:
    kind, more = _KINDS.get(row.action, (row.action, ()))
    return (kind, row.subject, *(str(row.detail.get(name)) for name in more))


def _place(row: ExportedRow) -> Key:
    return row.action.partition(".")[0], row.subject
