"""What a running agent says: nobody has to take it."""

import io
import logging
import sys
from pathlib import Path

import pytest

from birthmark.agent.connection_loop import Loop
from birthmark.agent.control_socket import ControlCommand, ControlServer
from birthmark.cli.low_memory_agent_process import EventPrinter
from support.agent.world import World


class Refusing(io.StringIO):
    """An output on a full disk, until there is room."""

    is_full = True

    def flush(self) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("is_closed", [False, True])
async def test_an_output_that_takes_nothing_does_not_end_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_closed: bool
) -> None:
    output, orders = Refusing(), ControlServer()
    if is_closed:
        output.is_full = False
        output.close()
    monkeypatch.setattr(sys, "stdout", output)
    teller = EventPrinter(as_json=True)

    def tell(event: str, facts: dict[str, object]) -> None:
        teller(event, facts)
        orders.give(ControlCommand.STOP)

    world = World(tmp_path)
    await Loop(world.agent(), orders, tell).run()
    assert len(world.connections) == 1


def test_an_output_that_takes_nothing_is_logged_once_for_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    output = Refusing()
    monkeypatch.setattr(sys, "stdout", output)
    teller = EventPrinter(as_json=False)
    with caplog.at_level(logging.ERROR):
        for is_full in (True, True, False, False, True):
            output.is_full = is_full
            teller("connected", {})
    assert [record.message for record in caplog.records] == [
        "agent.output_lost: [Errno 28] No space left on device"
    ] * 2
