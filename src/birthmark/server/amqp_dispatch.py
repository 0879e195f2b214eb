"""AMQP dispatcher: the component that serves a connection, which the client names by SASL or by its first link."""

from collections.abc import Awaitable, Callable, Sequence

from birthmark.amqp.events import AmqpEvent, ConnectionClosed, ConnectionOpened, LinkRequested, SaslStarted
from birthmark.amqp.sasl import SaslMechanism
from birthmark.errors import BirthmarkError
from birthmark.net.amqp_driver import AmqpDriver, AmqpServiceConnection
from birthmark.net.stale_cache_request_delay import Freshness
from birthmark.protocol_component import Component

_NAMING = frozenset({SaslMechanism.PLAIN, SaslMechanism.TPM})
"""SASL mechanisms that name the client."""


class AmqpDispatcher:
    """A service's side of a connection, until its component is known. Then the component has the connection."""

    def __init__(
        self,
        driver: AmqpDriver,
        components: Sequence[Component],
        *,
        find_unserved: Callable[[str], BirthmarkError | None],
        freshness: Freshness,
    ) -> None:
        """Create the dispatcher of a connection; the first of `components` that claims it has it.

        `find_unserved` returns the refusal for a service that this server does not run. An event is handled when
        this worker has the changes of the others (`freshness`).
        """
        self._driver = driver
        self._components = components
        self._find_unserved = find_unserved
        self._freshness = freshness
        self._service: AmqpServiceConnection | None = None
        self._hostname = ""

    def handle(self, event: AmqpEvent) -> Awaitable[None] | None:
        """Handle an event, or pass it to the component."""
        if self._service is not None:
            if self._freshness.is_fresh or isinstance(event, ConnectionClosed):
                return self._service.handle(event)
            return self._handle_fresh(self._service, event)
        match event:
            case SaslStarted(mechanism=mechanism) if mechanism not in _NAMING:
                self._driver.engine.accept_sasl()
            case ConnectionOpened(hostname=hostname):
                self._hostname = hostname or ""
                self._driver.engine.accept_open()
            case SaslStarted() | LinkRequested():
                return self._decide(event)
            case _:
                pass
        return None

    def writable(self) -> None:
        """Continue to send."""
        if self._service is not None:
            self._service.writable()

    def check_deadlines(self, at: float) -> float | None:
        """Handle what has expired, and return when to call again."""
        return None if self._service is None else self._service.check_deadlines(at)

    def closed(self) -> None:
        """Release everything."""
        if self._service is not None:
            self._service.closed()

    async def _handle_fresh(self, service: AmqpServiceConnection, event: AmqpEvent) -> None:
        await self._freshness.wait_until_fresh()
        if not self._driver.is_over and (waiting := service.handle(event)) is not None:
            await waiting

    async def _decide(self, event: SaslStarted | LinkRequested) -> None:
        await self._freshness.wait_until_fresh()
        if self._driver.is_over:
            return
        component, make = next(
            (one, make) for one in self._components if (make := one.find_amqp(event)) is not None
        )  # hubs claim every client
        if (unserved := self._find_unserved(component.service)) is not None:
            if isinstance(event, SaslStarted):
                self._driver.refuse_sasl(unserved)
            else:
                self._driver.refuse(unserved)
            return
        self._service = make(self._driver, self._hostname)
        if (waiting := self._service.handle(event)) is not None:
            await waiting
