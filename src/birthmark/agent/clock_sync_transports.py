"""Transports that learn the time from authenticated servers and retry if certificate dates do not fit.

A server certificate that is rejected only for its dates may indicate a wrong clock. The agent then requests the time
from the configured servers. Chain, name, and trust are verified as usual. A server's time counts only if its complete
chain is valid then and it is not earlier than what is already known (see `timekeeping`). The agent then retries. If the
local clock may be right, two servers of different names must agree.
"""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial

from birthmark.agent.certificate_sources import MakeLinks, est_trust
from birthmark.agent.config.model import AgentConfig, DpsSource, EstIssuance
from birthmark.agent.managed_certificate_list import ManagedCertificate
from birthmark.agent.trusted_clock import TOLERANCE, Timekeeper
from birthmark.device_transports.errors import ServerUntrustedError
from birthmark.device_transports.identity_and_trust import Identity, ServerTrust, TokenIdentity
from birthmark.device_transports.openssl.server_time import StatedTime
from birthmark.device_transports.ports import HttpResponse, HttpsClient, Links, MqttClient, ReceivedMessage
from birthmark.device_transports.urls import parse_url
from birthmark.errors import BirthmarkError
from birthmark.mqtt.packets import Connect

log = logging.getLogger(__name__)

AskTime = Callable[[str, ServerTrust], Awaitable[StatedTime | None]]


@dataclass(slots=True)
class TimeServers:
    """Servers that can provide the time: URLs with their trust anchors."""

    time: Timekeeper
    ask: AskTime
    on_learnt: Callable[[], None]
    urls: Sequence[tuple[str, Callable[[], ServerTrust]]] = ()
    _unbelieved: dict[str, timedelta] = field(default_factory=dict)
    """Clock offset of each server that was not trusted alone; the server is not queried again for that offset."""

    async def confirm(self, *, is_over: bool) -> None:
        """Confirm the time with a server unless that already happened in this run.

        Required before discarding an item because it has expired (`is_over`). Also required before use on a machine
        whose clock cannot be right: an item stored for long may have expired.
        """
        if not self.time.is_confirmed and (is_over or self.time.is_off):
            await self.inquire()

    async def inquire(self) -> bool:
        """Query the servers in turn until one is trusted; return whether the time changed."""
        heard: list[tuple[str, datetime]] = []
        for url, trust in self.urls:
            with contextlib.suppress(BirthmarkError):
                stated = await self.ask(url, trust())
                if stated is None or not self.time.may_be(stated.at, stated.valid_from, stated.valid_until):
                    continue
                host = parse_url(url).host
                is_agreed = any(one != host and abs(at - stated.at) <= TOLERANCE for one, at in heard)
                if is_agreed or self.time.counts_alone(stated.at, stated.valid_from, stated.valid_until):
                    return self._learn(stated.at, host)
                heard.append((host, stated.at))
        for host, at in heard:
            self._unbelieved[host] = at - self.time.machine.now()
            log.warning("clock.not_believed", extra={"stated": at.isoformat(), "source": host})
        return False

    async def heard(self, answer: HttpResponse, url: str) -> None:
        """Update the time from the response of an authenticated server.

        A time that is far from the current one must be within the validity of the server's chain, so it is requested
        again.
        """
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            stated = parsedate_to_datetime(answer.headers.get("date", ""))
            if stated.tzinfo is None or stated < self.time.floor:
                return
            host = parse_url(url).host
            known = self._unbelieved.get(host)
            if abs(stated - self.time.now()) <= TOLERANCE:
                self._learn(stated, host)
            elif known is None or abs(stated - self.time.machine.now() - known) > TOLERANCE:
                await self.inquire()

    def _learn(self, stated: datetime, source: str) -> bool:
        is_news = self.time.learn(stated, source)
        if is_news:
            log.warning("clock.learnt", extra={"stated": stated.isoformat(), "source": source, "why": self.time.why})
        self.on_learnt()
        return is_news


@dataclass(slots=True)
class ClockSyncTransports:
    """Transports with a corrected clock; see `links.ports.Links`."""

    make: MakeLinks
    identity: Identity | None
    trust: ServerTrust
    servers: TimeServers

    def https(self) -> HttpsClient:
        return _Https(self)

    def mqtt(self) -> MqttClient:
        return _Mqtt(self)

    def inner(self) -> Links:
        """Return links that verify certificates at the current time, corrected if the clock is off."""
        time = self.servers.time
        return self.make(self.identity, self.trust.at_time(time.now()) if time.is_off else self.trust)

    async def should_retry(self, error: ServerUntrustedError) -> bool:
        """Return whether to retry because the time changed.

        Libraries that sign in a token use only the machine's clock.
        """
        is_another = error.is_about_time and await self.servers.inquire()
        time = self.servers.time
        if isinstance(self.identity, TokenIdentity) and time.is_off:
            error.reason += f"; {time.why}. For a key in a token, only the machine's own clock is used: set it"
            return False
        return is_another


@dataclass(slots=True)
class _Https:
    links: ClockSyncTransports

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        try:
            answer = await self.links.inner().https().request(method, url, headers=headers, body=body)
        except ServerUntrustedError as error:
            if not await self.links.should_retry(error):
                raise
            answer = await self.links.inner().https().request(method, url, headers=headers, body=body)
        await self.links.servers.heard(answer, url)
        return answer


@dataclass(slots=True)
class _Mqtt:
    links: ClockSyncTransports
    _inner: MqttClient = field(init=False)

    def __post_init__(self) -> None:
        self._inner = self.links.inner().mqtt()

    async def connect(self, host: str, port: int, connect: Connect) -> bool:
        try:
            return await self._inner.connect(host, port, connect)
        except ServerUntrustedError as error:
            if not await self.links.should_retry(error):
                raise
        self._inner = self.links.inner().mqtt()
        return await self._inner.connect(host, port, connect)

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        await self._inner.subscribe(topic_filter, qos)

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        await self._inner.publish(topic, payload, qos)

    async def next_message(self) -> ReceivedMessage:
        return await self._inner.next_message()

    async def wait_for_loss(self) -> Exception:
        return await self._inner.wait_for_loss()

    async def close(self) -> None:
        await self._inner.close()


def time_urls(
    config: AgentConfig,
    every: Iterable[ManagedCertificate],
    cloud: ServerTrust,
    beyond: Callable[[ServerTrust], ServerTrust],
) -> list[tuple[str, Callable[[], ServerTrust]]]:
    """Return the servers that can provide the time: the EST servers and the provisioning service."""
    found: dict[str, Callable[[], ServerTrust]] = {}
    for managed in every:
        if isinstance(est := managed.issued.by, EstIssuance):
            found.setdefault(f"{est.url.rstrip('/')}/cacerts", partial(_trusting, est, cloud, beyond))
    if isinstance(source := config.source, DpsSource):
        host = f"[{source.host}]" if ":" in source.host else source.host
        found.setdefault(f"https://{host}:{source.port}/", lambda: beyond(cloud))
    return list(found.items())


def _trusting(est: EstIssuance, cloud: ServerTrust, beyond: Callable[[ServerTrust], ServerTrust]) -> ServerTrust:
    return beyond(est_trust(est, cloud))
