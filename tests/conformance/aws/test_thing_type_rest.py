"""A thing type is deleted five minutes after it was deprecated, by boto3 at a server whose clock goes on meanwhile."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scaled import for_one
from servers import RunningServer, free_address

pytestmark = pytest.mark.system


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """Run a server that is three minutes behind, as far as a signature may be."""
    running = RunningServer(tmp_path / "data", free_address(), clock="-180s").start()
    try:
        yield running
    finally:
        running.stop()


@for_one
def test_a_deprecated_thing_type_is_deleted_after_its_rest(server: RunningServer, client: Callable[..., Any]) -> None:
    iot = client()
    iot.create_thing_type(thingTypeName="old")
    iot.deprecate_thing_type(thingTypeName="old")
    with pytest.raises(iot.exceptions.InvalidRequestException):
        iot.delete_thing_type(thingTypeName="old")
    server.stop()
    server.clock = "+180s"
    server.start()
    iot = client()
    iot.delete_thing_type(thingTypeName="old")
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.describe_thing_type(thingTypeName="old")
