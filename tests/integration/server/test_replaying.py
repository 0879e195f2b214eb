"""What audit rows that were exported after a backup take away from the restored server, and what they do not."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import NoEncryption, pkcs12
from sqlalchemy import Table

from birthmark.audit.chain_verification import CHAINS, LAST_ROW
from birthmark.audit.signed_heads import AuditKey
from birthmark.awsiot.model import Authorizer, RoleAlias
from birthmark.awsiot.store import authorizers_and_role_aliases as credential_store
from birthmark.awsiot.store import certificates_and_access_keys as aws_store
from birthmark.awsiot.store import jobs as job_store
from birthmark.awsiot.store import policies as policy_store
from birthmark.awsiot.store import provisioning as provisioning_store
from birthmark.awsiot.store import registry as thing_store
from birthmark.ca import store as ca_store
from birthmark.dps import store as dps_store
from birthmark.dps.enrollment_document import parse_document
from birthmark.est import store as est_store
from birthmark.iam import sign_in_model
from birthmark.iam import store as people_store
from birthmark.iothub import job_store as hub_job_store
from birthmark.iothub import store as hub_store
from birthmark.server.backup.audit_export_verification import AuditExport, ReplayRefusedError, read_export
from birthmark.server.backup.removal_replay import ACTIONS, ReplayedRevocation, replay_rows
from birthmark.store import Changes, Database, open_database
from support.fakes import FakeClock
from support.pki.pki_builders import a_ca, a_key
from support.server.exports import exported

pytestmark = pytest.mark.integration
KEY = AuditKey("seed")
DEVICE = a_ca()
PFX = pkcs12.serialize_key_and_certificates(None, a_key(), None, None, NoEncryption())
TWIN: dict[str, Any] = {"version": 1, "updated_at": 0, "body": b""}
LATER = timedelta(minutes=1)


@dataclass
class Loss:
    """A server and its backup, as databases that begin the same and go on without each other."""

    directory: Path
    clock: FakeClock
    lost: Database
    backup: Database

    async def both(self, changes: Callable[[], Changes]) -> None:
        for database in (self.lost, self.backup):
            await database.commit(changes())

    async def since(self, action: str, subject: str, **detail: object) -> None:
        self.clock.move(LATER)
        await self.lost.commit(Changes().audit("operator:operator", action, subject, **detail))

    async def read(self, path: Path) -> AuditExport:
        ends = {}
        for row in await self.backup.all(CHAINS):
            last = await self.backup.one(LAST_ROW, chain=row["chain"])
            assert last is not None
            ends[row["chain"]] = (last["seq"], bytes(last["digest"]))
        building = Path(tempfile.mkdtemp(dir=self.directory))
        return await read_export(path, building, ends, ACTIONS, key=KEY.public_key, clock=self.clock)

    async def export(self) -> Path:
        return await exported(self.lost, KEY.public_key, self.directory / "audit.jsonl")

    async def replayed(self) -> ReplayedRevocation:
        changes = Changes()
        done = await replay_rows(self.backup, changes, (await self.read(await self.export())).rows, 1)
        await self.backup.commit(changes)
        return done

    async def has(self, table: Any, **key: object) -> dict[str, Any] | None:
        row = await self.backup.one(table, **key)
        return None if row is None else dict(row)


@pytest.fixture
async def loss(tmp_path: Path) -> Any:
    clock = FakeClock()
    opened = [await open_database(f"sqlite:///{tmp_path}/{name}.db", clock, signer=KEY) for name in ("lost", "backup")]
    yield Loss(tmp_path, clock, *opened)
    for one in opened:
        await one.close()


def a_device(hub: str, name: str) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("status_reason", "primary_thumbprint", "secondary_thumbprint", "primary_key", "secondary_key")
    )
    made = {"generation_id": "1", "etag": "1", "enabled": 1, "auth_type": "sas", "iot_edge": 0, "maker": "operator"}
    made["parent_scopes"] = None
    return {"hub": hub, "device_id": name, "created_at": 0, "updated_at": 0, **made, **nothing}


def an_enrollment(name: str) -> dict[str, Any]:
    told = {"registrationId": name, "etag": '"1"', "attestation": {"type": "symmetricKey"}}
    document = json.dumps(told)
    parse_document(document.encode())
    return {"scope": "0ne1", "kind": "individual", "id": name, "document": document, "etag": '"1"'}


async def test_a_device_that_was_let_in_again_before_the_backup_stays_in(loss: Loss) -> None:
    await loss.both(lambda: Changes().audit("operator:operator", "device.revoke", "pump-1", reason="keyCompromise"))
    await loss.both(lambda: Changes().audit("operator:operator", "name.lose", "pump-1", reason="keyCompromise"))
    await loss.both(lambda: Changes().audit("operator:operator", "name.release", "pump-1", thumbprints=[]))
    done = await loss.replayed()
    assert (done.count, done.devices) == (0, {})
    assert await loss.has(ca_store.NAME, name="pump-1") is None


async def test_a_device_that_was_lost_since_is_lost_again_and_one_that_was_let_go_since_is_not(loss: Loss) -> None:
    await loss.both(lambda: Changes().audit("server", "ca.root_noted", "root"))
    for name in ("Pump-1", "pump-2"):
        await loss.since("device.revoke", name, reason="keyCompromise")
        await loss.since("name.lose", name.lower(), reason="keyCompromise")
    await loss.since("name.release", "pump-1", thumbprints=[])
    assert (await loss.replayed()).devices == {"pump-2": "keyCompromise"}
    assert await loss.has(ca_store.NAME, name="pump-1") is None
    lost = await loss.has(ca_store.NAME, name="pump-2")
    assert lost is not None
    assert lost["lost_at"] == 1


async def test_a_reason_that_is_none_is_unspecified(loss: Loss) -> None:
    await loss.since("device.revoke", "pump-1", reason="stolen")
    assert (await loss.replayed()).devices == {"pump-1": "unspecified"}


async def test_the_last_word_counts_of_what_is_switched_and_nothing_is_given(loss: Loss) -> None:
    rows = {name: a_device("hub", name) for name in ("off", "on", "taken", "deleted")}
    await loss.both(lambda: _added(hub_store.ADD_DEVICE, rows.values()))
    for name, *statuses in (("off", "enabled", "disabled"), ("on", "disabled", "enabled")):
        for status in statuses:
            await loss.since("iothub.device_put", name, hub="hub", status=status)
    await loss.since("iothub.device_take_back", "taken", hub="hub", why="taken back: keyCompromise")
    await loss.since("iothub.device_delete", "deleted", hub="hub")
    await loss.since("iothub.device_put", "deleted", hub="hub", status="enabled")
    await loss.since("iothub.device_put", "new", hub="hub", status="disabled")
    done = await loss.replayed()
    found = {name: await loss.has(hub_store.GET_DEVICE, hub="hub", device_id=name) for name in rows}
    assert {name: row and row["enabled"] for name, row in found.items()} == {
        "off": 0,
        "on": 1,
        "taken": 0,
        "deleted": None,
    }
    assert done.came_back == [("hub device", "on hub")]
    assert done.count == 3


async def test_an_enrollment_is_disabled_or_removed_again(loss: Loss) -> None:
    rows = [an_enrollment(name) for name in ("off", "changed", "deleted")]
    await loss.both(lambda: _added(dps_store.ADD_ENROLLMENT, rows))
    told = {"scope": "0ne1", "kind": "individual"}
    await loss.since("dps.enrollment_put", "off", **told, status="disabled")
    await loss.since("dps.enrollment_put", "changed", **told)
    await loss.since("dps.enrollment_put", "shut-out", **told, status="disabled")
    await loss.since("dps.enrollment_delete", "deleted", **told)
    done = await loss.replayed()
    off = await loss.has(dps_store.GET_ENROLLMENT, **told, id="off")
    assert off is not None
    assert json.loads(off["document"])["provisioningStatus"] == "disabled"
    assert await loss.has(dps_store.GET_ENROLLMENT, **told, id="deleted") is None
    assert done.came_back == [("enrollment", f"{name} 0ne1 individual") for name in ("changed", "shut-out")]


async def test_what_aws_iot_revoked_detached_or_removed_is_so_again(loss: Loss) -> None:
    nothing = {"der": b"", "mode": "DEFAULT", "ca_id": None, "created_at": 0, "modified_at": 0}
    nothing |= {"customer_version": 1, "generation_id": "1", "status": "ACTIVE", "pem": None}
    nothing |= {"claim": None, "until": None, "replaces": None}
    rows = [{"id": name, **nothing} for name in ("revoked", "active")]
    await loss.both(lambda: _added(aws_store.ADD, rows))
    keys = [{"id": "AKIA1", "secret": "s", "name": "n", "created_at": 0, "policy": None}]
    await loss.both(lambda: _added(aws_store.ADD_KEY, keys))
    held = [{"policy": name, "target": "active"} for name in ("kept", "detached")]
    await loss.both(lambda: _added(policy_store.ATTACH, held))
    for name, status in (("revoked", "REVOKED"), ("active", "INACTIVE"), ("active", "ACTIVE")):
        await loss.since("awsiot.certificate_status", name, status=status)
    await loss.since("awsiot.key_remove", "AKIA1")
    for verb, name in (("detach", "kept"), ("attach", "kept"), ("detach", "detached")):
        await loss.since(f"awsiot.policy_{verb}", name, certificate_id="active")
    await loss.since("awsiot.policy_change", "kept", default_version=2)
    done = await loss.replayed()
    found = {row["id"]: await loss.has(aws_store.GET, id=row["id"]) for row in rows}
    assert {name: row and row["status"] for name, row in found.items()} == {"revoked": "REVOKED", "active": "ACTIVE"}
    assert await loss.backup.all(aws_store.KEYS_PAGE, after="", limit=1) == []
    held_now = await loss.backup.all(policy_store.POLICIES_OF, target="active", after="", limit=9)
    assert [row["policy"] for row in held_now] == ["kept"]
    assert done.came_back == [("AWS policy", "kept")]


async def test_what_let_devices_in_at_aws_or_gave_them_keys_is_taken_back_again(loss: Loss) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    doors = [Authorizer(name, "arn", None, {}, True, True, False, at, at) for name in ("off", "gone", "on")]
    await loss.both(
        lambda: _added(credential_store.ADD_AUTHORIZER, [credential_store.AUTHORIZERS.row(one) for one in doors])
    )
    alias = credential_store.ALIASES.row(RoleAlias("reading", "id", "arn", 900, at, at))
    await loss.both(lambda: _added(credential_store.ADD_ALIAS, [alias]))
    await loss.both(lambda: _added(credential_store.ADD_DEFAULT, [{"kind": "authorizer", "name": "on"}]))
    await loss.since("awsiot.authorizer_change", "off", status="INACTIVE")
    await loss.since("awsiot.authorizer_change", "on", status="ACTIVE")
    await loss.since("awsiot.authorizer_delete", "gone")
    await loss.since("awsiot.default_authorizer_clear", "authorizer")
    await loss.since("awsiot.role_alias_delete", "reading")
    await loss.replayed()
    found = {one.name: await loss.has(credential_store.GET_AUTHORIZER, name=one.name) for one in doors}
    assert {name: row and row["active"] for name, row in found.items()} == {"off": 0, "gone": 0, "on": 1}
    assert not await loss.has(credential_store.GET_ALIAS, name="reading")
    assert not await loss.has(credential_store.GET_DEFAULT, kind="authorizer")


async def test_rights_by_a_thing_group_that_went_or_was_left_are_gone_again(loss: Loss) -> None:
    held = [{"policy": "p", "target": f"thinggroup/{name}"} for name in ("kept", "detached", "deleted")]
    await loss.both(lambda: _added(policy_store.ATTACH, held))
    members = [{"thing_group": "kept", "thing": name, "joined_at": 0} for name in ("stays", "left", "came back")]
    await loss.both(lambda: _added(thing_store.ADD_MEMBER, members))
    await loss.since("awsiot.policy_detach", "p", thing_group="detached")
    await loss.since("awsiot.thing_group_delete", "deleted")
    for verb, name in (("remove", "left"), ("remove", "came back"), ("add", "came back")):
        await loss.since(f"awsiot.thing_group_{verb}", "kept", thing=name)
    assert (await loss.replayed()).came_back == []
    found = await loss.backup.all(policy_store.TARGETS_OF, policy="p", after="", limit=9)
    assert [row["target"] for row in found] == ["thinggroup/kept"]
    found = await loss.backup.all(thing_store.THINGS_IN, thing_group="kept", after="", limit=9)
    assert [row["thing"] for row in found] == ["came back", "stays"]


def _empty_row(table: Table) -> dict[str, Any]:
    return {one.name: None if one.nullable else 0 for one in table.columns}


async def test_ways_to_a_first_identity_that_were_closed_are_closed_again(loss: Loss) -> None:
    template: dict[str, Any] = {one.name: None if one.nullable else 0 for one in provisioning_store.templates.columns}
    templates = [template | {"name": name, "enabled": 1} for name in ("gone", "off", "on")]
    await loss.both(lambda: _added(provisioning_store.ADD, templates))
    certificate: dict[str, Any] = {one.name: None if one.nullable else 0 for one in aws_store.certificates.columns}
    await loss.both(lambda: _added(aws_store.ADD, [certificate | {"id": "claim", "der": b""}]))
    ca: dict[str, Any] = _empty_row(aws_store.cas)
    ca |= {"id": "ca", "der": b"", "subject": b"", "auto_registration": 1, "active": 1}
    await loss.both(lambda: _added(aws_store.ADD_CA, [ca]))
    await loss.since("awsiot.template_delete", "gone")
    await loss.since("awsiot.template_change", "off", enabled=False)
    await loss.since("awsiot.template_change", "on", enabled=True)
    await loss.since("awsiot.certificate_claim", "claim", claim=True)
    await loss.since("awsiot.ca_update", "ca", active=True, auto_registration=False)
    await loss.replayed()
    found = {one["name"]: await loss.has(provisioning_store.GET, name=one["name"]) for one in templates}
    assert {name: row and row["enabled"] for name, row in found.items()} == {"gone": 0, "off": 0, "on": 1}
    known = await loss.has(aws_store.GET, id="claim")
    assert known is not None
    assert known["claim"] == ""
    known = await loss.has(aws_store.GET_CA, id="ca")
    assert known is not None
    assert (known["active"], known["auto_registration"]) == (1, 0)


async def test_jobs_that_were_canceled_or_removed_go_to_nobody_again(loss: Loss) -> None:
    job: dict[str, Any] = _empty_row(job_store.jobs)
    known = [job | {"job_id": name, "status": "IN_PROGRESS"} for name in ("canceled", "deleted", "paused", "goes on")]
    await loss.both(lambda: _added(job_store.ADD_JOB, known))
    await loss.since("awsiot.job_cancel", "canceled")
    await loss.since("awsiot.job_delete", "deleted")
    for name in ("paused", "goes on"):
        await loss.since("awsiot.job_pause", name)
    await loss.since("awsiot.job_resume", "goes on")
    await loss.replayed()
    found = [await loss.has(job_store.GET_JOB, job_id=one["job_id"]) for one in known]
    assert [row and row["status"] for row in found] == ["CANCELED", "CANCELED", "IN_PROGRESS", "IN_PROGRESS"]
    assert [row is not None and row["paused_at"] is not None for row in found[2:]] == [True, False]


async def test_a_job_of_a_hub_that_was_cancelled_begins_no_device_again(loss: Loss) -> None:
    job: dict[str, Any] = _empty_row(hub_job_store.jobs) | {"hub": "main"}
    states = {"waits": "scheduled", "runs": "running", "is over": "completed", "goes on": "scheduled"}
    known = [job | {"job_id": name, "status": status} for name, status in states.items()]
    await loss.both(lambda: _added(hub_job_store.ADD, known))
    for name in ("waits", "runs", "is over"):
        await loss.since("iothub.job_cancel", name, hub="main")
    await loss.replayed()
    found = [await loss.has(hub_job_store.GET, hub="main", job_id=name) for name in states]
    assert [row and row["status"] for row in found] == ["cancelled", "cancelled", "completed", "scheduled"]


async def test_est_users_and_those_who_introduce_devices_are_removed_again(loss: Loss) -> None:
    cas = [{"thumbprint": bytes(32), "der": b"", "any_name": 1, "added_at": 0}]
    await loss.both(lambda: _added(est_store.ADD_BOOTSTRAP_CA, cas))
    users = _empty_row(est_store.users) | {"name": "gone"}
    await loss.both(lambda: _added(est_store.ADD_USER, [users]))
    await loss.since("est.user.remove", "gone")
    await loss.since("est.bootstrap.remove", bytes(32).hex())
    assert (await loss.replayed()).count == 2
    assert await loss.has(est_store.USER, name="gone") is None
    assert await loss.backup.all(est_store.BOOTSTRAP_CAS_PAGE, after=b"", limit=1) == []


async def test_who_was_let_in_for_less_since_comes_back_for_more_and_is_named(loss: Loss) -> None:
    cas = [{"thumbprint": bytes([n]) * 32, "der": b"", "any_name": 1, "added_at": 0} for n in (1, 2, 3)]
    await loss.both(lambda: _added(est_store.ADD_BOOTSTRAP_CA, cas))
    authorities = [{"thumbprint": bytes([4]) * 32, "der": b"", "names": "*", "added_at": 0}]
    await loss.both(lambda: _added(est_store.ADD_AUTHORITY, authorities))
    for n, any_name in ((1, False), (2, True), (3, False), (9, True)):
        await loss.since("est.bootstrap.add", "CN=Maker", thumbprint=(bytes([n]) * 32).hex(), any_name=any_name)
    await loss.since("est.bootstrap.remove", (bytes([3]) * 32).hex())
    await loss.since("est.authority.add", "CN=line-ra", thumbprint=(bytes([4]) * 32).hex(), names="line7-*")
    assert (await loss.replayed()).came_back == [
        ("manufacturer CA", f"CN=Maker {'01' * 32}"),
        ("registration authority", f"CN=line-ra {'04' * 32}"),
    ]


async def test_keys_that_were_changed_since_come_back_and_are_named(loss: Loss) -> None:
    await loss.since("iothub.create", "new", host="x")
    for hub in ("birthmark", "new"):
        await loss.since("iothub.key_rotate", hub, policy="service", which="primary")
    assert (await loss.replayed()).came_back == [("keys of hub", "birthmark service primary")]


async def test_what_was_made_again_under_the_same_name_comes_back_as_it_was_and_is_named(loss: Loss) -> None:
    """Its keys, or what it allows, are those of the backup: in force again."""
    policy: dict[str, Any] = dict.fromkeys(policy_store.policies.columns.keys(), 0)
    policy |= {"name": "pumps", "generation_id": "1"}
    hub = {"name": "plant", "host": "plant.example", "policies": "{}", "tier": None}
    await loss.both(lambda: _added(hub_store.ADD_HUB, [hub]))
    await loss.both(
        lambda: _added(
            dps_store.ADD_INSTANCE,
            [
                {
                    "id_scope": "0ne1",
                    "name": "plant",
                    "host": "dps.example",
                    "hubs": "[]",
                    "policies": "{}",
                    "tier": None,
                }
            ],
        )
    )
    await loss.both(lambda: _added(policy_store.ADD, [policy]))
    await loss.since("iothub.key_rotate", "plant", policy="service", which="primary")
    for kind in ("iothub", "dps"):
        await loss.since(f"{kind}.delete", "plant")
        await loss.since(f"{kind}.create", "plant")
    for verb, told in (("detach", {"certificate_id": "c"}), ("delete", {}), ("create", {})):
        await loss.since(f"awsiot.policy_{verb}", "pumps", **told)
    await loss.since("awsiot.policy_attach", "pumps", certificate_id="c")
    for verb in ("create", "delete", "create"):
        await loss.since(f"iothub.{verb}", "of-later")
    assert (await loss.replayed()).came_back == [
        ("keys of hub", "plant service primary"),
        ("hub", "plant"),
        ("provisioning service", "plant"),
        ("AWS policy", "pumps"),
    ]


async def test_the_last_word_is_the_chains_not_the_clocks(loss: Loss) -> None:
    await loss.both(lambda: _added(hub_store.ADD_DEVICE, [a_device("hub", "off")]))
    await loss.since("iothub.device_put", "off", hub="hub", status="enabled")
    loss.clock.move(-10 * LATER)
    await loss.since("iothub.device_put", "off", hub="hub", status="disabled")
    read = await loss.read(await loss.export())
    assert (read.ends, (await loss.replayed()).count) == ({"main": 2}, 1)


async def test_an_aws_policy_that_was_deleted_since_is_named(loss: Loss) -> None:
    await loss.both(lambda: Changes().audit("server", "ca.root_noted", "root"))
    await loss.since("awsiot.policy_delete", "pumps")
    assert (await loss.replayed()).came_back == [("AWS policy", "pumps")]


async def test_an_export_tells_up_to_when_it_goes_and_an_older_one_has_nothing(loss: Loss) -> None:
    await loss.both(lambda: Changes().audit("server", "ca.root_noted", "root"))
    await loss.since("device.revoke", "pump-1", reason="keyCompromise")
    read = await loss.read(await loss.export())
    assert ([row.subject for row in read.rows], read.until) == (["pump-1"], loss.clock.now())
    early = await exported(loss.backup, KEY.public_key, loss.directory / "early.jsonl")
    for _ in range(3):
        await loss.backup.commit(Changes().audit("server", "ca.root_noted", "root"))
    assert (await loss.read(early)).rows == []


@pytest.mark.parametrize(
    ("damaged", "told"),
    [
        (lambda text: text[: len(text) // 2], "is neither a row nor a head, or it was cut"),
        (lambda text: text[: text.rindex('{"chain"')], "its signed head is missing"),
        (lambda text: text[text.rindex('{"chain"') :], "it has no rows"),
        (lambda _: "", "it has no rows"),
        (lambda _: 'listen = ["127.0.0.1"]\n', "line 1 is neither a row nor a head"),
        (lambda text: text.replace("pump-1", "pump-2"), "it, or its digest, was changed"),
        (lambda text: text.partition("\n")[2], "rows 1 to 1 are missing"),
    ],
    ids=["cut", "no head", "heads alone", "empty", "no export", "changed", "not from the first"],
)
async def test_what_is_no_whole_export_is_refused(loss: Loss, damaged: Callable[[str], str], told: str) -> None:
    for name in ("pump-0", "pump-1"):
        await loss.since("device.revoke", name, reason="keyCompromise")
    path = await loss.export()
    path.write_text(damaged(path.read_text()))
    with pytest.raises(ReplayRefusedError) as refused:
        await loss.read(path)
    assert told in refused.value.explain_cause()


@pytest.mark.parametrize("coded", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
async def test_an_export_is_read_however_its_text_is_coded(loss: Loss, coded: str) -> None:
    await loss.since("device.revoke", "pump-1", reason="keyCompromise")
    path = await loss.export()
    path.write_bytes(path.read_text().replace("\n", "\r\n").encode(coded))
    assert [row.subject for row in (await loss.read(path)).rows] == ["pump-1"]


async def test_an_export_is_read_whatever_ends_its_lines(loss: Loss) -> None:
    await loss.since("device.revoke", "pump-1", reason="keyCompromise")
    path = await loss.export()
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    assert [row.subject for row in (await loss.read(path)).rows] == ["pump-1"]


@pytest.mark.parametrize(
    ("damaged", "told"),
    [
        (lambda text: text.replace('"seq"', "\u201cseq\u201d", 1).encode(), "U+201C"),
        (lambda text: text.replace(" ", "\u00a0", 1).encode(), "U+00A0"),
        (lambda _: DEVICE.key_pem.encode(), "it is a private key"),
        (lambda _: DEVICE.certificate.der, "it is a certificate"),
        (lambda _: PFX, "it is PKCS#12 (PFX)"),
        (lambda _: b"age-encryption.org/v1\n-> scrypt", "it is a backup"),
    ],
    ids=["quotes", "blank", "key", "certificate", "PFX", "backup"],
)
async def test_what_is_wrong_with_a_line_is_told(loss: Loss, damaged: Callable[[str], bytes], told: str) -> None:
    await loss.since("device.revoke", "pump-1", reason="keyCompromise")
    path = await loss.export()
    path.write_bytes(damaged(path.read_text()))
    with pytest.raises(ReplayRefusedError) as refused:
        await loss.read(path)
    assert told in refused.value.explain_cause()
    assert refused.value.explain_fix().index("copy") < refused.value.explain_fix().index("server restore")


async def test_an_export_of_another_server_or_of_another_past_is_refused(loss: Loss, tmp_path: Path) -> None:
    await loss.lost.commit(Changes().audit("server", "ca.root_noted", "one"))
    await loss.backup.commit(Changes().audit("server", "ca.root_noted", "another"))
    with pytest.raises(ReplayRefusedError) as refused:
        await loss.read(await loss.export())
    assert "its row 1 of chain main differs from the backup's" in refused.value.explain_cause()
    other = await open_database(f"sqlite:///{tmp_path}/other.db", loss.clock, signer=AuditKey("other"))
    await other.commit(Changes().audit("server", "ca.root_noted", "one"))
    path = await exported(other, AuditKey("other").public_key, tmp_path / "other.jsonl")
    await other.close()
    with pytest.raises(ReplayRefusedError) as refused:
        await loss.read(path)
    assert "signed by another key" in refused.value.explain_cause()


def _added(statement: Any, rows: Any) -> Changes:
    changes = Changes()
    for row in rows:
        changes.run(statement, **row)
    return changes


async def test_passwords_and_sessions_that_were_ended_since_stay_ended(loss: Loss) -> None:
    """Of a password that was set since nobody can tell what it is: the one of the backup counts no more."""
    told: dict[str, Any] = {"let_in_by": "operator", "hash": "h", "addresses": "[]", "changed_at": 0}
    session: dict[str, Any] = {"how": "password", "address": "", "agent": "", "let_in_by": "operator", "digest": "d"}
    session |= {"created_at": 0, "used_at": 0, "ends_at": 0}

    def there() -> Changes:
        changes = Changes().audit("operator", "people.user_create", "anna")
        for name in ("anna", "bert", "carl", "dora"):
            changes.run(sign_in_model.ADD_PASSWORD, user_name=name, **told)
            for number in range(2):
                changes.run(sign_in_model.ADD_SESSION, id=f"{name}-{number}", user_name=name, **session)
        return changes

    await loss.both(there)
    await loss.since("people.password_set", "anna")
    await loss.since("people.session_end", "bert", id="bert-0")
    await loss.since("people.session_end", "carl", id="*", count=2)
    await loss.since("people.user_remove", "dora")
    assert (await loss.replayed()).count == 4
    sessions = await loss.backup.all(sign_in_model.SESSIONS_PAGE, after="", limit=10)
    assert [row["id"] for row in sessions] == ["bert-1"]
    left = [await loss.has(sign_in_model.PASSWORD, user_name=name) for name in ("anna", "bert", "carl", "dora")]
    assert [row is None for row in left] == [True, False, False, True]


async def test_people_who_were_removed_since_and_what_was_taken_from_them_stay_away(loss: Loss) -> None:
    user: dict[str, Any] = {"created_at": 0, "made_by": "operator"}
    token: dict[str, Any] = {
        "label": "",
        "role": None,
        "place": None,
        "created_at": 0,
        "ends_at": 1,
        "made_by": "operator",
    }

    def there() -> Changes:
        changes = Changes().audit("operator", "people.user_create", "anna")
        for name in ("anna", "bert"):
            changes.run(people_store.ADD_USER, name=name, **user)
            changes.run(people_store.ADD_TOKEN, id=f"of-{name}", user_name=name, digest="d", **token)
            changes.run(people_store.ADD_TOKEN, id=f"more-of-{name}", user_name=name, digest="d", **token)
            for role in ("viewer", "admin"):
                changes.run(people_store.ADD_GRANT, user_name=name, role=role, place="*")
        return changes

    await loss.both(there)
    await loss.since("people.user_remove", "anna")
    await loss.since("people.role_remove", "bert", role="admin", place="*")
    await loss.since("people.token_remove", "bert", id="of-bert")
    done = await loss.replayed()
    assert (done.count, done.came_back) == (3, [])
    users = await loss.backup.all(people_store.USERS_PAGE, after="", limit=10)
    grants = await loss.backup.all(people_store.ALL_GRANTS)
    tokens = await loss.backup.all(people_store.TOKENS_PAGE, after="", limit=10)
    assert [row["name"] for row in users] == ["bert"]
    assert [(row["user_name"], row["role"]) for row in grants] == [("bert", "viewer")]
    assert [row["id"] for row in tokens] == ["more-of-bert"]
