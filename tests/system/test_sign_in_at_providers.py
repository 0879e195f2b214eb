"""Sign-in by OpenID Connect, at real providers: who is let in as whom, and what strangers get of it."""

import contextlib
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from support.console.browsers import Browser
from support.console.oidc_world import providers, signed_in_at
from support.server.servers import RunningServer, a_server, free_address

pytestmark = pytest.mark.system
_TO = re.compile(r'content="0;url=([^"]+)"')


class House:
    """A server that knows two providers."""

    def __init__(self, server: RunningServer, issuers: list[str]) -> None:
        self.server, self.issuers = server, issuers
        self.url = f"https://{server.address}:9443"

    def browser(self) -> Browser:
        return Browser(self.url, self.server.data / "trust.pem")

    def left(self, browser: Browser, name: str = "plant", page: str = "/signin", **typed: str) -> str:
        """Choose a provider on a page, and return where that leads."""
        left = browser.post(f"/signin/with/{name}", browser.fields(page) | typed)
        found = _TO.search(left.text)
        assert found is not None, left.text
        return unescape(found[1])

    def back(
        self, browser: Browser, who: str, name: str = "plant", page: str = "/signin", **typed: str
    ) -> requests.Response:
        """Sign in at a provider, and come back."""
        return browser.get(signed_in_at(self.left(browser, name, page, **typed), who, self.url))

    def invited(self, name: str) -> str:
        self.asked("POST", "/people/users", {"name": name, "role": "viewer"})
        return str(self.asked("POST", f"/people/users/{name}/invitation")["code"])

    def asked(self, method: str, path: str, body: object = None) -> dict[str, object]:
        url = self.server.endpoints["health_url"].rsplit("/", 1)[0]
        by = {"Authorization": f"Bearer {(self.server.data / 'operator.token').read_text().strip()}"}
        answer = requests.request(method, f"{url}/operator/v1{path}", json=body, headers=by, timeout=30)  # type: ignore[arg-type]
        assert answer.ok, answer.text
        return dict(answer.json()) if answer.content else {}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory, address = tmp_path_factory.mktemp("house"), free_address()
    back = [f"https://{address}:9443/signin/with/{name}/callback" for name in ("plant", "other")]
    with contextlib.ExitStack() as stack:
        issuers = stack.enter_context(providers(*back))
        secret = directory / "secret"
        secret.write_text("a secret of the test\n")
        client = f'client_id = "birthmark"\nclient_secret_file = "{secret}"\n'
        config = (
            f'[outbound]\nallow = ["127.0.0.1"]\n'
            f'[oidc.plant]\nissuer = "{issuers[0]}"\n{client}title = "Plant"\n'
            f'claim = "email"\ndomains = ["example.com"]\nroles = {{ operators = "operator at hub/birthmark" }}\n'
            f'[oidc.other]\nissuer = "{issuers[1]}"\n{client}'
        )
        yield House(stack.enter_context(a_server(directory, config, address=address)), issuers)


def test_the_page_of_sign_in_names_the_providers_and_a_refusal_leads_back_to_it(house: House) -> None:
    browser = house.browser()
    for page in ("/signin", "/invitation"):
        assert "Sign in with Plant</button>" in browser.get(page).text
    refused = browser.post("/signin", browser.fields("/signin") | {"csrf": "x"})
    assert '<a href="/">Back to sign-in</a>' in refused.text
    assert "`" not in refused.text  # what is between backticks is a command, and drawn as one


def test_who_is_on_record_signs_in_by_a_verified_address(house: House) -> None:
    house.invited("anna")
    browser = house.browser()
    done = house.back(browser, "anna", page="/signin?next=/device")
    assert (done.status_code, done.headers["location"]) == (303, "/device"), done.text
    assert browser.operator("GET", "/people/me").json()["user"] == "anna"
    assert house.back(house.browser(), "anna").status_code == 303  # by the link
    house.invited("unverified")
    assert house.back(house.browser(), "unverified").status_code == 403


def test_who_is_not_on_record_is_let_in_where_the_configuration_gives_the_group_a_role(house: House) -> None:
    refused = house.back(house.browser(), "somebody")
    assert refused.status_code == 403
    assert "not registered on this server" in refused.text
    browser = house.browser()
    assert house.back(browser, "op-1").status_code == 303
    assert browser.operator("GET", "/people/me").json()["roles"] == [{"role": "operator", "place": "hub/birthmark"}]


def test_an_invitation_links_the_account_that_its_owner_signs_in_with_and_no_other(house: House) -> None:
    code = house.invited("bert")
    browser = house.browser()
    assert house.back(browser, "some-account", "other", "/invitation", code=code).status_code == 303
    assert browser.operator("GET", "/people/me").json()["user"] == "bert"
    assert house.back(house.browser(), "some-account", "other").status_code == 303
    assert house.back(house.browser(), "another-account", "other").status_code == 403
    again = house.back(house.browser(), "another-account", "other", "/invitation", code=code)
    assert again.status_code == 401  # it is used up
    other = house.invited("carl")  # an account is one user's
    assert house.back(house.browser(), "some-account", "other", "/invitation", code=other).status_code == 403


# Mix-up of OIDC providers: the answer of one is brought to the address of the other.
def test_an_answer_of_one_provider_is_none_of_the_others(house: House) -> None:
    house.invited("dora")
    browser = house.browser()
    answer = signed_in_at(house.left(browser, "plant"), "dora", house.url)
    mixed = browser.get(answer.replace("/with/plant/", "/with/other/"))
    assert mixed.status_code == 401
    wrong = parse_qs(urlsplit(answer).query)["iss"][0]
    assert wrong == house.issuers[0]
    swapped = answer.replace(f"%3A{urlsplit(wrong).port}", f"%3A{urlsplit(house.issuers[1]).port}")
    assert browser.get(swapped).status_code == 401
    without = re.sub(r"&iss=[^&]*", "", answer)
    assert browser.get(without).status_code == 401
    assert not browser.is_signed_in()


# Login CSRF: the victim's browser is led to an answer that the attacker got.
def test_an_answer_of_another_browser_and_one_that_was_used_sign_nobody_in(house: House) -> None:
    house.invited("emil")
    attacker, victim = house.browser(), house.browser()
    answer = signed_in_at(house.left(attacker), "emil", house.url)
    assert victim.get(answer).status_code == 401
    house.left(victim)
    assert victim.get(answer).status_code == 401
    assert attacker.get(answer).status_code == 303
    assert house.browser().get(answer).status_code == 401
    assert not victim.is_signed_in()


# Open redirect, by the page that leads to a provider.
def test_a_provider_sends_nobody_elsewhere(house: House) -> None:
    house.invited("fred")
    browser = house.browser()
    url = house.left(browser, next="https://evil.example/")
    assert browser.get(signed_in_at(url, "fred", house.url)).headers["location"] == "/"
    assert browser.get("/signin/with/plant").status_code == 405
    assert browser.post("/signin/with/nowhere", browser.fields("/password") | {"csrf": "x"}).status_code == 403


# A token in a log.
def test_what_went_there_and_back_is_in_no_log(house: House) -> None:
    house.invited("gina")
    browser = house.browser()
    answer = signed_in_at(house.left(browser), "gina", house.url)
    browser.get(answer)
    told = house.server.log()
    for name in ("code", "state"):
        assert parse_qs(urlsplit(answer).query)[name][0] not in told


def test_the_session_of_a_removed_user_ends_and_the_account_is_nobodys(house: House, tmp_path: Path) -> None:
    house.invited("hans")
    browser = house.browser()
    house.back(browser, "hans")
    house.asked("DELETE", "/people/users/hans")
    assert browser.operator("GET", "/people/me").status_code == 401
    assert house.back(house.browser(), "hans").status_code == 403
