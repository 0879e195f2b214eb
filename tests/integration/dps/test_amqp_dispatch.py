"""Which component has an AMQP connection: the one that its client names, for the life of the connection."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import pytest

from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope
from birthmark.amqp.events import AmqpEvent, ConnectionOpened, LinkRequested, SaslStarted
from birthmark.amqp.sasl import SaslCode
from birthmark.dps.component import DpsComponent, DpsDeviceRecords
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.net.amqp_driver import AmqpDriver
from birthmark.protocol_component import Component, MakeAmqp
from birthmark.server.amqp_dispatch import AmqpDispatcher
from support.azure.dps_amqp import AmqpDevice, connect, connections
from support.azure.dps_world import DpsWorld, a_dps
from support.pki.pki_builders import a_device

pytestmark = pytest.mark.integration


class Others(Component):
    """Has every client that no component before it claims."""

    service = "iothub"

    def __init__(self) -> None:
        self.heard: list[str] = []

    def find_amqp(self, _event: AmqpEvent) -> MakeAmqp | None:
        return partial(OtherConnection, self)


class OtherConnection:
    def __init__(self, owner: Others, driver: AmqpDriver, hostname: str) -> None:
        self._heard, self._driver = owner.heard, driver
        self._heard.append(f"connected to {hostname}")

    def handle(self, event: AmqpEvent) -> Awaitable[None] | None:
        self._heard.append(type(event).__name__)
        match event:
            case SaslStarted():
                self._driver.engine.accept_sasl()
            case ConnectionOpened():
                self._driver.engine.accept_open()
            case LinkRequested(link=link):
                link.refuse(AmqpError(AmqpCondition.NOT_FOUND, "no", scope=AmqpErrorScope.LINK))
            case _:
                pass
        return None

    def writable(self) -> None: ...

    def check_deadlines(self, at: float) -> float | None:
        del at
        return None

    def closed(self) -> None:
        self._heard.append("closed")


class NotServedHereError(UnavailableError):
    """This test serves no such service."""

    code = "test.not_served"


class Cache:
    """A worker's, which is fresh after each wait, and until it is stale again."""

    def __init__(self, wait: Callable[[], object] = lambda: None) -> None:
        self.is_fresh, self._wait = False, wait

    async def wait_until_fresh(self) -> None:
        self._wait()
        self.is_fresh = True


def dispatched(
    world: DpsWorld, others: Others, *, unserved: str = "", cache: Cache | None = None
) -> Callable[[AmqpDriver], AmqpDispatcher]:
    def find(service: str) -> BirthmarkError | None:
        return NotServedHereError() if service == unserved else None

    records = DpsDeviceRecords(
        world.database, world.instances, world.enrollments, world.registrations, connections(world)
    )
    components: Sequence[Component] = (Component(), DpsComponent(records, world.clock), others)
    return lambda driver: AmqpDispatcher(driver, components, find_unserved=find, freshness=cache or Cache())


async def enrolled(world: DpsWorld, make: Callable[[AmqpDriver], AmqpDispatcher]) -> AmqpDevice:
    holder = a_device(common_name="pump-1")
    await world.individual("pump-1", holder)
    return connect(world, make, holder.certificate)


@pytest.mark.parametrize("mechanism", ["", "ANONYMOUS", "EXTERNAL", "MSSBCBS"])
async def test_the_first_link_tells_that_a_client_registers(database_url: str, mechanism: str) -> None:
    async with a_dps(database_url) as world:
        others = Others()
        device = await enrolled(world, dispatched(world, others))
        if mechanism:
            device.begin_sasl(mechanism)
            assert await device.outcome() == 0
        device.begin()
        handle = await device.attach_both("pump-1")
        device.request(handle)
        await device.until(device.answers)
        device.attach("$cbs", receives=False)  # and from then on there is no hub
        await device.until(device.detachments)
        assert device.detachments() == ["amqp:unauthorized-access"]
        assert others.heard == []


async def test_every_other_client_is_of_the_hub(database_url: str) -> None:
    async with a_dps(database_url) as world:
        others = Others()
        device = await enrolled(world, dispatched(world, others))
        device.begin()
        device.attach("$cbs", receives=False)
        await device.until(device.detachments)
        device.attach(device.address("pump-1"), receives=True)  # too late
        await device.until(lambda: len(device.detachments()) == 2)
        device.driver.connection_lost(None)
        assert others.heard == ["connected to dps.example", "LinkRequested", "LinkRequested", "closed"]


@pytest.mark.parametrize(
    ("mechanism", "response", "is_of_dps"),
    [
        ("PLAIN", b"\0scope/registrations/a\0token", True),
        ("PLAIN", b"\0d1@sas.hub\0token", False),
        ("TPM", b"\0scope\0a\0key", True),
    ],
)
async def test_sasl_tells_whose_client_it_is(
    database_url: str, mechanism: str, response: bytes, is_of_dps: bool
) -> None:
    async with a_dps(database_url) as world:
        others = Others()
        device = connect(world, dispatched(world, others))
        device.begin_sasl(mechanism, response)
        assert await device.outcome() == int(is_of_dps)
        assert others.heard[:2] == ([] if is_of_dps else ["connected to ", "SaslStarted"])


async def test_a_client_of_a_service_that_does_not_run_is_told_so(database_url: str) -> None:
    async with a_dps(database_url) as world:
        make = dispatched(world, Others(), unserved="dps")
        device = await enrolled(world, make)
        device.begin()
        device.attach(device.address("pump-1"), receives=True)
        await device.until(lambda: device.is_over)
        assert [one.code for one in device.refused] == ["test.not_served"]
        device = connect(world, make)
        device.begin_sasl("PLAIN", b"\0scope/registrations/a\0token")
        assert await device.outcome() == SaslCode.SYS_TEMPORARY
        assert [one.code for one in device.refused] == ["test.not_served"]


async def test_a_client_that_leaves_before_it_is_known_leaves_nothing(database_url: str) -> None:
    async with a_dps(database_url) as world:
        others, leaving = Others(), list[AmqpDevice]()

        def lose() -> None:
            leaving[0].driver.close()

        device = connect(world, dispatched(world, others, cache=Cache(lose)))
        leaving.append(device)
        device.begin()
        device.attach("$cbs", receives=True)
        await device.until(lambda: device.is_over)
        await device.settle()
        device = connect(world, dispatched(world, others))
        device.begin()
        device.driver.connection_lost(None)
        assert others.heard == []


async def test_a_worker_first_hears_what_the_others_did(database_url: str) -> None:
    async with a_dps(database_url) as world:
        steps: list[str] = []
        cache = Cache(lambda: steps.append("fresh"))
        device = await enrolled(world, dispatched(world, Others(), cache=cache))
        device.begin()
        assert steps == []
        handle = await device.attach_both("pump-1")
        assert steps == ["fresh"]
        cache.is_fresh = False  # it was suspended, or the database was away
        device.request(handle)
        await device.until(device.answers)
        assert steps == ["fresh", "fresh"]
