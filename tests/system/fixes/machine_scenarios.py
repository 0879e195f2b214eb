"""Several machines that serve as one: to invite, to join, to lead."""

import json
from collections.abc import Callable, Mapping

from fixes.scenario import Scenario
from fixes.scene import Scene, commands_in
from fixes.server_scenarios import serve

from support.server.servers import RunningServer, a_server, free_address
from support.services.nats_server import a_nats
from support.services.postgres import a_postgres

JOIN = "birthmark server node join invitation.json --data second"
INVITE = "birthmark server node invite --out invitation.json"
LEAD_WANTED = "birthmark pki rollover start --yes"


def engines(scene: Scene) -> str:
    """Start a database and a bus; return what a configuration says of them."""
    url, bus = scene.closing.enter_context(a_postgres()), scene.closing.enter_context(a_nats())
    scene.environment |= {"BIRTHMARK_DATABASE": url, "BIRTHMARK_BUS": bus}
    return f'database = "{url}"\nbus = "{bus}"\n'


def first(scene: Scene) -> RunningServer:
    """A server that may invite."""
    scene.directory.joinpath("own").mkdir()
    server = scene.server = scene.closing.enter_context(a_server(scene.directory / "own", engines(scene)))
    scene.environment["BIRTHMARK_DATA"] = str(server.data)
    return server


def invited(*lines: str) -> Callable[[Scene], None]:
    """A server that has invited, and what is typed then."""

    def prepare(scene: Scene) -> None:
        first(scene)
        for line in (INVITE, *lines):
            scene.must(line)

    return prepare


def without_database(scene: Scene) -> None:
    invited()(scene)
    scene.environment["MEANT"] = scene.environment.pop("BIRTHMARK_DATABASE")


def without_bus(scene: Scene) -> None:
    invited(JOIN)(scene)
    scene.environment["MEANT"] = scene.environment.pop("BIRTHMARK_BUS")


def as_it_is_meant(variable: str) -> Callable[[Scene, str], None]:
    """Type the fix's export with the place that is meant."""

    def apply(scene: Scene, fix: str) -> None:
        (command,) = commands_in(fix)
        assert command.startswith(f"export {variable}=")
        scene.must(f'export {variable}="$MEANT"')

    return apply


def joined_anew(scene: Scene, fix: str) -> None:
    """Bring a new invitation, and type the fix's command."""
    (command,) = commands_in(fix)
    scene.must(f"rm invitation.json; {INVITE}")
    scene.must(command)


def brought(scene: Scene, fix: str) -> None:
    """Type the fix's command where the server runs, and join by what it made."""
    (command,) = commands_in(fix)
    scene.must(f"{command}; mv joining.json invitation.json")


def with_another_key(scene: Scene) -> None:
    invited()(scene)
    path = scene.directory / "invitation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sealing_key": "00" * 32}))


def half_joined(scene: Scene) -> None:
    invited(JOIN)(scene)
    path = scene.directory / "second" / "machine.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"is_whole": False}))


def at_the_second(scene: Scene) -> None:
    """A second machine that serves, while the first has stopped."""
    server = first(scene)
    scene.must(INVITE)
    scene.must("birthmark server node join invitation.json --data two/data")
    server.stop()
    configuration = server.config.read_text() if server.config else ""
    second = scene.closing.enter_context(a_server(scene.directory / "two", configuration))
    scene.environment["BIRTHMARK_DATA"] = str(second.data)


def served_by_workers(scene: Scene, fix: str) -> None:
    """Stop the server, and type the fix's command with the bus that is meant."""
    (command,) = commands_in(fix)
    assert scene.server is not None
    scene.server.stop()
    engines(scene)
    command = command.replace("nats://nats.example:4222", scene.environment["BIRTHMARK_BUS"])
    scene.must(f"{command} --data own --listen {free_address()} > serve.log 2>&1 & echo $! > serve.pid")
    scene.closing.callback(scene.must, "kill $(cat serve.pid)")
    scene.environment["BIRTHMARK_DATA"] = str(scene.directory / "own")
    scene.must("birthmark env --wait 60")


MACHINES: Mapping[str, Scenario] = {
    "cli.database_wanted": Scenario(JOIN, without_database, apply=as_it_is_meant("BIRTHMARK_DATABASE")),
    "server.invitation_refused": Scenario(JOIN, invited("echo none > invitation.json"), apply=brought),
    "server.shared_unreadable": Scenario(JOIN, with_another_key, is_instead=True, apply=joined_anew),
    "server.machine_occupied": Scenario(
        JOIN, invited("mkdir -m 700 second; touch second/birthmark.db"), is_instead=True
    ),
    "server.join_unfinished": Scenario(serve("second"), half_joined),
    "server.bus_missing": Scenario(serve("second"), without_bus, apply=as_it_is_meant("BIRTHMARK_BUS")),
    "server.machine_elsewhere": Scenario(LEAD_WANTED, at_the_second),
    "server.machine_alone": Scenario(INVITE, apply=served_by_workers, config="[est]\n"),
}
