"""Machines that share the files of their CA by way of the database."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from sqlalchemy import select

from birthmark.bus.wire import opened, refusal_of
from birthmark.ca import passphrase_rotation
from birthmark.ca.ca_directory import load, load_or_create
from birthmark.ca.hierarchy import Generation
from birthmark.ca.key_files import MAX_SECRET_BYTES, SecretUnreadableError
from birthmark.ca.passphrase_sources import Passphrase
from birthmark.cli.options.ca import check_leads
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.errors import ChangedMeanwhileError
from birthmark.pki.certificate_profiles import Purpose
from birthmark.server.backup.backup_creation import make_backup
from birthmark.server.backup.database_move import move_database
from birthmark.server.backup.restore import restore_backup
from birthmark.server.cluster.ca_and_seed_files import collect_shared_files, replace_shared_files
from birthmark.server.cluster.cluster_join import MachineOccupiedError, join
from birthmark.server.cluster.file_sync import FileSync, MachineAloneError, MachineElsewhereError
from birthmark.server.cluster.node_identity_and_invitation import FILE, ClusterNode, InvitationRefusedError, machine_of
from birthmark.server.cluster.sealed_files import SharedUnreadableError
from birthmark.server.data_dir import DataDirectory, RecordsLostError
from birthmark.server.database_installation_facts import note_root
from birthmark.store import Changes, Database, open_database, statement, upsert
from birthmark.store.core_tables import server_facts
from conftest import empty_database

pytestmark = pytest.mark.integration
CLOCK, ENTROPY = SystemClock(), SystemEntropy()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await open_database(database_url, CLOCK, worker="w1")
    yield opened
    await opened.close()


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """The directory of a server that ran."""
    data = tmp_path / "first"
    data.mkdir(mode=0o700)
    for name in ("audit.seed", "est.seed"):
        (data / name).write_text(ENTROPY.token(24).hex() + "\n")
        (data / name).chmod(0o600)
    load_or_create(data / "ca", "Example", now=CLOCK.now, entropy=ENTROPY)
    return data


def sharing_of(database: Database, data: Path, alone: str = "") -> FileSync:
    return FileSync(database, data, CLOCK, ENTROPY, alone=alone)


def generation_in(directory: Path) -> Generation:
    (generation,) = load(directory).generations
    return generation


def name_in(data: Path) -> str:
    machine = machine_of(data)
    assert machine is not None
    return machine.name


async def invited(database: Database, first: Path, at: Path) -> Path:
    """Have the first machine invite; return the invitation."""
    told = await sharing_of(database, first).create_invitation([generation_in(first / "ca")], "operator")
    at.write_text(json.dumps(told))
    at.chmod(0o600)
    return at


async def second_of(database: Database, url: str, first: Path, tmp_path: Path) -> Path:
    """Have a second machine join; return its directory."""
    data = tmp_path / "second"
    await join(await invited(database, first, tmp_path / "invitation.json"), data, url, CLOCK, ENTROPY)
    return data


async def test_who_joins_has_the_ca_the_seeds_and_a_name_and_no_token(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    assert collect_shared_files(second) == collect_shared_files(first)
    assert (name_in(first), name_in(second)) == ("m1", "m2")
    assert not (second / "operator.token").exists()
    assert {path.stat().st_mode & 0o077 for path in second.glob("ca/*.key")} == {0}


async def test_each_that_joins_has_a_name_of_its_own_also_of_two_at_once(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    invitation = await invited(database, first, tmp_path / "invitation.json")
    joined = await asyncio.gather(
        *(join(invitation, tmp_path / name, database_url, CLOCK, ENTROPY) for name in ("a", "b"))
    )
    assert sorted(one.name for one in joined) == ["m2", "m3"]


async def test_who_joins_again_keeps_its_name(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    again = await join(tmp_path / "invitation.json", second, database_url, CLOCK, ENTROPY)
    assert again.name == "m2"


async def test_who_joins_while_another_call_ends_in_the_same_directory_keeps_its_name(
    database: Database, database_url: str, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invitation, data = await invited(database, first, tmp_path / "invitation.json"), tmp_path / "second"
    real, others = DataDirectory.prepare, list[threading.Thread]()

    def prepared(directory: DataDirectory) -> None:
        if not others:  # the other call is between this one's look and its lock
            call = join(invitation, data, database_url, CLOCK, ENTROPY)
            others.append(threading.Thread(target=asyncio.run, args=(call,)))
            others[0].start()
            others[0].join()
        real(directory)

    monkeypatch.setattr(DataDirectory, "prepare", prepared)
    done = await join(invitation, data, database_url, CLOCK, ENTROPY)
    assert (done.name, done.files, name_in(data)) == ("m2", 0, "m2")


async def test_who_was_cut_off_while_it_joined_goes_on_by_the_same_command(
    database: Database, database_url: str, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut(*_: object) -> None:
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr("birthmark.server.cluster.cluster_join._note_audit", cut)
        with pytest.raises(InterruptedError):
            await second_of(database, database_url, first, tmp_path)
    done = await join(tmp_path / "invitation.json", tmp_path / "second", database_url, CLOCK, ENTROPY)
    assert done.name == "m2"
    assert name_in(tmp_path / "second") == "m2"


async def test_a_directory_of_another_server_is_left_as_it_is(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    invitation = await invited(database, first, tmp_path / "invitation.json")
    other = tmp_path / "other"
    load_or_create(other / "ca", "Other", now=CLOCK.now, entropy=ENTROPY)
    before = (other / "ca" / "root.pem").read_bytes()
    with pytest.raises(MachineOccupiedError):
        await join(invitation, other, database_url, CLOCK, ENTROPY)
    assert (other / "ca" / "root.pem").read_bytes() == before


async def test_an_invitation_to_another_installation_makes_nothing(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    invitation = await invited(database, first, tmp_path / "invitation.json")
    told = json.loads(invitation.read_text()) | {"sealing_key": "00" * 32}
    invitation.write_text(json.dumps(told))
    with pytest.raises(SharedUnreadableError):
        await join(invitation, tmp_path / "second", database_url, CLOCK, ENTROPY)
    assert not (tmp_path / "second" / FILE).exists()
    assert not (tmp_path / "second" / "ca").exists()


async def test_a_database_that_nobody_shares_is_told(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    invitation = await invited(database, first, tmp_path / "invitation.json")
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    with pytest.raises(SharedUnreadableError) as refused:
        await join(invitation, tmp_path / "second", empty, CLOCK, ENTROPY)
    assert "not the database of the inviting machine" in refused.value.explain_cause()


async def test_the_note_of_a_machine_is_no_invitation(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    await invited(database, first, tmp_path / "invitation.json")
    with pytest.raises(InvitationRefusedError):
        await join(first / FILE, tmp_path / "second", database_url, CLOCK, ENTROPY)


async def test_every_ca_that_another_machine_may_need_is_made_before(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    made = generation_in(second / "ca")
    assert {one.value for one in made.issuers} == {one.value for one in Purpose}


async def test_what_the_first_machine_changes_is_taken_over(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    passphrase_rotation.move(first / "ca", Passphrase(first / "ca"), Passphrase(first / "ca"), ENTROPY)
    (first / "ca" / "root.crl").write_bytes(b"list")
    load_or_create(first / "ca-2f2f2f", "Next", now=CLOCK.now, entropy=ENTROPY)
    await sharing_of(database, first).synchronize()
    await sharing_of(database, second).synchronize()
    assert collect_shared_files(second) == collect_shared_files(first)
    assert generation_in(second / "ca").root.certificate == generation_in(first / "ca").root.certificate


async def test_an_invitation_that_is_not_there_is_told_as_that(tmp_path: Path) -> None:
    with pytest.raises(InvitationRefusedError) as refused:
        await join(tmp_path / "joining.json", tmp_path / "data", "postgresql://", CLOCK, ENTROPY)
    assert "no such file" in refused.value.explain_cause()


async def second_rekeyed(database: Database, database_url: str, first: Path, tmp_path: Path) -> Path:
    """Return a second machine's directory after the first one's passphrase went elsewhere."""
    second = await second_of(database, database_url, first, tmp_path)
    passphrase_rotation.move(
        first / "ca", Passphrase(first / "ca"), Passphrase(first / "ca", f"file:{tmp_path / 'word'}"), ENTROPY
    )
    await sharing_of(database, first).synchronize()
    await sharing_of(database, second).synchronize()
    return second


async def test_what_the_first_machine_has_no_more_goes_elsewhere_too(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_rekeyed(database, database_url, first, tmp_path)
    assert not (second / "ca" / "passphrase").exists()
    assert load(second / "ca", Passphrase(second / "ca", f"file:{tmp_path / 'word'}")).has_root


async def test_what_is_changed_at_a_machine_that_follows_does_not_count(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    (second / "ca" / "root.crl").write_bytes(b"of nobody")
    await sharing_of(database, second).synchronize()
    await sharing_of(database, first).synchronize()
    assert collect_shared_files(second) == collect_shared_files(first)
    assert not (first / "ca" / "root.crl").exists()


async def test_a_machine_that_follows_makes_no_root_and_says_where(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    await sharing_of(database, first).check_is_leader()
    with pytest.raises(MachineElsewhereError, match="Another machine is the leader"):
        await sharing_of(database, second).check_is_leader()


async def test_a_machine_takes_the_lead_with_what_the_one_before_had(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    await sharing_of(database, second).become_leader("operator")
    (second / "ca" / "root.crl").write_bytes(b"list")
    await sharing_of(database, second).synchronize()
    await sharing_of(database, first).synchronize()
    assert (first / "ca" / "root.crl").read_bytes() == b"list"
    listed = await sharing_of(database, first).machines()
    assert [(one["name"], one["leads"], one["here"]) for one in listed] == [("m1", False, True), ("m2", True, False)]


async def test_a_server_without_a_common_bus_invites_nobody_and_stays_alone(database: Database, first: Path) -> None:
    with pytest.raises(MachineAloneError):
        await sharing_of(database, first, "are one process").create_invitation(
            [generation_in(first / "ca")], "operator"
        )
    assert machine_of(first) is None


async def test_a_server_on_one_machine_shares_nothing(database: Database, first: Path) -> None:
    sharing = sharing_of(database, first)
    await sharing.synchronize()
    await sharing.check_is_leader()
    assert await sharing.machines() == []


async def test_two_invitations_at_once_are_to_one_installation_with_one_key(database: Database, first: Path) -> None:
    generations = [generation_in(first / "ca")]
    one, other = await asyncio.gather(
        *(sharing_of(database, first).create_invitation(generations, "operator") for _ in range(2)),
        return_exceptions=True,
    )
    if isinstance(other, BaseException) or isinstance(one, BaseException):
        one = other = await sharing_of(database, first).create_invitation(generations, "operator")
    assert one == other


async def test_the_leader_puts_right_what_does_not_open_in_the_database(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    await database.commit(Changes().run(upsert(server_facts), name="server.shared.ca", value="AAAA"))
    with pytest.raises(SharedUnreadableError):
        await sharing_of(database, second).synchronize()
    assert collect_shared_files(second) == collect_shared_files(first)
    await sharing_of(database, first).synchronize()
    await sharing_of(database, second).synchronize()


async def test_who_is_killed_while_it_takes_over_has_all_or_nothing(
    database: Database, database_url: str, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    passphrase_rotation.move(first / "ca", Passphrase(first / "ca"), Passphrase(first / "ca"), ENTROPY)
    files = collect_shared_files(first)["ca"]

    class Killed(BaseException):
        pass

    real = Path.replace
    for steps in range(len(files) + 3):
        left = steps

        def replace(path: Path, target: Path) -> Path:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            return real(path, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", replace)
            try:
                replace_shared_files(second, "ca", files)
            except Killed:
                pass
            else:
                break
        assert load(second / "ca").has_root  # its keys open
    assert collect_shared_files(second)["ca"] == files


async def test_workers_of_the_machine_that_leads_share_at_once(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    (first / "ca" / "root.crl").write_bytes(b"list")
    await asyncio.gather(*(sharing_of(database, first).synchronize() for _ in range(4)))
    await sharing_of(database, second).synchronize()
    assert (second / "ca" / "root.crl").read_bytes() == b"list"


async def test_what_is_too_much_at_a_machine_that_follows_is_kept_aside(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    (first / "ca" / "edge.pending").write_bytes(b"a key that waits for its certificate")
    await sharing_of(database, second).become_leader("operator")
    await sharing_of(database, first).synchronize()
    assert not (first / "ca" / "edge.pending").exists()
    assert (first / "ca" / ".edge.pending.left").read_bytes() == b"a key that waits for its certificate"


async def test_a_new_root_counts_only_while_the_machine_that_made_it_leads(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    load_or_create(first / "ca-2f2f2f", "Next", now=CLOCK.now, entropy=ENTROPY)
    changes = await sharing_of(database, first).publish_generation(generation_in(first / "ca-2f2f2f"))
    await sharing_of(database, second).become_leader("operator")
    with pytest.raises(ChangedMeanwhileError):
        await database.commit(changes)
    with pytest.raises(MachineElsewhereError):
        await sharing_of(database, first).publish_generation(generation_in(first / "ca-2f2f2f"))


async def test_what_is_given_is_whole_whoever_gave_a_part_of_it_before(
    database: Database, database_url: str, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    load_or_create(first / "ca-2f2f2f", "Next", now=CLOCK.now, entropy=ENTROPY)
    sharing, looks = sharing_of(database, first), FileSync._load_sealed_files
    seen = [await looks(sharing)]  # before another worker gave what was there by then
    await sharing_of(database, first).synchronize()

    async def late(one: FileSync) -> Mapping[str, str]:
        return seen.pop() if seen else await looks(one)

    monkeypatch.setattr(FileSync, "_load_sealed_files", late)
    await sharing.publish_generation(generation_in(first / "ca-2f2f2f"))
    await sharing_of(database, second).synchronize()
    assert collect_shared_files(second) == collect_shared_files(first)
    assert {one.value for one in generation_in(second / "ca-2f2f2f").issuers} == {one.value for one in Purpose}


async def test_who_joins_again_changes_no_file_of_the_machine_that_leads(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    await sharing_of(database, second).become_leader("operator")
    passphrase_rotation.move(
        second / "ca", Passphrase(second / "ca"), Passphrase(second / "ca", f"file:{tmp_path / 'word'}"), ENTROPY
    )
    (second / "ca" / "edge.pending").write_bytes(b"a key that waits for its certificate")
    before = collect_shared_files(second)
    await join(tmp_path / "invitation.json", second, database_url, CLOCK, ENTROPY)
    assert collect_shared_files(second) == before


async def test_what_was_changed_and_not_shared_is_kept_beside_whatever_takes_its_place(
    database: Database, database_url: str, first: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    (first / "ca" / "edge.pending").write_bytes(b"asked first")
    await sharing_of(database, first).synchronize()
    (first / "ca" / "edge.pending").write_bytes(b"asked again")
    await sharing_of(database, second).become_leader("operator")
    await sharing_of(database, first).synchronize()
    assert (first / "ca" / "edge.pending").read_bytes() == b"asked first"
    assert (first / "ca" / ".edge.pending.left").read_bytes() == b"asked again"
    assert "server.left_beside" in caplog.messages


async def test_a_passphrase_that_nobody_else_has_is_left_with_the_keys_that_it_opens(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    passphrase_rotation.move(first / "ca", Passphrase(first / "ca"), Passphrase(first / "ca"), ENTROPY)
    before = collect_shared_files(first)["ca"]
    await sharing_of(database, second).become_leader("operator")
    await sharing_of(database, first).synchronize()
    for name in ("passphrase", "root.key"):
        assert (first / "ca" / f".{name}.left").read_bytes() == before[name]


async def test_what_all_machines_had_goes_where_the_one_that_leads_changes_it(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_rekeyed(database, database_url, first, tmp_path)
    assert not list((second / "ca").glob(".*.left")), "an old passphrase and the keys that it opens"


@pytest.mark.parametrize("lost", ["gone", "another"])
async def test_a_machine_that_leads_without_the_seeds_of_the_others_has_them_again(
    database: Database, database_url: str, first: Path, tmp_path: Path, lost: str
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    before = collect_shared_files(second)["seeds"]
    (first / "audit.seed").unlink()
    if lost == "gone":
        (first / "est.seed").unlink()
    else:
        (first / "est.seed").write_bytes(b"made anew\n")
    await sharing_of(database, first).synchronize()
    await sharing_of(database, second).synchronize()
    assert collect_shared_files(first)["seeds"] == collect_shared_files(second)["seeds"] == before
    assert [one.read_bytes() for one in first.glob(".est.seed.left")] == ([b"made anew\n"] if lost == "another" else [])


async def test_what_lies_beside_the_files_of_a_ca_is_shared_with_nobody(
    database: Database, database_url: str, first: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    for name in ("root.pem~", "inventory.db", "ocsp-issuing.pem"):
        (first / "ca" / name).write_bytes(b"x" * MAX_SECRET_BYTES * 2)
    (first / "ca" / "notes.pem").mkdir()
    (first / "ca" / "root.crl").write_bytes(b"list")
    with caplog.at_level(logging.INFO):
        await sharing_of(database, first).share([])
    assert caplog.messages.count("server.left_out") == 3
    await sharing_of(database, second).synchronize()
    assert (second / "ca" / "root.crl").read_bytes() == b"list"
    assert {path.name for path in second.glob("ca/[!.]*")} == set(collect_shared_files(second)["ca"])


async def test_what_no_machine_would_open_is_not_shared(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    for name in ("root.crl", "abandoned", "edge.pending", "est.asked"):
        (first / "ca" / name).write_bytes(b"x" * MAX_SECRET_BYTES)
    with pytest.raises(SecretUnreadableError):
        await sharing_of(database, first).synchronize()
    await sharing_of(database, second).synchronize()


async def test_a_worker_tells_its_parent_of_the_directory_in_which_something_does_not_open(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    await database.commit(Changes().run(upsert(server_facts), name="server.shared.ca", value="AAAA"))
    with pytest.raises(SharedUnreadableError) as refused:
        await sharing_of(database, second).synchronize()
    with pytest.raises(SharedUnreadableError) as told:
        opened(refusal_of(refused.value), {"worker": "w1", "request": "start"})
    assert f"--data {second}.new`" in told.value.explain_fix()


async def test_who_takes_the_lead_has_what_the_one_before_shares_at_that_moment(
    database: Database, database_url: str, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = await second_of(database, database_url, first, tmp_path)
    looks, are_late = FileSync.copy_from_database, ["ca-2f2f2f", "ca-3f3f3f"]

    async def looked(one: FileSync, machine: ClusterNode) -> int:
        found = await looks(one, machine)
        if are_late:
            late = first / are_late.pop()
            load_or_create(late, "Next", now=CLOCK.now, entropy=ENTROPY)
            await database.commit(await sharing_of(database, first).publish_generation(generation_in(late)))
        return found

    monkeypatch.setattr(FileSync, "copy_from_database", looked)
    await sharing_of(database, second).become_leader("operator")
    assert collect_shared_files(second) == collect_shared_files(first)
    assert (second / "ca-2f2f2f" / "root.key").exists()


@pytest.mark.parametrize("name", ["first", "second"])
async def test_a_machine_on_an_empty_database_says_so_and_puts_nothing_there(
    database: Database, database_url: str, first: Path, tmp_path: Path, name: str
) -> None:
    await second_of(database, database_url, first, tmp_path)
    empty = await open_database(f"sqlite:///{tmp_path / 'empty.db'}", CLOCK, worker="w1")
    try:
        with pytest.raises(RecordsLostError) as refused:
            await sharing_of(empty, tmp_path / name).synchronize()
        assert "machine.json" in refused.value.explain_fix()
        (tmp_path / name / FILE).unlink()
        await sharing_of(empty, tmp_path / name).synchronize()
        assert await empty.all(statement(select(server_facts))) == []
    finally:
        await empty.close()


async def test_a_machine_on_the_database_of_others_is_not_told_that_it_is_empty(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    await second_of(database, database_url, first, tmp_path)
    other = await open_database(f"sqlite:///{tmp_path / 'other.db'}", CLOCK, worker="w1")
    try:
        await note_root(other, generation_in(first / "ca").anchor)
        with pytest.raises(RecordsLostError) as refused:
            await sharing_of(other, first).synchronize()
        assert "has no record of its machines" in refused.value.explain_cause()
    finally:
        await other.close()


async def test_a_ca_is_changed_at_the_machine_that_leads(
    postgres_url: str, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await open_database(postgres_url, CLOCK, worker="w1")
    try:
        second = await second_of(database, postgres_url, first, tmp_path)
    finally:
        await database.close()
    monkeypatch.setenv("BIRTHMARK_DATABASE", postgres_url)
    await asyncio.to_thread(check_leads, first / "ca")
    with pytest.raises(MachineElsewhereError):
        await asyncio.to_thread(check_leads, second / "ca")


async def test_who_changes_a_ca_is_warned_where_nobody_can_be_asked_which_machine_leads(
    database: Database, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BIRTHMARK_DATABASE", raising=False)
    await asyncio.to_thread(check_leads, first / "ca")
    assert capsys.readouterr().err == ""
    await invited(database, first, tmp_path / "invitation.json")
    await asyncio.to_thread(check_leads, first / "ca")
    assert "this machine is one of several" in capsys.readouterr().err
    assert not (first / "birthmark.db").exists()


async def test_one_of_several_machines_that_is_restored_alone_knows_of_no_other(
    database: Database, database_url: str, first: Path, tmp_path: Path
) -> None:
    await second_of(database, database_url, first, tmp_path)
    await note_root(database, generation_in(first / "ca").anchor)
    out, new = tmp_path / "b.birthmark", tmp_path / "new"
    await make_backup(first, out, "secret", url=database_url, now=CLOCK.now())
    await restore_backup(out, new, "secret", CLOCK)
    assert machine_of(new) is None
    restored = await open_database(f"sqlite:///{new}/birthmark.db", CLOCK, worker="w1")
    try:
        names = {row["name"] for row in await restored.all(statement(select(server_facts)))}
    finally:
        await restored.close()
    assert "ca.root" in names
    assert not [name for name in names if name.startswith(("server.machine", "server.shared"))]


async def test_one_of_several_machines_is_so_again_where_it_is_restored_into_a_database_for_them(
    database: Database, database_url: str, first: Path, postgres_server: str, tmp_path: Path
) -> None:
    await second_of(database, database_url, first, tmp_path)
    out, new, url = tmp_path / "b.birthmark", tmp_path / "new", empty_database(postgres_server)
    await make_backup(first, out, "secret", url=database_url, now=CLOCK.now())
    await restore_backup(out, new, "secret", CLOCK, url=url)
    restored = await open_database(url, CLOCK, worker="w1")
    try:
        assert await sharing_of(restored, new).is_leader()
    finally:
        await restored.close()


async def test_one_of_several_machines_that_moves_into_a_file_is_alone(
    postgres_url: str, first: Path, tmp_path: Path
) -> None:
    database = await open_database(postgres_url, CLOCK, worker="w1")
    try:
        await second_of(database, postgres_url, first, tmp_path)
    finally:
        await database.close()
    await move_database(first, postgres_url, f"sqlite:///{tmp_path}/moved.db", CLOCK, ENTROPY, print)
    assert machine_of(first) is None
    moved = await open_database(f"sqlite:///{tmp_path}/moved.db", CLOCK, worker="w1")
    try:
        assert not [row for row in await moved.all(statement(select(server_facts))) if "machine" in row["name"]]
    finally:
        await moved.close()
