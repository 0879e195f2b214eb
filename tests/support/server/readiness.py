"""What `/readyz` says of a running server."""

import json
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Any

from support.server.servers import RunningServer

ALL_THERE = {"ready": True, "database": "ready", "listeners": "ready", "bus": "ready", "hold": "ready"}
ALL_THERE |= {"certificate": "ready"}
DATABASE_AWAY = ALL_THERE | {"ready": False, "database": "away", "hold": "away"}


def readiness(server: RunningServer) -> tuple[int, Any]:
    url = server.endpoints["health_url"].replace("/healthz", "/readyz")
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def until_ready(server: RunningServer, wanted: tuple[int, Any] = (200, ALL_THERE)) -> None:
    deadline = time.monotonic() + 20
    while (found := readiness(server)) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def until_workers_are_ready(server: RunningServer) -> None:
    """Return when every worker is ready and reaches the others, and none is to be started anew."""
    deadline = time.monotonic() + 60
    while (found := readiness(server))[0] != HTTPStatus.OK or not _are_whole(found[1]):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def _are_whole(told: dict[str, Any]) -> bool:
    return {told.get(part, "ready") for part in ("bus", "workers")} == {"ready"}
