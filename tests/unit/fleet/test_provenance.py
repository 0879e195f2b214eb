"""Which links hold, from the list to the latest certificate."""

from typing import Any

from birthmark.fleet.provenance import Link, is_about, links_of_list, links_of_server
from birthmark.manifests.errors import SignatureBrokenError
from birthmark.manifests.model import Entry
from fakes import NOON

FACTORY, FIRST, SECOND, OTHER = ("aa" * 32, "bb" * 32, "cc" * 32, "dd" * 32)


def a_row(action: str, **detail: str) -> dict[str, Any]:
    row = {"chain": "main", "seq": 7, "at": "2026-06-01T12:00:00+00:00", "actor": "operator", "subject": "Pump-1"}
    return row | {"action": action, "detail": detail}


def a_certificate(thumbprint: str, shown: str | None, profile: str = "device") -> dict[str, Any]:
    row = {"device": "pump-1", "profile": profile, "thumbprint": thumbprint, "shown": shown, "revoked": None}
    return row | {"not_after": f"2026-06-{thumbprint[:1]}", "requested_by": "est_user:pump"}


def told(links: list[Link]) -> list[tuple[str, str]]:
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


def an_entry(board: str, device: str) -> Entry:
    return Entry(board, "chip", "part", None, NOON, "north", None, device, None, ("0",))


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
