"""People at the console: a real Chromium, driven by Playwright, that notes whatever its pages complain of."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import requests
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from support.server.servers import RunningServer

PASSWORD = "four words by chance"
_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--font-render-hinting=none"]


@contextlib.contextmanager
def a_chromium() -> Iterator[Browser]:
    """Run Debian's Chromium without its windows, whose own pages cost as much again."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium-headless-shell", args=_OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visitor:
    """Somebody's browser, with all that its pages complained of."""

    context: BrowserContext
    url: str
    complaints: list[str] = field(default_factory=list)
    expected: set[str] = field(default_factory=set)
    """What may be complained of: statuses that a test asks for."""

    def page(self, path: str = "") -> Page:
        """Open a tab, at a path where one is given."""
        page = self.context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._complained(str(error)))
        if path:
            self.go(page, path)
        return page

    def go(self, page: Page, path: str) -> None:
        """Open a path, and wait until its script runs."""
        page.goto(f"{self.url}{path}")
        page.wait_for_load_state("load")

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._complained(message.text)

    def _complained(self, text: str) -> None:
        if not any(one in text for one in self.expected):
            self.complaints.append(text)


@dataclass
class Place:
    """A server, and the browser that people open its console with."""

    server: RunningServer
    browser: Browser
    more: list[str] = field(default_factory=list)
    """Pages that there are because of what is on record."""

    @property
    def url(self) -> str:
        return str(self.server.endpoints["health_url"]).rsplit("/", 1)[0]

    def asked(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the operator interface as whoever holds the data directory; quicker than a command."""
        answer = self.tried(method, path, body)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def tried(self, method: str, path: str, body: Any = None) -> requests.Response:
        """Ask the same, whatever is answered."""
        by = {"Authorization": f"Bearer {(self.server.data / 'operator.token').read_text().strip()}"}
        return requests.request(method, f"{self.url}/operator/v1{path}", json=body, headers=by, timeout=60)

    def link(self) -> str:
        """Return the address of a link that `birthmark console open` prints."""
        return str(json.loads(self.server.run("console", "open", "--json").stdout)["url"])

    @contextlib.contextmanager
    def visitor(self, **options: Any) -> Iterator[Visitor]:
        """Give somebody a browser in which nobody is signed in; its pages complain of nothing until the end."""
        context = self.browser.new_context(**{"locale": "en-GB", "timezone_id": "Europe/Berlin"} | options)
        visitor = Visitor(context, self.url)
        try:
            yield visitor
            assert not visitor.complaints, visitor.complaints
        finally:
            context.close()

    @contextlib.contextmanager
    def operator(self, **options: Any) -> Iterator[Visitor]:
        """Give whoever holds the data directory a browser, signed in by a link."""
        with self.visitor(**options) as visitor:
            path = self.asked("POST", "/console/open")["path"]
            self._signed_in(visitor, path)
            yield visitor

    @contextlib.contextmanager
    def person(self, name: str, role: str = "viewer", **options: Any) -> Iterator[Visitor]:
        """Put somebody on record, who accepts at a browser and is signed in there."""
        if name not in {one["name"] for one in self.asked("GET", "/people/users")["items"]}:
            self.asked("POST", "/people/users", {"name": name, "role": role})
        code = self.asked("POST", f"/people/users/{name}/invitation")["code"]
        with self.visitor(**options) as visitor:
            page = visitor.page("/invitation")
            page.fill("#code", code)
            page.fill("#password", PASSWORD)
            page.fill("#again", PASSWORD)
            page.get_by_role("button", name="Set the password").click()
            page.wait_for_url("**/")
            page.close()
            yield visitor

    def _signed_in(self, visitor: Visitor, path: str) -> None:
        if not visitor.context.pages and visitor.context.browser is not None:
            page = visitor.context.new_page()
            page.goto(f"{visitor.url}{path}")
            page.wait_for_url(f"{visitor.url}/")
            page.close()
