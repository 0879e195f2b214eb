"""*Templates at AWS* by HTTP: listed for who may look, as text whatever they say, and empty with the first command."""

from collections.abc import Iterator

import pytest

from support.console.people import ServerServices, said
from support.server.servers import a_server

pytestmark = pytest.mark.system
PAGE = "/certificates/templates"
HOOK = "arn:aws:lambda:us-east-1:000000000000:function:plant"


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerServices]:
    with a_server(tmp_path_factory.mktemp("templates")) as server:
        yield ServerServices(server)


def made(rooms: ServerServices, name: str, **more: str | None) -> None:
    example = rooms.server.run("aws", "template", "example").stdout
    rooms.asked("POST", "/aws/templates", {"name": name, "body": example, **more})


def test_where_no_template_is_the_page_names_the_command_that_prints_one(rooms: ServerServices) -> None:
    page = rooms.person("anna").get(PAGE)
    assert page.status_code == 200
    assert "No templates yet." in said(page.text)
    assert "birthmark aws template example" in said(page.text)


def test_templates_are_shown_with_what_they_do_and_are_text(rooms: ServerServices) -> None:
    berta = rooms.person("berta")
    made(rooms, "plain")
    made(rooms, "hooked", hook=HOOK, description="<b>of hall 7</b>")
    page = berta.get(PAGE).text
    assert "<b>of hall 7</b>" not in page
    words = said(page)
    for text in ("plain", "hooked", HOOK[-20:], "<b>of hall 7</b>", "claim certificate", "FLEET_PROVISIONING"):
        assert text in words, text
    assert words.count("enabled") >= 2
    assert berta.get(f"{PAGE}?after=zzz").status_code == 200


def test_whoever_has_no_role_at_aws_is_told_whose_they_are(rooms: ServerServices) -> None:
    rooms.asked("POST", "/people/users", {"name": "carl", "role": "operator", "place": "hub/birthmark"})
    carl = rooms.invited("carl")
    page = carl.get(PAGE)
    assert page.status_code == 200
    assert "Only users with a role at AWS can view templates." in said(page.text)
    assert "plain" not in said(page.text)


def test_the_page_speaks_japanese_and_leads_to_sign_in(rooms: ServerServices) -> None:
    dora = rooms.person("dora")
    assert "プロビジョニングテンプレート" in dora.get(PAGE, **{"Accept-Language": "ja"}).text
    assert dora.post(PAGE, {}).status_code == 405
    dora.http.cookies.clear()
    assert dora.get(PAGE).headers["location"] == "/signin?next=/certificates/templates"
