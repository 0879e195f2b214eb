"""Each fix works as it is typed: rows are provoked together, told by one `birthmark why`, and typed one by one."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import boto3
import pytest
from botocore.config import Config
from fixes.desk import Desk
from fixes.rows import ROWS
from fixes.rows_azure import webhooks
from fixes.rows_credentials import functions
from fixes.rows_files import CONFIG
from fixes.rows_first_contact import BOUNDS
from fixes.scene import a_scene, commands_in

from support.server.servers import RunningServer, a_server

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]  # all rows are provoked first
_Told = Mapping[str, tuple[Desk, str]]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("rows")
    with (
        functions(directory) as config,
        webhooks() as known_too,
        a_server(directory, BOUNDS + config + CONFIG) as server,
    ):
        scene = a_scene(directory, server)
        scene.environment.update(known_too)
        scene.must('eval "$(birthmark env)"; birthmark ca init --name Fixes --dir ca')
        known = scene.environment
        client = boto3.client(
            "iot",
            endpoint_url=known["AWS_ENDPOINT_URL_IOT"],
            region_name=known["AWS_REGION"],
            aws_access_key_id=known["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=known["AWS_SECRET_ACCESS_KEY"],
            verify=known["AWS_CA_BUNDLE"],
            config=Config(retries={"total_max_attempts": 1}),
        )
        yield Desk(scene, server, client)


def a_desk(desk: Desk, code: str) -> Desk:
    directory = desk.scene.directory / code
    directory.mkdir()
    (directory / "ca").symlink_to(desk.path("ca"))
    return replace(desk, scene=replace(desk.scene, directory=directory, environment=dict(desk.scene.environment)))


def fixes(server: RunningServer, wanted: set[str]) -> Mapping[str, str]:
    """Return the latest fix of each code; a row may be written a moment after the client saw its error."""
    deadline = time.monotonic() + 5
    while True:
        told = {row["code"]: row["fix"] for row in reversed(server.rows("why", "--limit", "1000"))}
        if wanted <= told.keys() or time.monotonic() > deadline:
            return told
        time.sleep(0.2)


@pytest.fixture(scope="module")
def provoked(desk: Desk) -> _Told:
    """Provoke every row; what could not be provoked is told by its own test."""
    desks = {code: a_desk(desk, code) for code in ROWS}
    wrong: dict[str, str] = {}
    for code, row in ROWS.items():
        try:
            row.prepare(desks[code])
        except Exception as error:  # noqa: BLE001 - told by the row's test, not by everybody's
            wrong[code] = f"not prepared: {error!r}"
            continue
        try:
            row.act(desks[code])
        except Exception:  # noqa: BLE001 - each client has its own errors; the ledger tells which refusal it was
            continue
        wrong[code] = "was not refused"
    told = fixes(desk.server, set(ROWS) - wrong.keys())
    return {code: (desks[code], wrong.get(code) or told.get(code, "not told")) for code in ROWS}


@pytest.mark.parametrize("code", ROWS)
def test_the_fix_of_a_row_works_as_it_is_typed(provoked: _Told, code: str) -> None:
    (desk, fix), row = provoked[code], ROWS[code]
    for following in ("", *row.then):
        if following:
            with pytest.raises(Exception):  # noqa: B017 - each client has its own errors
                row.act(desk)
            fix = fixes(desk.server, {following})[following]
        if row.apply is not None:
            row.apply(desk.scene, fix)
            continue
        commands = commands_in(fix)
        assert commands, fix
        done = desk.scene.type(commands[0])
        assert done.returncode == 0, f"{commands[0]}\n{done.stdout}{done.stderr}"
    if not row.is_instead:
        row.act(desk)
