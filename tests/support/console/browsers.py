"""What a browser does at the pages of a server: keeps cookies, says where a request comes from, sends forms."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import requests

_FORM = re.compile(r'<form method="post" action="([^"]*)"[^>]*>(.*?)</form>', re.DOTALL)
_INPUT = re.compile(r'<input[^>]*? name="([^"]*)"[^>]*? value="([^"]*)"')
SAME = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}


class Browser:
    """Somebody's browser, at one server."""

    def __init__(self, url: str, roots: Path | str | bool = True) -> None:
        self.url = url.rstrip("/")
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.verify = str(roots) if isinstance(roots, Path) else roots

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.http.get(self._at(path), headers=headers, timeout=30, allow_redirects=False)

    def post(self, path: str, fields: dict[str, str], **headers: str) -> requests.Response:
        """Send a form as a page of this origin does, where `headers` do not say otherwise."""
        sent = {name: value for name, value in (SAME | headers).items() if value}
        return self.http.post(self._at(path), data=fields, headers=sent, timeout=30, allow_redirects=False)

    def fields(self, page: str, action: str | None = None) -> dict[str, str]:
        """Return what a form of a page sends before somebody types."""
        text = self.get(page).text
        found = {unescape(at): dict(_INPUT.findall(inner)) for at, inner in _FORM.findall(text)}
        return {name: unescape(value) for name, value in found[action or page.partition("?")[0]].items()}

    def submit(self, page: str, action: str | None = None, **typed: str) -> requests.Response:
        """Open a page, type into its form, and send it."""
        return self.post(action or page.partition("?")[0], self.fields(page, action) | typed)

    def sign_in(self, name: str, password: str, page: str = "/signin") -> requests.Response:
        return self.submit(page, name=name, password=password)

    def is_signed_in(self) -> bool:
        return self.get("/").status_code == 200

    def operator(self, method: str, path: str, csrf: bool = True, **more: Any) -> requests.Response:
        """Ask the operator interface by the cookie."""
        headers = dict(SAME) if method != "GET" else {"Sec-Fetch-Site": "same-origin"}
        if method != "GET" and csrf:
            headers["X-CSRF-Token"] = self.fields("/", "/signout")["csrf"]
        headers |= more.pop("headers", {})
        at = self._at(f"/operator/v1{path}")
        return self.http.request(method, at, headers=headers, timeout=30, allow_redirects=False, **more)

    def _at(self, path: str) -> str:
        return path if path.startswith("http") else f"{self.url}{path}"
