"""The production line as its people use it: chips in tokens, a scanner, a power loss, the hand-over to a cloud."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.server.servers import a_new_server, warm_environment

pytestmark = pytest.mark.system
CHIP = 'eval "$(birthmark chip simulate chip-{n} --chip se050)"'
TRUST = "--station station/station.pem --trust-root chip-1/maker-ca.pem"
TESTS = Path(__file__).parents[1]


def shell(directory: Path, *lines: str, stdin: str = "", **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=directory,
        env=warm_environment(HOME=str(directory), BIRTHMARK_OPERATOR="ann", **more),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_chip_goes_from_the_line_to_the_cloud(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        done = shell(
            tmp_path,
            "set -e",
            CHIP.format(n=1),
            "birthmark chip intake B-1 --trust-root chip-1/maker-ca.pem --json",
            "birthmark chip intake --seal --json",
            f"birthmark manifest verify station/intake-0001.jsonl {TRUST} --json",
            f"birthmark device enroll-list station/intake-0001.jsonl {TRUST} --json",
            f"birthmark device enroll-list station/intake-0001.jsonl {TRUST} --to aws --json",
            f"birthmark manifest extract station/intake-0001.jsonl {TRUST} --out pem --chain",
            BIRTHMARK_DATA=str(server.data),
        )
        assert done.returncode == 0, done.stderr
        taken, sealed, entry, azure, aws = map(json.loads, done.stdout.splitlines())
        assert (taken["board"], taken["operator"], taken["root"]) == ("B-1", "ann", "NXP-like test root")
        assert sealed["chips"] == 1
        assert (entry["board"], entry["device"], entry["root"]) == ("B-1", taken["device"], "NXP-like test root")
        assert (azure["outcome"], aws["outcome"]) == ("created", "created")
        assert (tmp_path / "pem" / f"{taken['device']}.pem").read_text().count("BEGIN CERTIFICATE") == 2


def test_an_exchanged_certificate_in_the_chip_is_not_taken_in(tmp_path: Path) -> None:
    done = shell(
        tmp_path,
        CHIP.format(n=1),
        "birthmark chip cert --out first.pem",
        CHIP.format(n=2),
        # What somebody who exchanges certificates does: another's in the place of the chip's own.
        "birthmark chip write first.pem --label sss:F0000101 >&2",
        "birthmark chip intake B-2 --json",
    )
    assert done.returncode == 1
    assert '"error": "intake.not_this_chip"' in done.stderr
    assert list((tmp_path / "station").glob("intake-*")) == []


def test_a_station_s_key_may_be_in_a_token(tmp_path: Path) -> None:
    done = shell(
        tmp_path,
        "set -e",
        CHIP.format(n=1),
        "birthmark chip keygen station-key >&2; mkdir -m 700 station",
        'name="pkcs11:token=SSS_PKCS11;object=station-key;type=private?pin-source=file:$PWD/chip-1/pin"',
        'echo "$name" > station/station.key',
        "birthmark chip intake B-1 --json",
        "birthmark chip intake --seal >&2",
        f"birthmark manifest verify station/intake-0001.jsonl {TRUST} --json",
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["board"] for line in done.stdout.splitlines()] == ["B-1", "B-1"]


@pytest.mark.parametrize("written", ["cat", "iconv -t UTF-16", "iconv -t UTF-16LE"])
def test_a_scanner_takes_boards_in_one_after_the_other(tmp_path: Path, written: str) -> None:
    done = shell(
        tmp_path,
        CHIP.format(n=1),
        f"printf 'B-1\\r\\n\\nB-1\\nB-2\\n' | {written} | birthmark chip intake --loop",
        "echo code $?",
    )
    words = [line.split()[:2] for line in done.stdout.splitlines()]
    assert words == [["TAKEN", "B-1"], ["REFUSED", "B-1"], ["REFUSED", "B-2"], ["code", "7"]]
    assert "1 chip recorded, 2 refused." in done.stderr
    assert done.stderr.count("Fix: ") == 2


def test_the_next_chip_is_seen_in_the_same_place(tmp_path: Path) -> None:
    for n in (1, 2):
        assert shell(tmp_path, CHIP.format(n=n)).returncode == 0
    (tmp_path / "chip").symlink_to("chip-1")
    made = shell(tmp_path, CHIP.format(n=1), "env -0").stdout.split("\0")
    chip = dict(pair.split("=", 1) for pair in made if pair.startswith(("BIRTHMARK_", "SOFTHSM2_")))
    chip = {name: value.replace("/chip-1/", "/chip/") for name, value in chip.items()}
    with subprocess.Popen(
        ["birthmark", "chip", "intake", "--loop"],
        cwd=tmp_path,
        env=warm_environment(HOME=str(tmp_path)) | chip,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as line:
        assert line.stdin is not None
        assert line.stdout is not None
        told = []
        for n in (1, 2):
            print(f"B-{n}", file=line.stdin, flush=True)
            told.append(line.stdout.readline().split()[:2])
            (tmp_path / "chip").unlink()
            (tmp_path / "chip").symlink_to("chip-2")
        line.stdin.close()
    assert told == [["TAKEN", "B-1"], ["TAKEN", "B-2"]]


def test_what_was_told_as_taken_outlives_a_kill_at_any_moment(tmp_path: Path) -> None:
    """Chips of plain keys in a loop of their own, killed again and again; what was told is in the bundle."""
    dice, told = random.Random(9), []
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-m", "support.chips.intake_loop", str(tmp_path / "north")],
            cwd=TESTS,
            env=warm_environment(HOME=str(tmp_path)),
            stdout=subprocess.PIPE,
            text=True,
        ) as line:
            assert line.stdout is not None
            told.append(line.stdout.readline().strip())
            time.sleep(dice.uniform(0, 0.05))
            os.kill(line.pid, signal.SIGKILL)
            told += [one.strip() for one in line.stdout if one.endswith("\n")]
    done = shell(
        tmp_path,
        "birthmark chip intake --seal --station north",
        "birthmark manifest verify north/intake-0001.jsonl --station north/station.pem --json",
    )
    assert done.returncode == 0, done.stderr
    boards = [json.loads(line)["board"] for line in done.stdout.splitlines() if '"board"' in line]
    assert len(told) > 20
    assert set(told) <= set(boards)
    assert len(boards) == len(set(boards)) <= len(told) + 12


def test_two_processes_at_one_station_write_one_after_the_other(tmp_path: Path) -> None:
    loop = [sys.executable, "-m", "support.chips.intake_loop", str(tmp_path / "north"), "40"]
    lines = [subprocess.Popen(loop, cwd=TESTS, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = [board for line in lines for board in line.communicate()[0].split()]
    assert [line.returncode for line in lines] == [0, 0, 0]
    done = shell(
        tmp_path,
        "birthmark chip intake --seal --station north",
        "birthmark manifest verify north/intake-0001.jsonl --station north/station.pem --json",
    )
    assert done.returncode == 0, done.stderr
    boards = [json.loads(line)["board"] for line in done.stdout.splitlines() if '"board"' in line]
    assert len(boards) == 120
    assert set(boards) == set(told)
