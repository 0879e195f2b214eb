"""Readiness names each part; one that is away is enough for 503."""

import json
from unittest.mock import MagicMock

import pytest

from birthmark.server.mqtt_and_http_dispatch import Applications
from support.fakes import FakeClock, SeededEntropy
from support.server.asgi import request

WHOLE: dict[str, bool | str] = {"database": True, "listeners": True, "bus": True}


async def readiness(there: dict[str, bool | str]) -> tuple[int, dict[str, object]]:
    rooms = MagicMock()

    async def is_reachable() -> bool:
        return bool(there["database"])

    rooms.database.is_reachable = is_reachable
    settings = MagicMock(health_metrics=False)
    settings.bounds().mqtt_connect_s = 10.0
    doors = Applications(rooms, settings, FakeClock(), SeededEntropy())
    rest = {name: is_there for name, is_there in there.items() if name != "database"}
    answer = await request(
        doors.health(lambda: rest), "GET", "http://localhost:8080/readyz", headers={"host": "localhost"}
    )
    return answer.status, json.loads(answer.text)


async def test_everything_is_there() -> None:
    assert await readiness(WHOLE) == (200, {"ready": True, **dict.fromkeys(WHOLE, "ready")})


@pytest.mark.parametrize("part", WHOLE)
async def test_a_part_that_is_away_is_named(part: str) -> None:
    status, told = await readiness(WHOLE | {part: False})
    assert (status, told["ready"]) == (503, False)
    assert [name for name, word in told.items() if word == "away"] == [part]


async def test_a_part_that_is_not_whole_and_keeps_nobody_from_being_served_says_so() -> None:
    status, told = await readiness(WHOLE | {"bus": "alone"})
    assert (status, told["ready"], told["bus"]) == (200, True, "alone")
