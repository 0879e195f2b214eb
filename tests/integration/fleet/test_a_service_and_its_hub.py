"""What an operator does at a provisioning service and its hub, by Microsoft's client, at a server of ours."""

import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from birthmark.devices.model import RevocationOutcome
from birthmark.dps.model import TpmKeys
from birthmark.fleet.azure_target import AzureTarget
from birthmark.fleet.bulk_enrollment import enroll_all, undo_all
from birthmark.fleet.device_onboarding_stages import DeviceStage, iter_progress
from birthmark.fleet.enrollment_rollback_journal import Journal, JournalOutcome
from birthmark.fleet.enrollment_target import EnrollmentRequest, TargetOutcome
from birthmark.fleet.errors import CredentialsRefusedError, DifferentRecordError, NoSuchRecordError
from birthmark.fleet.target_profiles import azure_profile
from birthmark.pki.tpm_public_key import parse_tpm_public
from support.aws.clients import PATIENCE_S, until
from support.azure.clients import Device, a_file_device
from support.chips.tpm_vectors import ECC_EK, ECC_SRK, RSA_EK, RSA_SRK
from support.server.servers import RunningServer, a_new_server

TPM = TpmKeys(parse_tpm_public(RSA_EK, "key"))
WITH_ROOT = TpmKeys(TPM.endorsement, parse_tpm_public(RSA_SRK, "key"))
OTHER_TPM = TpmKeys(parse_tpm_public(ECC_EK, "key"), parse_tpm_public(ECC_SRK, "key"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def target(server: RunningServer) -> AzureTarget:
    return AzureTarget(azure_profile("local", server.data))


def a_wish(device: Device) -> EnrollmentRequest:
    return EnrollmentRequest(device.name, device.holder.certificate)


def registers(server: RunningServer, device: Device) -> bool:
    files = ["--cert", str(device.certificate_file), "--key", str(device.key_file)]
    return server.attempt("device", "register", *files, **server.environment).returncode == 0


def registered(server: RunningServer, target: AzureTarget, directory: Path, name: str) -> Device:
    """A device that is on record and came to its hub's registry."""
    device = a_file_device(directory, name)
    target.enroll(a_wish(device), update=False, dry_run=False)
    assert registers(server, device)
    return device


@contextlib.contextmanager
def connected(server: RunningServer, device: Device) -> Iterator[None]:
    client = paho.Client(client_id=device.name)
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    context.load_cert_chain(device.certificate_file, device.key_file)
    client.tls_set_context(context)
    host = str(server.endpoints["iothub"]["host"])
    client.username_pw_set(f"{host}/{device.name}/?api-version=2021-04-12")
    is_there = threading.Event()
    client.on_connect = lambda *_: is_there.set()
    client.connect(host, 8883)
    client.loop_start()
    assert is_there.wait(PATIENCE_S)
    yield
    client.disconnect()
    client.loop_stop()
    client._reset_sockets()  # which it leaves to the collector


def test_a_device_is_followed_from_its_record_to_its_connection(
    server: RunningServer, target: AzureTarget, tmp_path: Path
) -> None:
    device = a_file_device(tmp_path, "followed")
    wish = a_wish(device)
    assert target.get_progress(wish).standing is DeviceStage.MISSING
    target.enroll(wish, update=False, dry_run=False)
    assert target.get_progress(wish).standing is DeviceStage.UNASSIGNED
    assert registers(server, device)
    never_seen = target.get_progress(wish)
    assert (never_seen.standing, never_seen.detail) == (DeviceStage.ASSIGNED, server.address)
    with connected(server, device):
        assert target.get_progress(wish).standing is DeviceStage.CONNECTED
    until(lambda: target.get_progress(wish).standing is DeviceStage.AWAY)


def test_a_list_is_enrolled_in_bulk_found_again_and_taken_back_to_nothing(target: AzureTarget, tmp_path: Path) -> None:
    wishes = [a_wish(a_file_device(tmp_path, f"bulk-{number}")) for number in range(12)]
    target.enroll(wishes[3], update=False, dry_run=False)
    target.survey(len(wishes))
    told: list[JournalOutcome] = []
    with Journal(tmp_path / "journal", target.identity) as journal:
        enroll_all(target, wishes, journal, told.append, update=False, dry_run=False)
    done = {outcome.device_id: outcome.done for outcome in told}
    assert done.pop("bulk-3") is TargetOutcome.UNCHANGED
    assert set(done.values()) == {TargetOutcome.CREATED}
    told.clear()
    with Journal(tmp_path / "journal", target.identity) as journal:
        undo_all(target, journal, told.append, dry_run=False)
    assert {outcome.device_id: outcome.done for outcome in told} == dict.fromkeys(done, TargetOutcome.TAKEN_BACK)
    assert [record.name for record in target.records() if record.name.startswith("bulk-")] == ["bulk-3"]


SDK_MEMBERS = {"version": "1.2.3", "count": "two", "metadata": "m", "additional_properties": {"a": 1}, "etag": 1.5}


@pytest.mark.parametrize("twin", [{"tags": SDK_MEMBERS}, {"desired": SDK_MEMBERS}], ids=["tags", "desired"])
def test_a_twin_with_members_named_as_those_of_the_sdk_s_model_passes_every_command(
    target: AzureTarget, tmp_path: Path, twin: dict[str, Any]
) -> None:
    wish = replace(a_wish(a_file_device(tmp_path, "versioned")), **twin)
    told: list[JournalOutcome] = []
    with Journal(tmp_path / "journal", target.identity) as journal:
        enroll_all(target, [wish], journal, told.append, update=False, dry_run=False)
        target.switch("versioned", is_group=False, is_enabled=False, dry_run=False)
        assert target.get_progress(wish).standing is DeviceStage.DISABLED
        target.survey(1)
        enroll_all(target, [wish], journal, told.append, update=True, dry_run=True)
        target.switch("versioned", is_group=False, is_enabled=True, dry_run=False)
        undo_all(target, journal, told.append, dry_run=False)
    assert [one.done for one in told] == [TargetOutcome.CREATED, TargetOutcome.WOULD_UPDATE, TargetOutcome.TAKEN_BACK]


def test_a_group_s_twin_keeps_members_named_as_those_of_the_sdk_s_model(target: AzureTarget) -> None:
    target.enroll_key_group("versioned", is_edge=False, update=False, dry_run=False)
    told = target._json("get_enrollment_group", "versioned") | {"initialTwin": {"tags": SDK_MEMBERS}}
    target._write("enrollment_group", "versioned", told)
    assert "versioned" in [record.name for record in target.records()]
    target.enroll_key_group("versioned", is_edge=True, update=True, dry_run=False)
    target.switch("versioned", is_group=True, is_enabled=False, dry_run=False)
    assert target._json("get_enrollment_group", "versioned")["initialTwin"]["tags"] == SDK_MEMBERS
    target.remove("versioned", is_group=True)


def test_stands_are_told_in_the_order_of_the_list_and_as_rows(target: AzureTarget, tmp_path: Path) -> None:
    wishes = [a_wish(a_file_device(tmp_path, name)) for name in ("row-1", "row-2")]
    target.enroll(wishes[1], update=False, dry_run=False)
    assert [stand.as_row() for stand in iter_progress(target, wishes)] == [
        {"device": "row-1", "standing": "not on record", "detail": "", "at": None},
        {"device": "row-2", "standing": "unassigned", "detail": "", "at": None},
    ]


def test_who_has_a_record_with_another_certificate_is_told_from_who_has_none(
    target: AzureTarget, tmp_path: Path
) -> None:
    theirs, ours = a_file_device(tmp_path, "taken"), a_file_device(tmp_path, "other", common_name="taken")
    target.enroll(a_wish(theirs), update=False, dry_run=False)
    stand = target.get_progress(replace(a_wish(ours), device_id="taken"))
    assert stand.standing is DeviceStage.OTHERWISE
    assert theirs.holder.certificate.thumbprint.hex() in stand.detail


def test_where_the_hub_cannot_be_asked_it_is_said_and_nobody_is_taken_for_connected(
    server: RunningServer, target: AzureTarget, tmp_path: Path
) -> None:
    wish = a_wish(registered(server, target, tmp_path, "unasked"))
    alone = AzureTarget(replace(azure_profile("local", server.data), hub_connection_string=None))
    stand = alone.get_progress(wish)
    assert stand.standing is DeviceStage.ASSIGNED
    assert "no connection string of that hub is at hand" in stand.detail


def test_a_device_that_its_hub_does_not_know_any_more_was_never_seen_there(
    server: RunningServer, target: AzureTarget, tmp_path: Path
) -> None:
    wish = a_wish(registered(server, target, tmp_path, "forgotten"))
    server.run("hub", "device", "rm", "forgotten", "--yes")
    stand = target.get_progress(wish)
    assert (stand.standing, stand.detail) == (
        DeviceStage.ASSIGNED,
        f"{server.address}, which has no such device",
    )


def test_a_retired_device_neither_registers_nor_connects_until_it_is_reinstated(
    server: RunningServer, target: AzureTarget, tmp_path: Path
) -> None:
    device = registered(server, target, tmp_path, "retired")
    wish = a_wish(device)
    assert target.retire(wish, dry_run=True).done is TargetOutcome.WOULD_RETIRE
    assert registers(server, device), "a rehearsal changes nothing"
    assert target.retire(wish, dry_run=False).done is TargetOutcome.RETIRED
    assert target.retire(wish, dry_run=False).done is TargetOutcome.UNCHANGED
    assert not registers(server, device)
    assert target.get_progress(wish).standing is DeviceStage.DISABLED
    assert target.enroll(wish, update=True, dry_run=False).done is TargetOutcome.UPDATED
    assert target.get_progress(wish).standing is DeviceStage.DISABLED, "its hub keeps it out still"
    target.reinstate(wish)
    assert target.get_progress(wish).standing is DeviceStage.ASSIGNED
    assert registers(server, device)


def test_who_never_registered_is_retired_by_the_record_alone(target: AzureTarget, tmp_path: Path) -> None:
    wish = a_wish(a_file_device(tmp_path, "unborn"))
    assert target.retire(wish, dry_run=False).done is TargetOutcome.GONE
    target.enroll(wish, update=False, dry_run=False)
    assert target.retire(wish, dry_run=False).done is TargetOutcome.RETIRED
    assert target.get_progress(wish).standing is DeviceStage.DISABLED


def test_a_lost_device_is_shut_out_at_the_service_and_at_its_hub(
    server: RunningServer, target: AzureTarget, tmp_path: Path
) -> None:
    device = registered(server, target, tmp_path, "lost")
    rehearsed = target.revoke_device("lost", "keyCompromise", dry_run=True)
    assert [row.became for row in rehearsed] == [RevocationOutcome.WOULD_REVOKE, RevocationOutcome.WOULD_REVOKE]
    for became in (RevocationOutcome.REVOKED, RevocationOutcome.WAS_REVOKED):
        rows = target.revoke_device("lost", "keyCompromise", dry_run=False)
        assert [(row.what, row.became) for row in rows] == [("enrollment", became), ("device", became)]
    assert not registers(server, device)
    stand = target.get_progress(a_wish(device))
    assert (stand.standing, stand.detail) == (DeviceStage.TAKEN_BACK, "as keyCompromise")


def test_whoever_enables_a_lost_device_at_its_hub_takes_the_mark_off(
    server: RunningServer, target: AzureTarget, tmp_path: Path
) -> None:
    device = registered(server, target, tmp_path, "found")
    target.revoke_device("found", "keyCompromise", dry_run=False)
    target.enroll(a_wish(device), update=True, dry_run=False)
    target.reinstate(a_wish(device))
    assert target.get_progress(a_wish(device)).standing is DeviceStage.ASSIGNED
    assert target.retire(a_wish(device), dry_run=False).done is TargetOutcome.RETIRED
    assert target.get_progress(a_wish(device)).standing is DeviceStage.DISABLED, "retired, and not lost"


def test_the_hubs_own_device_is_taken_back_with_its_keys_where_the_service_knows_none(
    server: RunningServer, target: AzureTarget
) -> None:
    before = server.rows("hub", "device", "create", "by-key")[0]["primary_key"]
    (row,) = target.revoke_device("by-key", "stolen", dry_run=False)
    assert (row.what, row.became) == ("device", RevocationOutcome.REVOKED)
    assert target._hub is not None
    told = target._hub.get("by-key") or {}
    assert (told["status"], told["statusReason"]) == ("disabled", "taken back: stolen")
    assert told["authentication"]["symmetricKey"]["primaryKey"] != before


def test_a_hub_that_refuses_the_key_is_told_and_the_service_is_done_all_the_same(
    server: RunningServer, target: AzureTarget, tmp_path: Path
) -> None:
    registered(server, target, tmp_path, "half")
    profile = azure_profile("local", server.data)
    assert profile.hub_connection_string is not None
    wrong = profile.hub_connection_string.partition("SharedAccessKey=")[0] + "SharedAccessKey=d3Jvbmc="
    rows = AzureTarget(replace(profile, hub_connection_string=wrong)).revoke_device("half", "stolen", dry_run=False)
    assert [(row.what, row.became) for row in rows] == [
        ("enrollment", RevocationOutcome.REVOKED),
        ("device", RevocationOutcome.FAILED),
    ]
    assert "rejected the credentials" in rows[1].note


def test_a_key_that_the_service_does_not_know_is_refused_as_such(server: RunningServer) -> None:
    profile = azure_profile("local", server.data)
    wrong = profile.connection_string.partition("SharedAccessKey=")[0] + "SharedAccessKey=d3Jvbmc="
    with pytest.raises(CredentialsRefusedError):
        list(AzureTarget(replace(profile, connection_string=wrong)).records())


def tpm(
    target: AzureTarget, keys: TpmKeys, *, is_edge: bool = False, update: bool = False, dry_run: bool = False
) -> TargetOutcome:
    return target.enroll_tpm("by-tpm", keys, is_edge=is_edge, update=update, dry_run=dry_run)


def test_a_device_is_on_record_by_its_tpm_and_by_another_only_when_that_is_asked(target: AzureTarget) -> None:
    assert tpm(target, TPM, dry_run=True) is TargetOutcome.WOULD_CREATE
    assert tpm(target, TPM) is TargetOutcome.CREATED
    assert tpm(target, TPM) is TargetOutcome.UNCHANGED
    with pytest.raises(DifferentRecordError) as refused:
        tpm(target, OTHER_TPM)
    assert refused.value.facts["wanted"] == "this TPM as device by-tpm"
    assert tpm(target, TPM) is TargetOutcome.UNCHANGED, "a refusal leaves the record"
    assert tpm(target, OTHER_TPM, update=True, dry_run=True) is TargetOutcome.WOULD_UPDATE
    assert tpm(target, OTHER_TPM, update=True) is TargetOutcome.UPDATED
    assert tpm(target, OTHER_TPM) is TargetOutcome.UNCHANGED


def test_a_tpm_as_an_edge_device_or_with_another_root_is_another_wish(target: AzureTarget) -> None:
    assert tpm(target, WITH_ROOT, update=True) in {TargetOutcome.CREATED, TargetOutcome.UPDATED}
    assert tpm(target, TPM) is TargetOutcome.UNCHANGED, "a root key that is not asked for may be any"
    with pytest.raises(DifferentRecordError) as refused:
        tpm(target, TPM, is_edge=True)
    assert refused.value.facts["wanted"] == "this TPM as IoT Edge device by-tpm"


def test_a_disabled_tpm_is_enabled_by_an_update_alone(target: AzureTarget) -> None:
    tpm(target, TPM, update=True)
    target.switch("by-tpm", is_group=False, is_enabled=False, dry_run=False)
    with pytest.raises(DifferentRecordError):
        tpm(target, TPM)
    assert tpm(target, TPM, update=True) is TargetOutcome.UPDATED
    assert tpm(target, TPM) is TargetOutcome.UNCHANGED


def test_keys_are_made_once_and_told_again(target: AzureTarget) -> None:
    def keys(*, is_edge: bool = False, update: bool = False, dry_run: bool = False) -> tuple[TargetOutcome, str | None]:
        return target.enroll_keys("keyed", is_edge=is_edge, update=update, dry_run=dry_run)

    assert keys(dry_run=True) == (TargetOutcome.WOULD_CREATE, None)
    made, key = keys()
    assert made is TargetOutcome.CREATED
    assert key
    assert keys() == (TargetOutcome.UNCHANGED, key)
    assert keys(dry_run=True) == (TargetOutcome.UNCHANGED, None)
    with pytest.raises(DifferentRecordError) as refused:
        keys(is_edge=True)
    assert refused.value.facts["wanted"] == "keys as IoT Edge device keyed"
    assert keys(is_edge=True, update=True, dry_run=True) == (TargetOutcome.WOULD_UPDATE, None)
    assert keys(is_edge=True, update=True) == (TargetOutcome.UPDATED, key), "a device that has its key keeps it"


def test_a_device_with_a_certificate_has_keys_instead_only_when_that_is_asked(
    target: AzureTarget, tmp_path: Path
) -> None:
    device = a_file_device(tmp_path, "to-keys")
    target.enroll(replace(a_wish(device), tags={"site": "Osaka"}), update=False, dry_run=False)
    with pytest.raises(DifferentRecordError) as refused:
        target.enroll_keys("to-keys", is_edge=False, update=False, dry_run=False)
    assert device.holder.certificate.thumbprint.hex() in refused.value.facts["present"]
    done, key = target.enroll_keys("to-keys", is_edge=False, update=True, dry_run=False)
    assert done is TargetOutcome.UPDATED
    assert key
    assert target._json("get_individual_enrollment", "to-keys")["initialTwin"]["tags"] == {"site": "Osaka"}
    assert target.get_progress(a_wish(device)).standing is DeviceStage.OTHERWISE


def test_a_record_is_switched_off_and_on_with_nothing_else_changed(
    server: RunningServer, target: AzureTarget, tmp_path: Path
) -> None:
    registered(server, target, tmp_path, "switched")
    before = target._json("get_individual_enrollment", "switched")

    def switch(*, is_enabled: bool, dry_run: bool = False) -> TargetOutcome:
        done = target.switch("switched", is_group=False, is_enabled=is_enabled, dry_run=dry_run)
        assert (done.device_id, done.hub) == ("switched", server.address)
        return done.done

    assert switch(is_enabled=True) is TargetOutcome.UNCHANGED
    assert switch(is_enabled=False, dry_run=True) is TargetOutcome.WOULD_UPDATE
    assert switch(is_enabled=False) is TargetOutcome.UPDATED
    assert switch(is_enabled=True) is TargetOutcome.UPDATED
    changing = {"etag", "lastUpdatedDateTimeUtc", "registrationState"}
    after = target._json("get_individual_enrollment", "switched")
    assert {name: after[name] for name in after.keys() - changing} == {
        name: before[name] for name in before.keys() - changing
    }
    assert target.registered("switched") == ("switched", server.address)


def test_what_is_not_on_record_is_neither_switched_nor_registered(target: AzureTarget) -> None:
    with pytest.raises(NoSuchRecordError):
        target.switch("nobody", is_group=True, is_enabled=False, dry_run=False)
    with pytest.raises(NoSuchRecordError):
        target.registered("nobody")


def test_two_targets_at_one_service_are_at_one_place(server: RunningServer, target: AzureTarget) -> None:
    assert target.place == AzureTarget(replace(azure_profile("local", server.data), scope=None)).place
