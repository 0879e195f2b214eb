"""Which half of a story belongs to which: a name or an id decides before the time does."""

from typing import Any

from birthmark.cli.refusal_correlation import correlate_refusals

AT = "2026-01-01T12:00:0{}+00:00"


def told(code: str, second: int = 0, *, tracking_id: str = "", **facts: str) -> dict[str, Any]:
    known = {"tracking_id": tracking_id} if tracking_id else {}
    at = AT.format(second)
    return {"id": f"{code}-{second}", "at": at, "code": code, "message": f"{code} was said", "facts": facts | known}


def halves(server: list[dict[str, Any]], client: list[dict[str, Any]]) -> dict[str, str | None]:
    """Each story's code, and what the client in it said."""
    return {story["code"]: story.get("client", {}).get("message") for story in correlate_refusals(server, client)}


def test_a_name_both_have_goes_before_a_row_of_the_same_second_without_one() -> None:
    server = [told("ca.revoked"), told("ca.certificate_revoked", 1, device_id="pump-2")]
    client = [told("links.mqtt_refused", 1, device_id="pump-2")]
    assert halves(server, client) == {"ca.revoked": None, "ca.certificate_revoked": "links.mqtt_refused was said"}


def test_without_names_the_same_seconds_are_enough() -> None:
    assert halves([told("tls.server_not_trusted")], [told("links.server_untrusted", 1)]) == {
        "tls.server_not_trusted": "links.server_untrusted was said"
    }


def test_two_names_are_two_stories() -> None:
    server = [told("dps.not_enrolled", device_id="one")]
    assert halves(server, [told("links.mqtt_refused", device_id="two")]) == {
        "dps.not_enrolled": None,
        "links.mqtt_refused": None,
    }


def test_what_the_client_heard_goes_to_the_row_of_that_moment_and_not_to_a_later_one() -> None:
    server = [told("sas.expired", 8, device_id="pump"), told("dps.not_enrolled", 2, device_id="pump")]
    assert halves(server, [told("links.mqtt_refused", 2, device_id="pump")]) == {
        "sas.expired": None,
        "dps.not_enrolled": "links.mqtt_refused was said",
    }
