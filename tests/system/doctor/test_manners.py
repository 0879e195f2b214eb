"""What doctor does not do: change anything, tell a secret, ask anybody when offline."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from doctor.agent_faults import configured
from doctor.environment_faults import ENV
from doctor.fault import CHIP
from fixes.agent_scenarios import CONFIG
from fixes.scene import Scene, a_scene, commands_in

from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system
SECRET = "s3cret-of-nobody"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("server"), is_warm=False) as running:
        yield running


@pytest.fixture
def scene(server: RunningServer, tmp_path: Path) -> Scene:
    made = a_scene(tmp_path, server)
    for line in (*configured(), CHIP):
        made.must(line)
    return made


def test_no_secret_is_told(scene: Scene) -> None:
    scene.must(f"sed -i 's|^username = .*|username = 7|; s|^password = .*|password = [\"{SECRET}\"]|' {CONFIG}")
    scene.must(f"export https_proxy=http://me:{SECRET}@127.0.0.1:9")
    scene.must(f"printf 'pkcs11-module-token-pin = {SECRET}\\n' > openssl.cnf; export OPENSSL_CONF=openssl.cnf")
    told = "".join(scene.type(f"birthmark doctor --root root {option}").stdout for option in ("--json", "--verbose"))
    secrets = {scene.environment[name] for name in scene.environment if re.search("SECRET|CONNECTION_STRING", name)}
    assert secrets
    assert "agent.config_invalid" in told
    assert not [one for one in (SECRET, (scene.directory / "chip/pin").read_text().strip(), *secrets) if one in told]


def test_nothing_is_changed(scene: Scene) -> None:
    def state() -> dict[Path, tuple[int, bytes]]:
        files = [path for path in scene.directory.rglob("*") if path.is_file() and path.name != ".environment"]
        ours = [path for path in files if "tokens" not in path.parts]  # SoftHSM writes what it opens
        return {path: (path.stat().st_mode, path.read_bytes()) for path in ours}

    before = state()
    scene.type("birthmark doctor --root root")
    assert state() == before


def test_offline_nobody_is_asked(scene: Scene) -> None:
    scene.must("unset BIRTHMARK_DATA; export PROVISIONING_HOST=nowhere.invalid https_proxy=http://127.0.0.1:9")
    rows = [json.loads(line) for line in scene.type("birthmark doctor --offline --json").stdout.splitlines()]
    assert not [row for row in rows if row["topic"] == "network" or row["code"] == "doctor.proxy_unreachable"]


def test_what_is_right_is_said_when_it_is_asked_for(scene: Scene) -> None:
    done = scene.type("birthmark doctor --offline --verbose")
    assert done.returncode == 0, done.stdout
    assert "token 'SSS_PKCS11' opens" in done.stdout


def test_a_library_that_crashes_leaves_the_agent_unlooked_at(scene: Scene) -> None:
    scene.must(f"{ENV}; printf 'void __attribute__((constructor)) f(void) {{ *(volatile int *)0 = 1; }}' > c.c")
    scene.must('gcc -shared -fPIC -w -o c.so c.c; export BIRTHMARK_PKCS11_MODULE="$PWD/c.so"')
    rows = [
        json.loads(line) for line in scene.type("birthmark doctor --offline --json --root root").stdout.splitlines()
    ]
    assert {"doctor.library_crashes", "doctor.agent_not_checked"} <= {row["code"] for row in rows}


def test_a_new_terminal_is_told_of_the_server_and_the_chip_that_it_does_not_know(scene: Scene) -> None:
    scene.must('mkdir -p "$HOME/.local/share"; ln -s "$BIRTHMARK_DATA" "$HOME/.local/share/birthmark"')
    ours = ("BIRTHMARK_", "PROVISIONING_", "AWS_", "SOFTHSM2_")
    for name in [one for one in scene.environment if one.startswith(ours)]:
        scene.must(f"unset {name}")
    refused = scene.type("birthmark chip cert")
    told = scene.must("birthmark doctor --offline --json").splitlines()
    notes = {row["code"]: row["command"] for row in map(json.loads, told) if row["severity"] == "note"}
    assert notes.keys() == {"doctor.shell_not_set_up", "doctor.chip_not_named", "doctor.refused_lately"}
    assert "keys.token_not_found" in scene.must(notes["doctor.refused_lately"])
    (command,) = commands_in(scene.fix_of("keys.token_not_found", refused))
    scene.must(command)
    scene.must("birthmark chip cert")
    scene.must(notes["doctor.shell_not_set_up"])
    scene.must("aws iot list-things")
