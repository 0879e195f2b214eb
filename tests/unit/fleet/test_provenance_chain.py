"""Which links hold, from the list to the latest certificate."""

from dataclasses import replace
from typing import Any

import pytest

from birthmark.fleet.provenance_chain import ProvenanceLink, is_about, links_of_list, links_of_server
from birthmark.manifests.bundle.intake_records import BundlePosition, Intake
from birthmark.manifests.errors import SignatureBrokenError
from birthmark.manifests.manifest_entry import ManifestEntry
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_device

CA = a_ca("Maker")
DEVICE = a_device(CA, "pump-1")
FACTORY, FIRST, SECOND, OTHER = ("aa" * 32, "bb" * 32, "cc" * 32, "dd" * 32)


def a_row(action: str, **detail: str) -> dict[str, Any]:
    row = {"chain": "main", "seq": 7, "at": "2026-06-01T12:00:00+00:00", "actor": "operator", "subject": "Pump-1"}
    return row | {"action": action, "detail": detail}


def a_certificate(thumbprint: str, shown: str | None, profile: str = "device") -> dict[str, Any]:
    row = {"device": "pump-1", "profile": profile, "thumbprint": thumbprint, "shown": shown, "revoked": None}
    return row | {"not_after": f"2026-06-{thumbprint[:1]}", "requested_by": "est_user:pump"}


def told(links: list[ProvenanceLink]) -> list[tuple[str, str]]:
    return [(link.link, link.state.value) for link in links]


def test_renewals_are_followed_from_certificate_to_certificate() -> None:
    certificates = [a_certificate(SECOND, FIRST), a_certificate(FIRST, FACTORY)]
    assert told(links_of_server("pump-1", FACTORY, [], certificates)) == [("renewal", "holds")] * 2


def test_a_renewal_of_what_is_not_tied_is_not_tied() -> None:
    certificates = [a_certificate(SECOND, OTHER), a_certificate(FIRST, None)]
    assert told(links_of_server("pump-1", FACTORY, [], certificates)) == [("renewal", "broken")] * 2


def test_two_certificates_that_name_each_other_are_tied_to_nothing() -> None:
    certificates = [a_certificate(SECOND, FIRST), a_certificate(FIRST, SECOND)]
    assert told(links_of_server("pump-1", FACTORY, [], certificates)) == [("renewal", "broken")] * 2


def test_a_registration_counts_with_any_certificate_of_the_chain() -> None:
    rows = [a_row("dps.register", thumbprint=one, hub="h") for one in (FACTORY, FIRST, OTHER)]
    found = told(links_of_server("pump-1", FACTORY, rows, [a_certificate(FIRST, FACTORY)]))
    assert found[:3] == [("registration", "holds"), ("registration", "holds"), ("registration", "broken")]


def test_a_thing_with_another_certificate_is_a_broken_link() -> None:
    rows = [a_row("awsiot.thing_attach", certificate_id=one) for one in (FACTORY, OTHER)]
    assert told(links_of_server("pump-1", FACTORY, rows, [])) == [("enrollment", "holds"), ("enrollment", "broken")]


def test_an_enrollment_counts_with_the_chain_s_certificates_alone() -> None:
    shown: tuple[list[str], ...] = ([FACTORY], [FACTORY, FIRST], [OTHER], [FACTORY, OTHER], [])
    rows = [a_row("dps.enrollment_put") | {"detail": {"kind": "individual", "thumbprints": one}} for one in shown]
    found = told(links_of_server("pump-1", FACTORY, rows, [a_certificate(FIRST, FACTORY)]))
    assert [state for _, state in found[:5]] == ["holds", "holds", "broken", "broken", "broken"]


def test_an_older_row_that_does_not_tell_the_certificate_is_not_checked_against_a_list() -> None:
    rows = [a_row("dps.enrollment_put", kind="individual", scope="0ne1")]
    assert told(links_of_server("pump-1", FACTORY, rows, [])) == [("enrollment", "not checked")]
    assert told(links_of_server("pump-1", None, rows, [])) == [("enrollment", "holds")]


def an_entry(board: str, device: str) -> ManifestEntry:
    return ManifestEntry(board, "chip", "part", None, NOON, "north", None, device, None, ("0",))


def with_certificate(**more: Any) -> ManifestEntry:
    """An entry of a list with a certificate, and with more of what a list may say."""
    return replace(an_entry("B-1", "pump-1"), device_der=DEVICE.certificate.der, **more)


def test_an_entry_is_found_by_its_name_its_board_or_its_thumbprint_in_any_letter_case() -> None:
    entry = with_certificate()
    for wanted in ("PUMP-1", "b-1", DEVICE.certificate.thumbprint.hex().upper()):
        assert is_about(entry, wanted)
    assert not is_about(entry, "pump-2")


def test_a_refused_entry_is_about_the_board_that_it_names() -> None:
    wrong = SignatureBrokenError(signer="north", unique_id="B-1")
    assert is_about(wrong, "b-1")
    assert not is_about(wrong, "b-2")


def test_a_certificate_whose_chain_was_followed_holds_and_another_is_not_checked() -> None:
    links = links_of_list([with_certificate(issuer_der=CA.certificate.der)])
    assert told(links) == [("manifest", "holds"), ("proof", "not checked"), ("certificate", "holds")]
    assert links[2].by == f"chain to {CA.certificate.issuer_text}"
    assert links[2].what == f"thumbprint {DEVICE.certificate.thumbprint.hex()}"
    assert told(links_of_list([with_certificate()]))[2] == ("certificate", "not checked")


def test_a_chip_without_a_certificate_is_said_to_be_not_checked() -> None:
    assert told(links_of_list([an_entry("B-1", "pump-1")]))[2] == ("certificate", "not checked")


@pytest.mark.parametrize(("root", "state"), [("Maker Root", "holds"), (None, "not checked")])
def test_a_proof_of_the_chip_names_who_bound_it_to_which_board(root: str | None, state: str) -> None:
    intake = Intake("B-7", "ann", "north", NOON, BundlePosition("aa", 1), None, root)
    _, proof, certificate = links_of_list([with_certificate(intake=intake)])
    assert (proof.state.value, proof.what) == ("holds", f"chip on board B-7, before ann, at {NOON.isoformat()}")
    assert certificate.state.value == state


def test_two_entries_that_are_called_so_are_a_broken_link() -> None:
    entries = [an_entry("pump-1", "chip-b"), an_entry("BOARD-1", "Pump-1")]
    assert all(is_about(one, "PUMP-1") for one in entries)
    links = links_of_list(entries)
    assert told(links)[0] == ("manifest", "broken")
    assert "pump-1 (chip-b), BOARD-1 (Pump-1)" in links[0].what


def test_rows_of_another_device_are_left_out() -> None:
    rows = [a_row("dps.register", thumbprint=OTHER) | {"subject": "pump-2"}]
    assert links_of_server("pump-1", FACTORY, rows, []) == []


def test_what_another_ca_issued_is_no_renewal() -> None:
    assert links_of_server("pump-1", FACTORY, [], [a_certificate(FACTORY, None, "of another CA")]) == []


def test_a_refused_entry_is_a_broken_link_and_none_a_missing_one() -> None:
    wrong = SignatureBrokenError(signer="north", unique_id="B-1")
    assert told(links_of_list([wrong])) == [("manifest", "broken")]
    assert told(links_of_list([])) == [("manifest", "missing")]
