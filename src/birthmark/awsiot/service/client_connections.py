"""Connections of MQTT clients, as operators see and end them."""

from birthmark.errors import NotFoundError
from birthmark.store import Changes, Database


class UnknownClientError(NotFoundError):
    """The client is not connected and has no session."""

    code = "awsiot.unknown_client"
    message = "Client {thing} is not connected and has no session"
    fix = (
        "Check the spelling: client IDs are case-sensitive. Most clients use their thing's name as the client ID. "
        "List things: `birthmark aws thing ls`"
    )
    thing: str


class Connections:
    """Records operators' disconnects; the broker performs them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record_disconnect(self, client: str, *, forgets: bool, actor: str) -> None:
        """Record that a connection, and optionally its session, will be ended."""
        changes = Changes().audit(actor, "awsiot.connection_delete", client, with_session=forgets)
        await self._database.commit(changes)
