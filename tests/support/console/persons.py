"""Somebody at a machine of his own, who operates a server by the commands."""

import http.client
import json
import ssl
import subprocess
from pathlib import Path
from typing import Any

import warm
from support.server.servers import clean_environment


class Person:
    """Somebody at a machine of his own: a home, and no data directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()

    def attempt(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [warm.programs() / "birthmark", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            env=clean_environment(HOME=str(self.home)) | environment,
        )

    def run(self, *arguments: str) -> str:
        done = self.attempt(*arguments)
        assert done.returncode == 0, f"birthmark {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}"
        return done.stdout

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run(*arguments, "--json").splitlines()]

    def statuses(self, path: str, count: int) -> set[int]:
        """Ask by so many connections, which each worker gets some of; return what was answered."""
        kept = json.loads((self.home / ".config/birthmark/login.json").read_text())
        host, _, port = kept["url"].removeprefix("https://").partition(":")
        context = ssl.create_default_context(cadata=kept["roots"])
        found: set[int] = set()
        for _ in range(count):
            connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=30)
            connection.request("GET", f"/operator/v1{path}", headers={"Authorization": f"Bearer {kept['token']}"})
            found.add(connection.getresponse().status)
            connection.close()
        return found

    def refused(self, *arguments: str) -> str:
        """Return the code of what a command is refused for."""
        done = self.attempt(*arguments, "--json")
        assert done.returncode != 0, done.stdout
        told = json.loads((done.stderr or done.stdout).splitlines()[-1])
        return str(told.get("error") or told)
