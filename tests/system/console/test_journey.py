"""A first day at the console, in a real Chromium: from the link on the machine to what two people do together."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from birthmark.clock_and_entropy import SystemClock
from support.console.consoles import PASSWORD, Place
from support.pki.pki_builders import a_device
from support.server.servers import a_server, warm_environment

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def place(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_server(tmp_path_factory.mktemp("journey")) as server:
        yield Place(server, chromium)


def typed(place: Place, command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Type a command as it was copied from a page, on the server's machine."""
    environment = warm_environment(BIRTHMARK_DATA=str(place.server.data), HOME=str(directory))
    words = shlex.split(command)
    return subprocess.run(
        words, cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_first_visit_by_the_link_and_a_second_person_invited(place: Place) -> None:
    with place.visitor() as first:
        page = first.page()
        page.goto(place.link())
        page.wait_for_url(f"{place.url}/")
        expect(page.get_by_text("No devices enrolled yet")).to_be_visible()
        page.get_by_role("link", name="Users").click()
        page.get_by_label("Name", exact=True).fill("anna")
        page.get_by_label("Role").select_option("operator")
        page.get_by_role("button", name="Invite").click()
        link = page.locator("code", has_text="/invitation#").inner_text()
        with place.visitor() as second:
            hers = second.page()
            hers.goto(f"{place.url}/invitation#{link.partition('#')[2]}")
            hers.fill("#password", PASSWORD)
            hers.fill("#again", PASSWORD)
            hers.get_by_role("button", name="Set the password").click()
            expect(hers.locator("nav .own")).to_contain_text("anna")
        page.get_by_role("link", name="Users").click()
        expect(page.get_by_role("link", name="anna")).to_be_visible()


def test_a_refusal_is_read_and_its_fix_done(place: Place, tmp_path: Path) -> None:
    """A board was exchanged: the page says what to type, and after that the device registers."""
    for name in ("before", "after"):
        held = a_device(None, "press-17", now=SystemClock().now())
        (tmp_path / f"{name}.pem").write_text(held.certificate.pem())
        (tmp_path / f"{name}.key").write_text(held.key_pem)
        (tmp_path / f"{name}.key").chmod(0o600)
    assert typed(place, "birthmark device enroll --cert before.pem", tmp_path).returncode == 0
    register = "birthmark device register --cert after.pem --key after.key"
    with place.person("bert", "operator") as visitor:
        page = visitor.page("/")
        refused = dict(place.server.environment) | {"HOME": str(tmp_path)}
        command = [*shlex.split(register)]
        assert subprocess.run(command, cwd=tmp_path, env=refused, capture_output=True, check=False).returncode != 0
        page.get_by_role("searchbox").fill("press-17")
        page.locator("#found a").first.click()
        page.wait_for_url("**/devices/press-17")
        expect(page.locator(".steps")).to_contain_text("refusal", timeout=10_000)
        fix = page.locator(".steps code").first.inner_text()
        done = typed(place, fix, tmp_path)
        assert done.returncode == 0, (fix, done.stderr)
        assert subprocess.run(command, cwd=tmp_path, env=refused, capture_output=True, check=False).returncode == 0
        expect(page.locator("#device")).to_contain_text("assigned", timeout=15_000)


def test_a_device_is_taken_back_after_one_saw_what_would_happen(place: Place) -> None:
    place.asked("POST", "/hubs/birthmark/devices", {"device_id": "lost-1"})
    with place.person("bert", "operator") as visitor:
        page = visitor.page("/devices/lost-1")
        page.get_by_role("link", name="Revoke …").click()
        expect(page.get_by_text("no changes yet")).to_be_visible()
        expect(page.get_by_text("would be revoked").first).to_be_visible()
        assert place.asked("GET", "/devices/lost-1")[0]["state"] == "enabled"
        page.get_by_role("button", name="Revoke this device").click()
        expect(page.get_by_text("Outcome")).to_be_visible()
        states = {part["state"] for part in place.asked("GET", "/devices/lost-1")}
        assert "shut out" in states, states


def test_the_root_is_exchanged_when_another_person_has_approved_it(place: Place) -> None:
    with place.person("one", "admin") as asks, place.person("two", "admin") as agrees:
        page = asks.page("/certificates/rollover")
        asks.expected.add("Failed to load resource")
        page.locator("button[value=start]").click()
        expect(page.get_by_role("alert")).to_contain_text("people.second_person_wanted")
        other = agrees.page("/approvals")
        expect(other.get_by_text("one requests approval by a second user")).to_be_visible()
        other.get_by_role("button", name="Approve").click()
        expect(other.locator(".said")).to_contain_text("Approved")
        page.goto(f"{place.url}/certificates/rollover")
        page.locator("button[value=start]").click()
        expect(page.locator("#beside")).to_contain_text("step 2 of 4")
        assert place.asked("GET", "/ca/rollover")["state"] == "both trusted, the old signs"


def test_devices_are_disabled_together_after_a_look(place: Place) -> None:
    for name in ("bulk-1", "bulk-2", "bulk-3"):
        place.asked("POST", "/hubs/birthmark/devices", {"device_id": name})
    place.asked("PATCH", "/hubs/birthmark/twins/bulk-1", {"tags": {"site": "oslo"}})
    with place.person("bert", "operator") as visitor:
        page = visitor.page("/devices?begin=bulk")
        buttons = [page.get_by_role("button", name=name) for name in ("Disable", "Enable", "Revoke")]
        for button in buttons:
            expect(button).to_be_disabled()
        expect(page.get_by_role("row", name="bulk-1")).to_contain_text("site=oslo")
        page.get_by_label("Select all on this page").check()
        expect(page.locator("input[name=device]:checked")).to_have_count(3)
        page.get_by_label("Select all on this page").uncheck()
        for name in ("bulk-1", "bulk-2"):
            page.get_by_role("row", name=name).get_by_role("checkbox").check()
        page.get_by_role("button", name="Disable").click()
        expect(page.get_by_text("would be disabled")).to_have_count(2)
        page.get_by_role("button", name="Disable these devices").click()
        expect(page.get_by_text("Outcome")).to_be_visible()
        listed = place.asked("GET", "/devices?begin=bulk&state=disabled")["items"]
        assert [one["name"] for one in listed] == ["bulk-1", "bulk-2"]


def test_of_two_who_change_one_twin_the_later_one_is_told(place: Place) -> None:
    place.asked("POST", "/hubs/birthmark/devices", {"device_id": "twin-1"})
    with place.person("bert", "operator") as one, place.person("carl", "operator") as two:
        pages = [visitor.page("/devices/twin-1") for visitor in (one, two)]
        two.expected.add("Failed to load resource")
        for page, value in zip(pages, (5, 6), strict=True):
            page.get_by_text("Change desired values").click()
            page.get_by_label("JSON merge patch: null removes a key, objects are merged").fill(
                f'{{"interval": {value}}}'
            )
        pages[0].get_by_role("button", name="Update").click()
        expect(pages[0].locator(".said")).to_contain_text("The desired state is updated")
        expect(pages[0].locator("section:has(h2:has-text('Twin'))")).to_contain_text("interval")
        pages[1].get_by_role("button", name="Update").click()
        expect(pages[1].get_by_role("alert")).to_contain_text("changed", timeout=10_000)
        twin = place.asked("GET", "/hubs/birthmark/twins/twin-1")
        assert twin["properties"]["desired"]["interval"] == 5
