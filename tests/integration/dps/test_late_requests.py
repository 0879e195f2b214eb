"""Who asks is looked at when the whole request is there."""

from typing import Any, cast

import pytest

from birthmark.dps import http
from support.azure.dps_world import a_dps
from support.fakes import FakeClock
from support.floods.whole_requests import answering_early

pytestmark = pytest.mark.integration


async def test_who_asks_is_looked_at_when_the_whole_request_is_there(database_url: str) -> None:
    async with a_dps(database_url) as world:
        record = cast("Any", lambda _error, _request: "")
        service = http.service_routes(world.instances, world.enrollments, world.registrations, record, FakeClock())
        devices = http.device_routes(world.registrations, record, FakeClock())
        assert await answering_early([*service, *devices]) == []
