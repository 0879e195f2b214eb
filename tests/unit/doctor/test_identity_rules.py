"""The device's files: which mistake is named, and by which command it is mended."""

from dataclasses import replace
from typing import Any

import pytest

from birthmark.doctor.facts import ChipFacts, ChipSelection, FileFacts, IdentityFacts, KeyFacts, LeafFacts
from birthmark.doctor.findings import DoctorFinding, FindingSeverity
from birthmark.doctor.rules.identity import findings
from birthmark.doctor.setting_sources import SettingSource, SourcedSetting

CERTIFICATE = SourcedSetting(SettingSource.VARIABLE, "X509_CERT_FILE", "/d/device.pem")
KEY = SourcedSetting(SettingSource.VARIABLE, "X509_KEY_FILE", "/d/device.key")
LEAF = LeafFacts("CN=pump", "pump", "aa", "2026-01-01", "2027-01-01")
GOOD = IdentityFacts(
    CERTIFICATE,
    KEY,
    FileFacts(CERTIFICATE.value, exists=True, mode=0o644),
    FileFacts(KEY.value, exists=True, mode=0o600),
    LEAF,
    key_public="aa",
)
FORGET = "unset X509_CERT_FILE X509_KEY_FILE"


def only(seen: IdentityFacts, chips: tuple[ChipFacts, ...] = ()) -> DoctorFinding:
    (found,) = findings(seen, chips)
    return found


def but(**facts: Any) -> IdentityFacts:
    return replace(GOOD, **facts)


def test_a_pair_that_belongs_together_is_said_to_be_well_with_its_dates() -> None:
    found = only(GOOD)
    assert (found.severity, found.seen) == (FindingSeverity.OK, "CN=pump, valid from 2026-01-01 to 2027-01-01 UTC")


def test_where_no_files_are_named_nothing_is_said() -> None:
    assert list(findings(IdentityFacts())) == []


def test_files_that_are_swapped_are_exchanged() -> None:
    found = only(but(is_certificate_in_key=True, is_key_in_certificate=True))
    assert found.code == "keys.file_is_certificate"
    assert found.command.startswith('export X509_CERT_FILE="$X509_KEY_FILE"')


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"certificate_file": FileFacts(CERTIFICATE.value, reason="no such file")}, "device.certificate_missing"),
        ({"certificate_code": "pki.certificate_invalid", "certificate_cause": "x"}, "pki.certificate_invalid"),
        ({"key_public": "bb"}, "links.certificate_key_mismatch"),
    ],
)
def test_a_certificate_that_belongs_to_the_key_is_named_where_there_is_one(facts: dict[str, Any], code: str) -> None:
    there = only(but(**facts, matching_certificate="/d/right.pem"))
    assert (there.code, there.command) == (code, "export X509_CERT_FILE=/d/right.pem")
    assert only(but(**facts)).command == FORGET


def test_a_binary_certificate_is_written_as_text() -> None:
    found = only(but(is_der=True))
    assert found.code == "doctor.certificate_is_der"
    assert found.command.endswith("> /d/device.pem.pem) && export X509_CERT_FILE=/d/device.pem.pem")


@pytest.mark.parametrize(
    ("code", "command"),
    [
        ("keys.file_exposed", "chmod 0600 /d/device.key"),
        ("keys.passphrase_wrong", "stty -echo; read -r PASS_PHRASE; stty echo; export PASS_PHRASE"),
        ("keys.file_invalid", FORGET),
    ],
)
def test_a_key_that_cannot_be_used_has_its_own_command(code: str, command: str) -> None:
    found = only(but(key_code=code, key_cause="why"))
    assert (found.code, found.cause, found.command) == (code, "why", command)


def test_a_key_that_belongs_to_the_certificate_is_named_where_there_is_one() -> None:
    assert only(but(key_code="keys.file_missing", matching_key="/d/k")).command == "export X509_KEY_FILE=/d/k"


def a_chip(public: str = "aa") -> ChipFacts:
    keys = (KeyFacts("other"), KeyFacts("sss:10000000", public=public))
    return ChipFacts(ChipSelection(), "/lib.so", FileFacts("/lib.so", exists=True), opened="SSS", keys=keys)


REFERENCE = but(key_code="keys.reference_key", object_id=0x10000000, reference_public="aa")


def test_a_reference_key_is_no_key_wherever_its_object_is() -> None:
    nowhere, here = only(REFERENCE), only(REFERENCE, (a_chip(),))
    assert "refers to object 0x10000000 of a chip; no checked chip has it" in nowhere.seen
    assert "refers to 'sss:10000000', which is in token 'SSS'" in here.seen
    assert {nowhere.command, here.command} == {FORGET}


def test_a_reference_key_of_another_chip_is_written_anew_from_this_one() -> None:
    found = only(REFERENCE, (a_chip(public="bb"),))
    assert found.code == "doctor.reference_key_of_another_chip"
    assert found.command == f"birthmark chip refkey 0x10000000 --out /d/device.key && {FORGET}"


@pytest.mark.parametrize("is_expired", [True, False])
def test_a_certificate_out_of_its_time_says_to_look_at_the_clock(*, is_expired: bool) -> None:
    found = only(but(leaf=replace(LEAF, is_expired=is_expired, is_early=not is_expired)))
    assert found.code == ("doctor.certificate_expired" if is_expired else "doctor.certificate_not_yet_valid")
    assert (found.command, "`date -u`" in found.advice) == (FORGET, True)


def test_an_expired_certificate_whose_ca_is_here_is_issued_anew_for_the_same_key() -> None:
    found = only(but(leaf=replace(LEAF, is_expired=True), ca="/my ca"))
    request, sign, move = found.command.split(" && ")
    assert request == "(set -C; openssl req -new -key /d/device.key -subj /CN=pump > /d/device.pem.csr)"
    assert sign == "birthmark ca sign /d/device.pem.csr --dir '/my ca' --out /d/device.pem.new"
    assert move == "mv --backup=t /d/device.pem.new /d/device.pem"


def test_a_ca_that_is_not_in_the_chain_is_added() -> None:
    found = only(but(issuer="/d/ca.pem"))
    assert (found.severity, found.command) == (FindingSeverity.WARNING, "cat /d/ca.pem >> /d/device.pem")


@pytest.mark.parametrize(("name", "is_wrong"), [("pump", False), ("PUMP", False), ("valve", True)])
def test_the_registration_id_is_the_common_name_in_any_letter_case(name: str, *, is_wrong: bool) -> None:
    setting = SourcedSetting(SettingSource.VARIABLE, "DPS_X509_REGISTRATION_ID", name)
    found = only(but(registration_id=setting))
    assert (found.code == "doctor.registration_id_mismatch") is is_wrong
    assert found.command == ("export DPS_X509_REGISTRATION_ID=pump" if is_wrong else "")
