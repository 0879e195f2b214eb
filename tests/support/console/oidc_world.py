"""Two real providers of OpenID Connect on loopback, and what a person does at their pages."""

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import requests

_NODE = Path(__file__).parents[2] / "node"
_ACTION = re.compile(r'<form[^>]*action="([^"]+)"')


@contextlib.contextmanager
def providers(*redirects: str) -> Iterator[list[str]]:
    """Run them, and return their issuers."""
    command = ["node", "oidc_provider.mjs", *redirects]
    with subprocess.Popen(command, cwd=_NODE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.kill()


def signed_in_at(url: str, name: str, back: str) -> str:
    """Sign in at a provider by this name, agree, and return the address by which it sends the browser back."""
    http = requests.Session()
    http.trust_env = False
    answer = http.get(url, allow_redirects=False, timeout=10)
    for _ in range(12):
        if (to := answer.headers.get("location")) is not None:
            url = urljoin(url, to)
            if url.startswith(back):
                return url
            answer = http.get(url, allow_redirects=False, timeout=10)
            continue
        action = _ACTION.search(answer.text)
        assert action is not None, answer.text
        form = (
            {"prompt": "login", "login": name, "password": "x"}
            if 'name="login"' in answer.text
            else {"prompt": "consent"}
        )
        url = urljoin(url, unescape(action[1]))
        answer = http.post(url, data=form, allow_redirects=False, timeout=10)
    raise AssertionError(f"{url} leads nowhere")
