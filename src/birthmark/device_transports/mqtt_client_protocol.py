"""Requests and responses of an MQTT client, independent of the byte transport."""

import asyncio
from abc import ABC, abstractmethod

from birthmark.device_transports.errors import CONNACK, LinkTimeoutError, MqttRefusedError, SubscriptionRefusedError
from birthmark.mqtt.engine import MqttEngine
from birthmark.mqtt.packets import ConnAck, Connect, Packet, PubAck, SubAck

FAILURE = 0x80
"""SUBACK and PUBACK codes from this value on are failures (MQTT 5 section 2.4)."""


class Conversation(ABC):
    """Request and response part of `MqttClient`; a subclass transports the bytes.

    It has no instance attributes, so that a driver of thousands of clients chooses their storage.
    """

    __slots__ = ()
    _engine: MqttEngine
    _host: str
    _port: int
    _timeout_s: float

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        self._check_alive()
        packet_id = self._engine.subscribe([(topic_filter, qos)])
        answer = await self._answer(self._expect(SubAck, packet_id))
        if isinstance(answer, SubAck) and answer.codes[0] >= FAILURE:
            raise SubscriptionRefusedError(host=self._host, topic=topic_filter)

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        self._check_alive()
        packet_id = self._engine.publish(topic, payload, qos)
        if packet_id is None:
            self._flush()
        else:
            await self._answer(self._expect(PubAck, packet_id))

    @abstractmethod
    async def close(self) -> None: ...

    async def _await_connack(self, answer: "asyncio.Future[Packet]", connect: Connect) -> bool:
        """Return whether the server resumes a session. Raise the error of its CONNACK, after closing."""
        try:
            connack = await self._answer(answer)
        except BaseException:
            await self.close()
            raise
        assert isinstance(connack, ConnAck)  # noqa: S101 (ConnAck waits for this)
        if connack.code:
            await self.close()
            refusal = CONNACK.get(connack.code, MqttRefusedError)
            raise refusal(host=self._host, client_id=connect.client_id, return_code=connack.code)
        return connack.session_present

    async def _answer(self, future: "asyncio.Future[Packet]") -> Packet:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await future
        except TimeoutError as error:
            raise LinkTimeoutError(host=self._host, port=self._port, seconds=f"{self._timeout_s:g}") from error

    @abstractmethod
    def _expect(self, kind: type[Packet], packet_id: int = 0) -> "asyncio.Future[Packet]":
        """Write the engine's pending output, and return a future for the response."""

    @abstractmethod
    def _check_alive(self) -> None:
        """Raise the error that ended the connection."""

    @abstractmethod
    def _flush(self) -> None:
        """Write the engine's pending output."""
