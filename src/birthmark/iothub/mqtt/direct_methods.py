"""Direct methods: a call goes to the worker that has the device's connection, and waits there for the answer."""

import asyncio

import msgspec

from birthmark.broker import Namespace
from birthmark.broker.model import BrokerMessage
from birthmark.bus.ports import BusRequest, Reply
from birthmark.clock import Clock
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.rules.direct_methods import DeviceNotOnlineError, MethodTimeoutError, read_answer
from birthmark.store.database import SharedDatabase
from birthmark.store.time_ids import Numbers

_json = msgspec.json.Encoder().encode


class MethodReply(Reply, frozen=True, tag="iothub.method_answered"):
    """A device's status, and its payload as JSON."""

    status: int
    payload: bytes


class CallMethod(BusRequest[MethodReply], frozen=True, tag="iothub.call_method"):
    """Call a method of a device that is connected there; `payload` is JSON."""

    hub: str
    device_id: str
    method: str
    payload: bytes
    response_s: int


class MethodCalls:
    """The calls that wait for their answers on this worker."""

    def __init__(self, sharing: SharedDatabase, clock: Clock) -> None:
        self._numbers, self._clock = Numbers(sharing), clock
        self._waiting: dict[str, tuple[str, str, asyncio.Future[MethodReply]]] = {}

    async def call(self, space: Namespace, asked: CallMethod) -> MethodReply:
        """Return the answer. Raise `DeviceNotOnlineError` at once, `MethodTimeoutError`, `MethodAnswerInvalidError`."""
        attached = space.live.get(asked.device_id)
        if attached is None or attached.is_on_hold or wire.METHODS not in attached.subscriptions:
            raise DeviceNotOnlineError(device_id=asked.device_id)
        rid = f"{self._numbers.next(self._clock.micros()):x}"  # also not one of a worker that was killed
        future: asyncio.Future[MethodReply] = asyncio.get_running_loop().create_future()
        self._waiting[rid] = (asked.hub, asked.device_id, future)
        try:
            attached.deliver(BrokerMessage(wire.method_topic(asked.method, rid), asked.payload), 0, 0)
            async with asyncio.timeout(asked.response_s):
                return await future
        except TimeoutError as error:
            raise MethodTimeoutError(
                device_id=asked.device_id, method=asked.method, seconds=asked.response_s
            ) from error
        finally:
            del self._waiting[rid]

    def answered(self, hub: str, device_id: str, answer: wire.MethodAnswer, payload: bytes) -> None:
        """Take a device's answer; one that nobody waits for, or that another device was asked for, is dropped."""
        waiting = self._waiting.get(answer.rid)
        if waiting is None or waiting[:2] != (hub, device_id) or waiting[2].done():
            return
        try:
            waiting[2].set_result(MethodReply(answer.status, _json(read_answer(payload, device_id))))
        except BirthmarkError as error:
            waiting[2].set_exception(error)
