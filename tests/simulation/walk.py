"""Clients of both clouds, and faults, in an order that a seed decides: whatever happens, the promises hold."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

from simulation.aws import ANSWERS, DELTA, TOPIC, Account, Thing, an_account
from simulation.hub import Asked, Hub, HubDevice, a_hub
from simulation.provisioning import Provisioning, a_provisioning_service
from simulation.rooms import House
from simulation.virtual import Fate
from simulation.wills_and_states import EVERY_WILL, Speaker
from simulation.wills_and_states import findings as of_wills_and_states
from support.kills.history import Finding

MAY_FAIL = frozenset({"read", "commit", "beside", "bus"})
_MOST_STEPS = 30


@dataclass
class Walk:
    """See the module."""

    house: House
    hub: Hub
    account: Account
    provisioning: Provisioning
    dice: Random
    asked: list[Asked] = field(default_factory=list)
    kills: int = 0

    async def go(self, steps: int) -> None:
        """Take steps."""
        acts = [act for weight, act in self._acts() for _ in range(weight)]
        for _ in range(steps):
            if (done := self.dice.choice(acts)()) is not None:
                await done
            await self.house.look_after()

    def _acts(self) -> list[tuple[int, Callable[[], Awaitable[None] | None]]]:
        return [
            (30, self._some_happens),
            (6, self._time_passes),
            (4, self._all_happens),
            (6, self._somebody_connects),
            (8, self._telemetry),
            (8, self._publish),
            (3, self._state),
            (5, self._twin),
            (5, self._mail),
            (4, self._method),
            (5, self._shadow),
            (4, self._register),
            (4, self._issue),
            (3, self._somebody_may_not),
            (3, self._somebody_may_not_register),
            (2, self._holds_back),
            (2, self._cut),
            (2, self._kill),
            (3, self._start),
            (2, self._stop),
            (4, self._go_on),
            (5, self._fail),
        ]

    # ---- what happens by itself

    async def _some_happens(self) -> None:
        for _ in range(self.dice.randint(1, _MOST_STEPS)):
            if ready := self.house.world.ready():
                await self.house.world.happen(self.dice.choice(ready))

    async def _time_passes(self) -> None:
        await self.house.world.pass_time(self.dice.choice((0.01, 0.1, 0.3, 1.0)))

    async def _all_happens(self) -> None:
        await self.house.live_on(self.dice.choice((0.05, 0.5, 2.0)))

    async def _fail(self) -> None:
        if ready := [one for one in self.house.world.ready() if one.what in MAY_FAIL]:
            await self.house.world.happen(self.dice.choice(ready), self.dice.choice((Fate.LOST, Fate.ANSWER_LOST)))

    async def _kill(self) -> None:
        living = [place for place, worker in enumerate(self.house.workers) if worker is not None]
        if len(living) > 1:
            self.kills += 1
            await self.house.kill(self.dice.choice(living))

    async def _start(self) -> None:
        for place, worker in enumerate(self.house.workers):
            if worker is None:
                await self.house.start(place)
                return

    def _stop(self) -> None:
        if (place := self._place()) is not None:
            self.house.stop(place)

    def _go_on(self) -> None:
        self.house.go_on()

    # ---- what clients do

    def _place(self) -> int | None:
        ready = [place for place, worker in enumerate(self.house.workers) if worker is not None and worker.is_ready]
        return self.dice.choice(ready) if ready else None

    def _client(self) -> HubDevice | Thing:
        found: list[HubDevice | Thing] = [*self.hub.devices.values(), *self.account.things.values()]
        return self.dice.choice(found)

    def _device(self) -> HubDevice:
        return self.dice.choice([*self.hub.devices.values()])

    def _somebody_connects(self) -> None:
        client, place = self._client(), self._place()
        if place is not None:
            client.connect(place)

    def _cut(self) -> None:
        client = self._client()
        if client.lines:
            client.line.cut()

    def _holds_back(self) -> None:
        client = self._client()
        client.acknowledges = not client.acknowledges

    def _telemetry(self) -> None:
        self._device().send(self.dice.randint(1, 3))

    def _publish(self) -> None:
        self.account.things[self.dice.choice(("pump-a", "pump-b"))].publish(self.dice.randint(1, 3))

    def _state(self) -> None:
        self.speaker.tell_state()

    @property
    def speaker(self) -> Speaker:
        thing = self.account.things["pump-a"]
        assert isinstance(thing, Speaker)
        return thing

    def _twin(self) -> None:
        device, place = self._device(), self._place()
        if device.is_ready and self.dice.random() < 0.6:
            self.dice.choice((device.report, device.read))()
        elif place is not None:
            self.asked.append(self.hub.desire(place, device))

    def _mail(self) -> None:
        if (place := self._place()) is not None:
            self.asked.append(self.hub.send(place, self._device()))

    def _method(self) -> None:
        if (place := self._place()) is not None:
            self.asked.append(self.hub.call(place, self._device(), 5, self.dice.choice((0, 0, 5))))

    def _shadow(self) -> None:
        lamp, place = self.account.things["lamp"], self._place()
        if lamp.is_ready and self.dice.random() < 0.6:
            self.dice.choice((lamp.update, lamp.read))("lamp")
        elif place is not None:
            self.asked.append(self.dice.choice((self.account.update, self.account.read))(place, "lamp"))

    def _somebody_may_not(self) -> None:
        """Take a right, or give it back; one call after the other, so that it is known which was last."""
        place = self._place()
        if place is None or any(not one.is_over for one in self.asked if one.doing.value in _OF_RIGHTS):
            return
        device, pump = self.hub.devices["valve"], self.account.things["pump-b"]
        acts: list[Callable[[], Asked]] = [
            lambda: self.hub.disable(place, device),
            lambda: self.hub.enable(place, device),
            lambda: self.account.detach(place, pump, "publish"),
            lambda: self.account.attach(place, pump, "publish"),
            lambda: self.account.set_status(place, pump, "INACTIVE"),
            lambda: self.account.set_status(place, pump, "ACTIVE"),
        ]
        self.asked.append(self.dice.choice(acts)())

    def _register(self) -> None:
        if (place := self._place()) is not None:
            self.asked.append(self.provisioning.register(place, self.dice.choice(("gate", "door"))))

    def _issue(self) -> None:
        if (place := self._place()) is not None:
            self.asked.append(self.provisioning.issue(place, self.dice.choice(("gate", "door"))))

    def _somebody_may_not_register(self) -> None:
        """The same, of a device that registers and asks for certificates."""
        place, service = self._place(), self.provisioning
        if place is None or any(not one.is_over and one.doing.value in service.of_rights for one in self.asked):
            return
        acts: list[Callable[[], Asked]] = [
            lambda: service.enroll(place, "gate", status="disabled"),
            lambda: service.enroll(place, "gate"),
            lambda: service.remove_user(place, "gate"),
            lambda: service.add_user(place, "gate"),
        ]
        self.asked.append(self.dice.choice(acts)())

    # ---- the end

    async def end(self) -> list[Finding]:
        """Let everyone come back and have what is theirs; return what is found then."""
        house, hub, account = self.house, self.hub, self.account
        await house.recovered()
        await house.until(lambda: all(one.is_over for one in self.asked), most_s=60.0)
        for client in (*hub.devices.values(), *account.things.values()):
            client.acknowledges = True
            client.line.cut()  # what it held back comes again
        pump = account.things["pump-b"]
        await hub.until_answered(hub.enable(0, hub.devices["valve"]))
        await account.well(account.set_status(0, pump, "ACTIVE"))
        await account.well(account.attach(0, pump, "publish"))
        await hub.collected()
        await account.collected()
        said = await of_wills_and_states(account)
        return [*await hub.findings(), *account.findings(), *said, *await self.provisioning.findings()]


_OF_RIGHTS = frozenset({"disabled", "enabled", "publish", "INACTIVE", "ACTIVE"})


async def a_walk(house: House, seed: int) -> Walk:
    """Begin one: two devices of a hub, two things that publish, one that listens, one with a shadow."""
    hub, account = await a_hub(house), await an_account(house)
    places = Random(seed)
    for name in ("pump", "valve"):
        await hub.connected(await hub.device(name), places.randrange(len(house.workers)))
    for name, *filters in (("hears", TOPIC, EVERY_WILL), ("lamp", *ANSWERS, DELTA), ("pump-a",), ("pump-b",)):
        thing = await account.thing(name, *filters, kind=Speaker if name == "pump-a" else Thing)
        await account.connected(thing, places.randrange(len(house.workers)))
    provisioning = await a_provisioning_service(house)
    for name in ("gate", "door"):
        await provisioning.device(name)
    return Walk(house, hub, account, provisioning, Random(seed))
