"""People at the console of a server, by HTTP alone: enrolled, signed in, with what their pages say."""

import base64
import re
from html import unescape
from typing import Any

import requests

from support.console.browsers import Browser
from support.pki.pki_builders import a_csr
from support.server.servers import RunningServer

PASSWORD = "four words by chance"


class ServerServices:
    """A server with its console."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.url = str(server.endpoints["health_url"]).rsplit("/", 1)[0]

    def asked(self, method: str, path: str, body: Any = None) -> Any:
        """Ask as whoever holds the data directory."""
        by = {"Authorization": f"Bearer {(self.server.data / 'operator.token').read_text().strip()}"}
        answer = requests.request(method, f"{self.url}/operator/v1{path}", json=body, headers=by, timeout=60)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def person(self, name: str, role: str = "viewer") -> Browser:
        """Put somebody on record, who accepts at a browser and is signed in there."""
        self.asked("POST", "/people/users", {"name": name, "role": role})
        return self.invited(name)

    def invited(self, name: str) -> Browser:
        """Let somebody who is on record accept an invitation."""
        code = self.asked("POST", f"/people/users/{name}/invitation")["code"]
        browser = Browser(self.url)
        done = browser.submit("/invitation", code=code, password=PASSWORD, again=PASSWORD)
        assert done.status_code == 303, done.text
        return browser

    def issued(self, name: str) -> str:
        """Let a device have a certificate, and return its thumbprint."""
        answer = self.asked_by_est(name)
        assert answer.ok, answer.text
        return str(self.asked("GET", f"/certificates?subject={name}")["items"][0]["thumbprint"])

    def asked_by_est(self, name: str) -> requests.Response:
        """Ask for a certificate, as a device with a token does."""
        user = self.asked("POST", "/est/tokens", {"device_id": name})
        return requests.post(
            self.server.endpoints["est"]["url"] + "/simpleenroll",
            data=base64.b64encode(a_csr(name)),
            headers={"Content-Type": "application/pkcs10"},
            auth=(user["name"], user["password"]),
            verify=str(self.server.data / "trust.pem"),
            timeout=60,
        )


def said(page: str) -> str:
    """Return the words of a page."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))
