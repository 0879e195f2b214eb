"""`$aws/events/presence/…`: what the account announces of its clients (developer guide, "Lifecycle events")."""

import json
from collections.abc import Mapping, Sequence

from birthmark.awsiot.rules.reserved import PRESENCE, SUBSCRIPTIONS
from birthmark.broker.model import Message
from birthmark.net.admission import Closed

REASONS: Mapping[Closed, str] = {
    Closed.DISCONNECT: "CLIENT_INITIATED_DISCONNECT",
    Closed.DISCONNECT_WITH_WILL: "CLIENT_INITIATED_DISCONNECT",
    Closed.LOST: "CONNECTION_LOST",
    Closed.KEEP_ALIVE: "MQTT_KEEP_ALIVE_TIMEOUT",
    Closed.PROTOCOL: "CLIENT_ERROR",
    Closed.REFUSED: "FORBIDDEN_ACCESS",
    Closed.TAKEN_OVER: "DUPLICATE_CLIENTID",
    Closed.ADMINISTRATIVE: "SERVER_INITIATED_DISCONNECT",
    Closed.ENDED: "CUSTOMAUTH_TTL_EXPIRATION",
    Closed.ASKED: "API_INITIATED_DISCONNECT",
    Closed.STOPPING: "SERVER_INITIATED_DISCONNECT",
    Closed.SERVER: "SERVER_INITIATED_DISCONNECT",
}


def presence(client_id: str, what: str, *, at_ms: int, **details: object) -> Message | None:
    """Return the event that a client connected or disconnected; none for a client id that no topic can have."""
    if "#" in client_id or "+" in client_id:
        return None
    event = {"clientId": client_id, "timestamp": at_ms, "eventType": what, **details}
    return Message(f"{PRESENCE}{what}/{client_id}", json.dumps(event).encode(), 1)


def subscription(client_id: str, what: str, topics: Sequence[str], *, at_ms: int, **details: object) -> Message:
    """Return the event that a client subscribed to filters, or took subscriptions back."""
    event = {"clientId": client_id, "timestamp": at_ms, "eventType": what, "topics": list(topics), **details}
    return Message(f"{SUBSCRIPTIONS}{what}/{client_id}", json.dumps(event).encode(), 1)
