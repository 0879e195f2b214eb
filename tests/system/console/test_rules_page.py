"""*Rules* by HTTP: listed and shown for who may look, as text whatever messages say; switched, and sent again."""

from collections.abc import Iterator

import pytest

from support.console.people import ServerServices, said
from support.console.world import HOSTILE, rules_of
from support.server.servers import a_server

pytestmark = pytest.mark.system
ONE = "/rules/hot"


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerServices]:
    with a_server(tmp_path_factory.mktemp("rules")) as server:
        yield ServerServices(server)


@pytest.fixture(scope="module", autouse=True)
def _empty_first(rooms: ServerServices) -> None:
    """Look at the page while there is no rule, and have some then."""
    words = said(rooms.person("early").get("/rules").text)
    assert "No rules yet." in words
    assert "birthmark aws rule create --help" in words
    rules_of(rooms.server, rooms.asked)


def test_rules_are_listed_with_how_they_stand(rooms: ServerServices) -> None:
    words = said(rooms.person("anna").get("/rules").text)
    for text in ("hot", "has dead letters", "presses/+", "quiet", "disabled"):
        assert text in words, text


def test_a_rule_shows_what_became_of_its_messages_as_text(rooms: ServerServices) -> None:
    page = rooms.person("berta").get(ONE).text
    assert HOSTILE[0] not in page
    words = said(page)
    for text in ("4 messages were selected", "republish", "s3", "Dead letters", "presses/3", "temperature > 80"):
        assert text in words, text
    assert page.count("<svg") == 3  # of which the style sheet shows the one that fits
    assert 'hx-trigger="every 2s"' in page


def test_a_rule_is_switched_and_sends_again_by_its_page(rooms: ServerServices) -> None:
    dora = rooms.person("dora", "admin")
    for deed, told, is_on in (("disable", "The rule is disabled", False), ("enable", "The rule is enabled", True)):
        page = dora.submit(ONE, ONE, deed=deed)
        assert told in said(dora.get(page.headers["location"]).text)
        assert rooms.asked("GET", "/aws/rules/hot")["enabled"] is is_on
    page = dora.submit(ONE, ONE, deed="replay")
    assert "dead letters are being resent" in said(dora.get(page.headers["location"]).text)


def test_whoever_may_only_look_is_offered_nothing_to_do(rooms: ServerServices) -> None:
    emil = rooms.person("emil")
    page = emil.get("/rules/quiet")
    assert page.status_code == 200
    assert "Activation" not in page.text
    token = emil.fields("/", "/signout")["csrf"]
    assert emil.post("/rules/quiet", {"deed": "enable", "csrf": token}).status_code == 403
    assert rooms.asked("GET", "/aws/rules/quiet")["enabled"] is False


def test_whoever_has_no_role_at_aws_is_told_whose_they_are(rooms: ServerServices) -> None:
    rooms.asked("POST", "/people/users", {"name": "franz", "role": "operator", "place": "hub/birthmark"})
    franz = rooms.invited("franz")
    assert "Only users with a role at AWS can view rules." in said(franz.get("/rules").text)
    assert franz.get(ONE).status_code == 403
