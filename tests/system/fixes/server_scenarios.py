"""The server: its directory, its configuration, its certificate and its CA."""

import sys
from collections.abc import Mapping
from pathlib import Path

from fixes.applied import into, lines_into
from fixes.scenario import Scenario, typed
from fixes.scene import UNTIL_READY, Scene, commands_in

from support.server.servers import free_address

ADDRESS = free_address()
MISMATCHED = (
    "birthmark ca init --name Fixes --dir ca; birthmark ca issue one --dir ca; birthmark ca issue two --dir ca",
    'printf \'[server]\\ncertificate = "one.cert.pem"\\nkey = "two.key.pem"\\n\' > server.toml',
)
CURL = (
    'told=$(eval "${SHOWN:-curl} -sS --fail-with-body $AT/operator/v1/hubs") || '
    """{ echo "$told" | sed -E 's/^[{](.*)"code":"([^"]*)"/{"error": "\\2",\\1"code":"\\2"/' >&2; false; }"""
)
URL = """python3 -c 'import json, sys; print(json.load(sys.stdin)["health_url"].removesuffix("/healthz"))'"""


PASSPHRASE = (
    "(umask 077; echo correct horse battery > backup.passphrase); "
    "export BIRTHMARK_BACKUP_PASSPHRASE_FILE=backup.passphrase"
)
OF_BEFORE = f"tar -xzf {Path(__file__).parents[2] / 'upgrade/0.2.0.tar.gz'} --no-same-owner data; chmod 700 data"
BACKED_UP = (PASSPHRASE, "birthmark server backup --out x.birthmark")


def serve(directory: str, more: str = "") -> str:
    """A server that begins, and ends in order."""
    return f"{UNTIL_READY} birthmark serve --data {directory} --listen {ADDRESS} {more}"


def for_a_while(scene: Scene, fix: str) -> None:
    """Type the fix's command, which runs a server, and stop that again."""
    (command,) = (one for one in commands_in(fix) if "serve" in one)
    scene.must(f"{UNTIL_READY} {command}")


def at_another_address(scene: Scene, fix: str) -> None:
    """Type the fix's command with an address that no other scene of this moment has."""
    (command,) = (one for one in commands_in(fix) if "serve" in one)
    scene.must(f"{UNTIL_READY} {command.replace('127.0.0.2', free_address())}")


def removed(scene: Scene, fix: str) -> None:
    """Type the fix's command, and start the server again."""
    (command,) = commands_in(fix)
    scene.must(command)
    assert scene.server is not None
    scene.server.stop()
    scene.server.start()


def restored_again(scene: Scene, fix: str) -> None:
    """Type the fix's command with the backup that is meant."""
    (command,) = commands_in(fix)
    scene.must(command.replace("FILE", "x.birthmark"))


def put_back(scene: Scene, _fix: str) -> None:
    """Put the file back that the fix names."""
    scene.must("mv kept own/est.seed")


def with_all_services(scene: Scene, fix: str) -> None:
    """Stop the server, and type the fix's command, which starts another on the same address."""
    (command,) = commands_in(fix)
    assert scene.server is not None
    scene.server.stop()
    scene.must(f"export BIRTHMARK_LISTEN={scene.server.address}; exec > serve.log 2>&1; {command} echo $! > serve.pid")
    scene.closing.callback(scene.must, "kill $(cat serve.pid)")
    scene.must("birthmark env --wait 30")


def patched(*lines: str) -> str:
    """Return a command with something of its own changed, as no server here is slow or says so much."""
    joined = "\n".join(lines)
    return f"""{sys.executable} -c '
import sys
from birthmark.cli.app import main
from birthmark.operator_api.client import server_discovery_and_api_client as api_client
of = api_client.OperatorClient.of
{joined}
sys.argv = ["birthmark", "hub", "ls"]
main()'"""


IMPATIENT = patched(
    "def late(_): raise TimeoutError",
    "api_client.http.client.HTTPConnection.getresponse = late",
)
WITH_LITTLE_ROOM = patched(
    'api_client.OperatorClient.of = lambda data: (of(data), setattr(api_client, "_MAX_BYTES", 20))[0]'
)

WITHOUT_WORKERS = patched(
    "import asyncio, json",
    "from birthmark.server.workers.worker_http_client import WorkerRequest",
    "from birthmark.server.workers.parent_http_front_end import Front",
    "def ask(self, *_):",
    "    front = Front((), self.data, has_metrics=False)",
    '    answer = asyncio.run(front._forward_to_worker(WorkerRequest("GET", b"/")))',
    "    raise api_client._refused(answer.status_code, json.loads(answer.body), self.data)",
    "api_client.OperatorClient._call = ask",
)


MEDDLED = f"""{sys.executable} -c '
import sqlite3, sys
from birthmark.cli.app import main
from birthmark.server.backup import database_move
load = database_move.load
async def meddled(*arguments):
    await load(*arguments)
    there = sqlite3.connect("moved.db")
    there.execute("DELETE FROM audit WHERE seq = 1")
    there.commit()
database_move.load = meddled
sys.argv = "birthmark db move --data own --into sqlite:///moved.db".split()
main()'"""


SERVER: Mapping[str, Scenario] = {
    "operator.no_answer_in_time": Scenario(IMPATIENT, is_instead=True),
    "server.descriptors_short": Scenario(
        f"prlimit --nofile=20:20 birthmark serve --data tiny --listen {ADDRESS}",
        typed("unset BIRTHMARK_DATA"),
        is_instead=True,
        apply=for_a_while,
        needs_root=True,
    ),
    "server.worker_away": Scenario(WITHOUT_WORKERS, is_instead=True),
    "operator.answer_too_large": Scenario(WITH_LITTLE_ROOM, is_instead=True),
    "operator.not_served": Scenario("birthmark device ls", apply=with_all_services, config='only = ["est"]\n'),
    "ca.lost": Scenario(
        serve("lost"),
        typed("unset BIRTHMARK_DATA", serve("lost"), "rm -r lost/ca"),
        is_instead=True,
        apply=for_a_while,
    ),
    "ca.secret_foreign": Scenario(
        "birthmark ca issue gateway --dir ca",
        typed("birthmark ca init --name Fixes --dir ca", "chown 12345 ca/root.key"),
        needs_root=True,
    ),
    "cli.passphrase_wanted": Scenario(
        "birthmark server backup --out x.birthmark", typed("unset BIRTHMARK_BACKUP_PASSPHRASE_FILE")
    ),
    "server.backup_unreadable": Scenario(
        "birthmark server restore x.birthmark --data new",
        typed(
            *BACKED_UP,
            "(umask 077; echo another > wrong.passphrase)",
            "export BIRTHMARK_BACKUP_PASSPHRASE_FILE=wrong.passphrase",
        ),
    ),
    "server.database_elsewhere": Scenario(
        "birthmark server backup --data own --out x.birthmark",
        typed(
            PASSPHRASE,
            f"BIRTHMARK_DATABASE=sqlite:///$PWD/elsewhere.db {serve('own')}",
        ),
    ),
    "server.database_not_empty": Scenario(
        "birthmark server restore x.birthmark --data new --database sqlite:///old/birthmark.db",
        typed(*BACKED_UP, "birthmark server restore x.birthmark --data old"),
        is_instead=True,
    ),
    "store.seal_broken": Scenario(
        serve("own"),
        typed("unset BIRTHMARK_DATA", serve("own"), "mv own/est.seed kept", "(umask 077; echo another > own/est.seed)"),
        apply=put_back,
    ),
    "server.database_moved": Scenario(
        serve("own"),
        typed("unset BIRTHMARK_DATA", serve("own"), 'birthmark db move --data own --into "sqlite:///$PWD/moved.db"'),
        is_instead=True,
        apply=for_a_while,
    ),
    "server.moved_differs": Scenario(
        MEDDLED,
        typed("unset BIRTHMARK_DATA", serve("own")),
        is_instead=True,
    ),
    "server.move_target": Scenario(
        "birthmark db move --data own --into sqlite:///old/birthmark.db",
        typed(*BACKED_UP, "birthmark server restore x.birthmark --data old", serve("own")),
        is_instead=True,
    ),
    "server.backup_inside": Scenario(
        'birthmark server backup --out "$BIRTHMARK_DATA/x.birthmark"', typed(PASSPHRASE), is_instead=True
    ),
    "server.nothing_to_back_up": Scenario(
        "birthmark server backup --out x.birthmark",
        typed(
            'mkdir -p "$HOME/.local/share"; ln -s "$BIRTHMARK_DATA" "$HOME/.local/share/birthmark"',
            "export BIRTHMARK_DATA=nowhere",
            PASSPHRASE,
        ),
    ),
    "server.nothing_to_upgrade": Scenario(
        "birthmark upgrade --check",
        typed(
            'mkdir -p "$HOME/.local/share"; ln -s "$BIRTHMARK_DATA" "$HOME/.local/share/birthmark"',
            "export BIRTHMARK_DATA=nowhere",
        ),
    ),
    "server.not_backed_up": Scenario("birthmark upgrade --check --data data", typed(OF_BEFORE)),
    "server.replay_refused": Scenario(
        "birthmark server restore x.birthmark --data new --replay heads.jsonl",
        typed(*BACKED_UP, "birthmark server audit export --out heads.jsonl"),
        is_instead=True,
        number=1,
    ),
    "server.restore_target": Scenario(
        "birthmark server restore x.birthmark --data full",
        typed(*BACKED_UP, "mkdir full; touch full/precious"),
        is_instead=True,
    ),
    "server.restore_unfinished": Scenario(
        serve("new"), typed(*BACKED_UP, "mkdir -p -m 700 new/.restoring"), apply=restored_again
    ),
    "operator.file_foreign": Scenario(
        "birthmark hub ls",
        typed('chown 12345 "$BIRTHMARK_DATA/endpoints.json"'),
        apply=removed,
        config="[est]\n",
        needs_root=True,
    ),
    "operator.token_refused": Scenario(
        CURL, typed(f"export AT=$(birthmark env --format json | {URL})"), apply=into("SHOWN")
    ),
    "server.certificate_unusable": Scenario(
        serve("own", "--config server.toml"), typed(*MISMATCHED), is_instead=True, types_all=True
    ),
    "server.config_invalid": Scenario(
        serve("typo", "--config server.toml"),
        typed("printf '[ports]\\nmqtt = \"secure\"\\n' > server.toml"),
        apply=lines_into("server.toml"),
    ),
    "server.data_directory_foreign": Scenario(
        serve("foreign"), typed("mkdir foreign; chown 12345 foreign"), needs_root=True
    ),
    "server.data_directory_not_writable": Scenario(
        f"birthmark serve --data plain/data --listen {ADDRESS}",
        typed("touch plain"),
        is_instead=True,
        apply=for_a_while,
    ),
}
