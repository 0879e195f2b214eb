"""Files that machines share, sealed; what a machine notes of itself; and whose names of workers are whose."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.server.cluster.node_identity_and_invitation import (
    BusMissingError,
    ClusterNode,
    InvitationRefusedError,
    JoinUnfinishedError,
    check_bus,
    machine_of,
    made,
    note,
    parse,
    render,
)
from birthmark.server.cluster.sealed_files import (
    KEY_BYTES,
    MAX_CHARS,
    NONCE_BYTES,
    SharedUnreadableError,
    seal,
    unseal,
)
from birthmark.server.workers.worker_process_configuration import WorkerConfig, WorkerContext

KEY, NONCE, INSTALLATION = bytes(range(KEY_BYTES)), bytes(NONCE_BYTES), "0f" * 12
FILES = {"root.pem": b"certificate", "root.key": b"secret"}
HERE = Path("machine.json")


def sealed(name: str = "ca") -> str:
    return seal(FILES, name, installation=INSTALLATION, key=KEY, nonce=NONCE)


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@given(st.dictionaries(names, st.binary(max_size=200), max_size=8))
def test_what_was_sealed_opens_as_it_was(files: dict[str, bytes]) -> None:
    text = seal(files, "ca", installation=INSTALLATION, key=KEY, nonce=NONCE)
    assert unseal(text, "ca", installation=INSTALLATION, key=KEY) == files


def test_the_database_alone_shows_nothing_of_it() -> None:
    import base64

    assert b"secret" not in base64.b64decode(sealed())


@pytest.mark.parametrize(
    ("name", "installation", "key"),
    [("ca-2", INSTALLATION, KEY), ("ca", "f0" * 12, KEY), ("ca", INSTALLATION, bytes(KEY_BYTES))],
    ids=["another-name", "another-installation", "another-key"],
)
def test_it_opens_for_nothing_else(name: str, installation: str, key: bytes) -> None:
    with pytest.raises(SharedUnreadableError):
        unseal(sealed(), name, installation=installation, key=key)


@given(st.text(max_size=200))
def test_what_is_no_sealed_text_is_told(text: str) -> None:
    with pytest.raises(SharedUnreadableError):
        unseal(text, "ca", installation=INSTALLATION, key=KEY)


def test_what_is_too_large_is_told() -> None:
    text = "A" * (MAX_CHARS + 1)
    with pytest.raises(SharedUnreadableError) as refused:
        unseal(text, "ca", installation=INSTALLATION, key=KEY)
    assert "too large" in refused.value.explain_cause()


@pytest.mark.parametrize("name", ["../root.key", "/etc/passwd", "", ".moving", "a/b", "root.pem~"])
def test_a_name_that_leads_elsewhere_is_left_out(name: str) -> None:
    text = seal({name: b"", **FILES}, "ca", installation=INSTALLATION, key=KEY, nonce=NONCE)
    assert unseal(text, "ca", installation=INSTALLATION, key=KEY) == FILES


def test_what_a_machine_notes_is_read_as_it_was(tmp_path: Path) -> None:
    machine = made(INSTALLATION, KEY, "m2")
    note(tmp_path, machine)
    assert machine_of(tmp_path) == machine
    assert (tmp_path / "machine.json").stat().st_mode & 0o777 == 0o600


def test_a_directory_without_a_note_is_of_the_only_machine(tmp_path: Path) -> None:
    assert machine_of(tmp_path) is None


def test_a_key_is_not_shown_where_a_machine_is() -> None:
    assert KEY.hex() not in repr(made(INSTALLATION, KEY, "m2"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("version", 2), ("installation", "x"), ("sealing_key", "0f"), ("name", "../m2"), ("name", "m0"), ("more", 1)],
)
def test_an_invitation_with_something_wrong_is_refused_without_its_key(field: str, value: object) -> None:
    said = json.loads(render(made(INSTALLATION, KEY))) | {field: value}
    with pytest.raises(InvitationRefusedError) as refused:
        parse(json.dumps(said).encode(), HERE)
    assert KEY.hex() not in str(refused.value) + refused.value.explain_cause()


@given(st.binary(max_size=300))
def test_what_is_no_invitation_is_told(data: bytes) -> None:
    with pytest.raises(InvitationRefusedError):
        parse(data, HERE)


def test_a_machine_that_did_not_end_to_join_does_not_serve(tmp_path: Path) -> None:
    note(tmp_path, ClusterNode(1, INSTALLATION, KEY.hex(), "m2", is_whole=False))
    with pytest.raises(JoinUnfinishedError):
        machine_of(tmp_path)


def test_one_of_several_machines_does_not_serve_without_the_bus_of_the_others(tmp_path: Path) -> None:
    check_bus(tmp_path, None)
    note(tmp_path, made(INSTALLATION, KEY, "m1"))
    with pytest.raises(BusMissingError):
        check_bus(tmp_path, None)
    check_bus(tmp_path, "nats://nats.example:4222")


def test_the_workers_of_the_first_machine_are_called_as_they_were() -> None:
    assert (made(INSTALLATION, KEY, "m1").prefix, made(INSTALLATION, KEY, "m2").prefix) == ("", "m2-")


@pytest.mark.parametrize(
    ("prefix", "name", "is_no_more"),
    [
        ("", "w3", True),
        ("", "main", True),
        ("", "w2", False),
        ("", "m2-w3", False),
        ("m2-", "m2-w3", True),
        ("m2-", "m2-w1", False),
        ("m2-", "w3", False),
        ("m2-", "m22-w3", False),
    ],
)
def test_a_machine_knows_of_its_own_workers_alone_which_are_no_more(prefix: str, name: str, is_no_more: bool) -> None:
    place = WorkerContext(WorkerConfig(f"{prefix}w1", "nats://x", 2, {}, prefix))
    assert place.is_name_unused(name) is is_no_more


def test_a_server_that_is_alone_knows_that_all_others_are_no_more() -> None:
    assert WorkerContext().is_name_unused("m2-w1")
    assert not WorkerContext().is_name_unused("main")
