"""A client's engine and a server's engine, joined without a network."""

from birthmark.amqp.client_engine import AmqpClientEngine
from birthmark.amqp.engine import AmqpEngine
from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope
from birthmark.amqp.events import AmqpEvent, ConnectionOpened, LinkRequested, SaslStarted
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sasl import SaslInit

DEFAULTS = AmqpLimits()
REFUSED = "/refused"
"""The server refuses links to this address."""


class ClientPair:
    """Both ends of a connection; `run` exchanges bytes until both are silent."""

    def __init__(
        self,
        limits: AmqpLimits = DEFAULTS,
        *,
        server_limits: AmqpLimits = DEFAULTS,
        sasl: SaslInit | None = None,
        credit: int = 20,
        chunk: int = 1 << 20,
    ) -> None:
        self.client = AmqpClientEngine("hub.example", container_id="d1", sasl=sasl, limits=limits)
        self.server = AmqpEngine(server_limits)
        self.now = 0.0
        self.seen: list[AmqpEvent] = []
        """Events of the server."""
        self._credit, self._chunk = credit, chunk
        self.client.begin(self.now)

    def run(self) -> list[AmqpEvent]:
        """Exchange all bytes; return the client's events."""
        events: list[AmqpEvent] = []
        while True:
            up, down = self.client.data_to_send(self.now), self.server.data_to_send(self.now)
            if not up and not down:
                return events
            for start in range(0, len(up), self._chunk):
                self._serve(self.server.receive_data(up[start : start + self._chunk], self.now))
            for start in range(0, len(down), self._chunk):
                events += self.client.receive_data(down[start : start + self._chunk], self.now)

    def _serve(self, events: list[AmqpEvent]) -> None:
        while events:
            self.seen += events
            for event in events:
                self._decide(event)
            events = self.server.next_events()

    def _decide(self, event: AmqpEvent) -> None:
        match event:
            case SaslStarted(password="wrong"):
                self.server.refuse_sasl()
            case SaslStarted():
                self.server.accept_sasl()
            case ConnectionOpened():
                self.server.accept_open()
            case LinkRequested(link=link) if REFUSED in (link.source_address, link.target_address):
                link.refuse(AmqpError(AmqpCondition.NOT_FOUND, "no such node", scope=AmqpErrorScope.LINK))
            case LinkRequested(link=ReceiverLink() as link):
                link.accept(credit=self._credit)
            case LinkRequested(link=link):
                link.accept()
            case _:
                pass
