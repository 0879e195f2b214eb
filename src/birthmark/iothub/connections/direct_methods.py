"""Direct methods: the worker with the device's connection sends the call and waits for the response."""

import asyncio

import msgspec

from birthmark.broker import Namespace
from birthmark.broker.model import BrokerMessage
from birthmark.bus.ports import BusRequest, Reply
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.rules.direct_methods import DeviceNotOnlineError, MethodTimeoutError, read_answer
from birthmark.store.database import SharedDatabase
from birthmark.store.time_ids import Numbers

_json = msgspec.json.Encoder().encode


class MethodReply(Reply, frozen=True, tag="iothub.method_answered"):
    """Response of a device to a direct method: its status, and its payload as JSON."""

    status: int
    payload: bytes


class CallMethod(BusRequest[MethodReply], frozen=True, tag="iothub.call_method"):
    """Bus request that calls a method of a device connected to that worker; `payload` is JSON."""

    hub: str
    device_id: str
    method: str
    payload: bytes
    response_s: int


class MethodCalls:
    """Direct method calls of this worker that wait for their responses."""

    def __init__(self, sharing: SharedDatabase, clock: Clock) -> None:
        self._numbers, self._clock = Numbers(sharing), clock
        self._waiting: dict[str, tuple[str, str, asyncio.Future[MethodReply]]] = {}

    async def call(self, space: Namespace, request: CallMethod) -> MethodReply:
        """Return the response.

        Raise `DeviceNotOnlineError` at once, `MethodTimeoutError`, `MethodAnswerInvalidError`.
        """
        attached = space.live.get(request.device_id)
        if attached is None or attached.is_on_hold or wire.METHODS not in attached.subscriptions:
            raise DeviceNotOnlineError(device_id=request.device_id)
        rid = f"{self._numbers.next(self._clock.micros()):x}"  # also unique across killed workers
        future: asyncio.Future[MethodReply] = asyncio.get_running_loop().create_future()
        self._waiting[rid] = (request.hub, request.device_id, future)
        try:
            attached.deliver(BrokerMessage(wire.method_topic(request.method, rid), request.payload), 0, 0)
            async with asyncio.timeout(request.response_s):
                return await future
        except TimeoutError as error:
            raise MethodTimeoutError(
                device_id=request.device_id, method=request.method, seconds=request.response_s
            ) from error
        finally:
            del self._waiting[rid]

    def is_waiting(self, rid: str) -> bool:
        """Return whether the caller of a request still waits."""
        return rid in self._waiting

    def accept_response(self, hub: str, device_id: str, answer: wire.MethodAnswer, payload: bytes) -> None:
        """Accept a device's response; one without a pending call to this device is dropped."""
        waiting = self._waiting.get(answer.rid)
        if waiting is None or waiting[:2] != (hub, device_id) or waiting[2].done():
            return
        try:
            waiting[2].set_result(MethodReply(answer.status, _json(read_answer(payload, device_id))))
        except BirthmarkError as error:
            waiting[2].set_exception(error)
