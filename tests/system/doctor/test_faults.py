"""Each fault that is seeded here is named by `birthmark doctor`, with a fix that works as it is typed."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from doctor.agent_faults import AGENT
from doctor.chip_faults import CHIPS
from doctor.environment_faults import ENVIRONMENT
from doctor.fault import Fault, diagnosed, mended
from doctor.identity_faults import IDENTITY
from doctor.network_faults import NETWORK
from doctor.wiring_faults import WIRING
from fixes.scene import Scene, a_scene

from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system

FAULTS: Mapping[str, Fault] = {**CHIPS, **WIRING, **IDENTITY, **ENVIRONMENT, **AGENT, **NETWORK}
LEFT_TO_PEOPLE = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("server"), is_warm=False) as running:  # one looks for it among the processes
        yield running


@pytest.fixture
def scene(server: RunningServer, tmp_path: Path) -> Iterator[Scene]:
    made = a_scene(tmp_path, server)
    with made.closing:
        yield made


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_fault_is_named_and_its_fix_works_as_it_is_typed(scene: Scene, fault: Fault) -> None:
    fault.prepare(scene)
    done, found = diagnosed(scene, fault.options)
    named = [row for row in found if row["code"] == fault.code and fault.evidence in row["seen"]]
    assert len(named) == 1, found
    assert done.returncode == 6
    if fault.for_a_person:
        assert named[0]["for_a_person"]
        return
    if fault.works:
        assert scene.type(fault.works).returncode != 0
    mended(scene, fault, named[0]["command"])
    if fault.works:
        scene.must(fault.works)


def test_few_fixes_are_left_to_people() -> None:
    assert len([one for one in FAULTS.values() if one.for_a_person]) <= LEFT_TO_PEOPLE
