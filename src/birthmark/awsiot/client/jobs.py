"""Client of a thing's jobs over MQTT: the next job, status updates, and change notifications.

In:   `$aws/things/T/jobs/notify-next`, and responses, matched by their client token. Out:  `jobs/$next/get`,
`jobs/J/get`, `jobs/J/update` with the expected version.

A document stays unparsed: its meaning and allowed depth are up to the job's executor.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from birthmark.device_transports.errors import LinkTimeoutError
from birthmark.device_transports.ports import MqttClient, ReceivedMessage
from birthmark.errors import BirthmarkError
from birthmark.untrusted_json_and_text import decode_json

MQTT_PORT = 8883
ANSWER_S = 30.0
NEXT = "$next"
QUEUED, IN_PROGRESS = "QUEUED", "IN_PROGRESS"
_encode = msgspec.json.Encoder().encode


class Execution(msgspec.Struct, rename="camel", frozen=True):
    """Execution of a job on this thing; times are seconds since 1970."""

    job_id: str
    status: str
    queued_at: int = 0
    version_number: int = 0
    execution_number: int = 0
    job_document: msgspec.Raw = msgspec.Raw(b"")

    @property
    def is_pending(self) -> bool:
        return self.status in {QUEUED, IN_PROGRESS}


class _Token(msgspec.Struct, rename="camel", frozen=True):
    client_token: str = ""


class _AcceptedResponse(msgspec.Struct, rename="camel", frozen=True):
    execution: Execution | None = None


class _RejectedResponse(msgspec.Struct, rename="camel", frozen=True):
    code: str = ""
    message: str = ""


class JobRefusedError(Exception):
    """The service rejected the request; `code` is the service's own. Signal to the caller, never shown to users."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}"[:300])
        self.code = code


class DocumentUnreadableError(Exception):
    """The document of the next job cannot be parsed."""


@dataclass(slots=True)
class ThingJobs:
    """Client of one thing's jobs; `listen` must run during requests."""

    mqtt: MqttClient
    host: str
    thing: str
    token: Callable[[], str]
    answer_s: float = ANSWER_S
    _waiting: dict[str, asyncio.Future[ReceivedMessage]] = field(default_factory=dict, init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    @property
    def _topic(self) -> str:
        return f"$aws/things/{self.thing}/jobs"

    async def open(self) -> None:
        """Subscribe to responses and notifications. Raise the errors of links."""
        for topic_filter in ("notify-next", "+/get/+", "+/update/+"):
            await self.mqtt.subscribe(f"{self._topic}/{topic_filter}")

    async def listen(self) -> None:
        """Dispatch incoming messages to their waiters; never returns.

        Raise the errors of links when the connection ends.
        """
        try:
            while True:
                self._take(await self.mqtt.next_message())
        except BirthmarkError as error:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(error)
            raise

    def _take(self, message: ReceivedMessage) -> None:
        if message.topic == f"{self._topic}/notify-next":
            self._news.set()
            return
        if not message.topic.startswith(f"{self._topic}/"):
            return
        try:
            token = decode_json(message.payload, _Token).client_token
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            token = _token_in(message.payload)
        future = self._waiting.get(token)
        if future is not None and not future.done():
            future.set_result(message)

    async def next(self) -> Execution | None:
        """Return the next execution: one in progress, otherwise a queued one; None if there is none.

        Raise `DocumentUnreadableError`, and the errors of links.
        """
        self._news.clear()  # later notifications may be newer than the reply
        answer = await self._ask(f"{NEXT}/get", {"includeJobDocument": True})
        try:
            return decode_json(answer, _AcceptedResponse).execution
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DocumentUnreadableError from error

    async def next_without_document(self) -> Execution | None:
        """Return the next execution without its document, for unreadable documents."""
        answer = await self._ask(f"{NEXT}/get", {"includeJobDocument": False})
        return self._read(answer)

    async def describe_execution(self, job_id: str, number: int) -> Execution | None:
        """Return the status of an execution without its document; None if it is over or deleted."""
        asked = {"includeJobDocument": False, "executionNumber": number}
        try:
            return self._read(await self._ask(f"{job_id}/get", asked))
        except JobRefusedError as error:
            if error.code in {"ResourceNotFound", "TerminalStateReached"}:
                return None
            raise

    async def update(self, execution: Execution, status: str, details: Mapping[str, str]) -> None:
        """Update an execution's status if its version is unchanged.

        Raise `JobRefusedError`, the errors of links.
        """
        asked = {
            "status": status,
            "statusDetails": dict(details),
            "expectedVersion": execution.version_number,
            "executionNumber": execution.execution_number,
        }
        await self._ask(f"{execution.job_id}/update", asked)

    async def wait_for_notification(self, most_s: float) -> None:
        """Wait for a new next job, or the timeout: a notification may have been lost."""
        try:
            async with asyncio.timeout(most_s):
                await self._news.wait()
        except TimeoutError:
            pass

    # ---- inside

    async def _ask(self, what: str, values: Mapping[str, Any]) -> bytes:
        token, topic = self.token(), f"{self._topic}/{what}"
        future: asyncio.Future[ReceivedMessage] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        try:
            await self.mqtt.publish(topic, _encode({**values, "clientToken": token}))
            async with asyncio.timeout(self.answer_s):
                answer = await future
        except TimeoutError as error:
            raise LinkTimeoutError(host=self.host, port=MQTT_PORT, seconds=f"{self.answer_s:g}") from error
        finally:
            del self._waiting[token]
            future.cancel()
        if answer.topic.endswith("/accepted"):
            return answer.payload
        try:
            refused = decode_json(answer.payload, _RejectedResponse)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            refused = _RejectedResponse("InternalError", "an answer that cannot be read")
        raise JobRefusedError(refused.code, refused.message)

    def _read(self, answer: bytes) -> Execution | None:
        try:
            return decode_json(answer, _AcceptedResponse).execution
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise JobRefusedError("InternalError", "an answer that cannot be read") from error


def _token_in(payload: bytes) -> str:
    """Return the client token at the end of an invalid JSON response, such as one with a too deep document."""
    _, found, rest = payload.rpartition(b'"clientToken":')
    return rest.strip(b' "}').decode("ascii", "replace") if found else ""
