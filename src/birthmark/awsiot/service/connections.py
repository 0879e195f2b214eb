"""What operators do to connections of clients, on record."""

from birthmark.errors import NotFoundError
from birthmark.store import Changes, Database


class UnknownClientError(NotFoundError):
    """No client of this id is connected, and no session of one is kept."""

    code = "awsiot.unknown_client"
    message = "Client {thing} is not connected and has no session"
    fix = "Letter case counts. Most clients have the id of their thing: `birthmark aws thing ls`"
    thing: str


class Connections:
    """Keeps who ended which connection; the broker ends it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note_ended(self, client: str, *, forgets: bool, actor: str) -> None:
        """Put on record that a connection is to end, with its session or without."""
        changes = Changes().audit(actor, "awsiot.connection_delete", client, with_session=forgets)
        await self._database.commit(changes)
