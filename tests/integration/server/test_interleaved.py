"""What happens while an operation waits for the database leaves what it would leave before it, or after."""

import pytest

from support.fakes import FakeClock
from support.kills.interleaved import Template, came_of, opened, values_in
from support.kills.interleaved_operations import AFTERWARDS, OPERATIONS, fill

pytestmark = pytest.mark.integration
PAIRS = {
    "register own": ("enroll own, disabled", "remove own", "take own back", "remove the hub", "lose own"),
    "register of-group": (
        "enroll of-group, disabled",
        "disable the group",
        "remove the group",
        "take of-group back",
        "remove the maker's CA",
        "release of-group",
        "remove the hub",
        "lose of-group",
    ),
    "enroll own, disabled": ("remove own", "take own back"),
    "take of-group back": ("enroll of-group, disabled", "register of-group"),
    "enroll at spare": ("remove spare",),
    "a CA at spare": ("remove spare",),
    "a group of an unused CA": ("remove the unused CA",),
    "a new device": ("remove the hub",),
    "another certificate": ("disable the device", "remove the device", "take the device back", "lose device-1"),
    "report": ("desire", "remove the device", "remove the hub"),
    "desire": ("remove the device",),
    "a message": ("remove the device", "remove the hub", "take the device back"),
    "a thing of the type": ("deprecate the type",),
    "into the group": ("remove the thing", "remove the things' group"),
    "attach": ("remove the thing", "revoke at AWS"),
    "attach the other policy": ("remove the other policy",),
    "activate": ("revoke at AWS", "lose thing-1"),
    "another version": ("detach the policy",),
    "by the CA": ("disable the CA",),
    "a shadow": ("remove the thing",),
    "issue by password": ("remove the user", "lose bound"),
    "issue by the maker's": ("remove the maker", "lose chip-1"),
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def template(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> Template:
    made = Template(tmp_path_factory.mktemp("interleaved") / "template")
    made.directory.mkdir()
    async with opened(made.directory, FakeClock()) as (rooms, _):
        await fill(rooms)
    made.known = values_in(made.directory / "x.db")
    return made


@pytest.mark.parametrize(("one", "other"), [(one, other) for one, others in PAIRS.items() for other in others])
async def test_one_while_the_other_waits_is_one_after_the_other(template: Template, one: str, other: str) -> None:
    first, second, clock = (one, OPERATIONS[one]), (other, OPERATIONS[other]), FakeClock()
    alone = [(await came_of(template, [work], AFTERWARDS, clock))[0] for work in (first, second)]
    in_turn, calls = await came_of(template, [first, second], AFTERWARDS, clock)
    turned, _ = await came_of(template, [second, first], AFTERWARDS, clock)
    for at in range(1, calls + 1):
        came, _ = await came_of(template, [first, second], AFTERWARDS, clock, at)
        if came in (in_turn, turned):
            continue
        # Or one of them was refused, and nothing is there of it.
        assert "done" in came.answers.values(), (at, came.answers)
        assert any((came.rows, came.granted) == (only.rows, only.granted) for only in alone), (at, came)
