"""What a database cannot keep or look for."""

import asyncio
import shlex
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import asyncpg
from fixes.rows_azure import a_token
from fixes.scenario import Scenario, device
from fixes.scene import Scene, literals_in
from fixes.server_scenarios import PASSPHRASE, for_a_while, serve

from support.server.servers import a_server, free_address
from support.services.postgres import a_postgres

GET = (
    'curl -sSf --cacert "$SSL_CERT_FILE" -H "Authorization: $TOKEN" -o answer '
    '"https://$PROVISIONING_HOST:8443/enrollments/$ID?api-version=2021-10-01"'
)


def on_postgresql(scene: Scene) -> None:
    """A server whose database refuses NUL, and a program that asks for a record by a name with one."""
    scene.directory.joinpath("own").mkdir()
    url = scene.closing.enter_context(a_postgres())
    scene.server = scene.closing.enter_context(a_server(scene.directory / "own", f'database = "{url}"\n'))
    scene.environment["BIRTHMARK_DATA"] = str(scene.server.data)
    device("fix-value")(scene)
    scene.must('birthmark device enroll --cert "$X509_CERT_FILE"')
    desk: Any = SimpleNamespace(scene=scene)
    scene.environment |= {"TOKEN": a_token(desk, "PROVISIONING"), "ID": "fix-value%00"}


def with_a_guest(scene: Scene) -> None:
    """A backup of a database in which somebody else has a table, too."""
    scene.directory.joinpath("own").mkdir()
    url = scene.closing.enter_context(a_postgres())
    scene.server = scene.closing.enter_context(a_server(scene.directory / "own", f'database = "{url}"\n'))
    scene.environment |= {"BIRTHMARK_DATA": str(scene.server.data), "BIRTHMARK_DATABASE": url}
    scene.must(PASSPHRASE)
    asyncio.run(_told(url, "CREATE TABLE guests (name text); CREATE SCHEMA other"))


def with_postgresql(scene: Scene) -> None:
    """A PostgreSQL for a server of workers, and no NATS."""
    scene.environment["BIRTHMARK_DATABASE"] = scene.closing.enter_context(a_postgres())


def moved_away(scene: Scene, fix: str) -> None:
    """Give the guest the place that the fix names."""
    sql = shlex.split(fix.split("`")[1])[-1].replace("NAME", "guests").replace("OTHER", "other")
    asyncio.run(_told(scene.environment["BIRTHMARK_DATABASE"], sql))


async def _told(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(sql)
    await connection.close()


def left_out(scene: Scene, fix: str) -> None:
    """Leave out of the name what the fix says."""
    for literal in literals_in(fix):
        scene.environment["ID"] = scene.environment["ID"].replace(literal, "")


STORE: Mapping[str, Scenario] = {
    "store.database_in_use": Scenario(
        f'birthmark serve --data second --database "sqlite:///$BIRTHMARK_DATA/birthmark.db" --listen {free_address()}',
        is_instead=True,
        apply=for_a_while,
    ),
    "bus.away": Scenario(
        serve("own", "--workers 2 --bus nats://127.0.0.1:1"), with_postgresql, is_instead=True, apply=for_a_while
    ),
    "server.tables_differ": Scenario("birthmark server backup --out x.birthmark", with_a_guest, apply=moved_away),
    "store.value_refused": Scenario(GET, on_postgresql, apply=left_out),
}
