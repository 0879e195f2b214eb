"""Each fix of each refusal works as it is typed: the refusal is provoked, its fix typed, and the action passes."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixes.scenario import Scenario
from fixes.scenarios import SCENARIOS
from fixes.scene import Scene, a_scene, commands_in, fix_shown

from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("server"), is_warm=False) as running:  # one looks for it among the processes
        yield running


@pytest.mark.parametrize(("code", "scenario"), SCENARIOS.items(), ids=SCENARIOS)
def test_the_fix_works_as_it_is_typed(server: RunningServer, tmp_path: Path, code: str, scenario: Scenario) -> None:
    if scenario.needs_root and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    with contextlib.ExitStack() as stack:
        if scenario.config:
            server = stack.enter_context(a_server(tmp_path, scenario.config))
        scene = a_scene(tmp_path, server)
        stack.enter_context(scene.closing)
        scenario.prepare(scene)
        refused = scene.type(scenario.act)
        assert refused.returncode != 0, refused.stdout
        follow(scenario, scene, scene.fix_of(code, refused))
        if not scenario.is_instead:
            again = scene.type(scenario.act)
            assert again.returncode == 0, f"{again.stdout}{again.stderr}"


def follow(scenario: Scenario, scene: Scene, fix: str) -> None:
    """Do what the fix says."""
    if scenario.apply is not None:
        scenario.apply(scene, fix)
        return
    commands = commands_in(fix)
    assert len(commands) > scenario.number, fix
    assert scene.server is not None
    place = next((n for n, command in enumerate(commands) if str(scene.server.data) in command), scenario.number)
    typed = None if scenario.stdin is None else (scene.directory / scenario.stdin).read_text()
    for command in commands if scenario.types_all else [commands[place]]:
        done = scene.type(command, typed)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    if scenario.leads_to is not None:
        (command, *_) = commands_in(fix_shown(done.stdout, scenario.leads_to))
        next_done = scene.type(command)
        assert next_done.returncode == 0, f"{command}\n{next_done.stdout}{next_done.stderr}"
