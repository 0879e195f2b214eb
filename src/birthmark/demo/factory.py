"""Production line: twenty secure elements at two stations, and attempts to tamper between line and cloud."""

import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from birthmark.demo.harness import IN_CHIP, DemoProof, Job, Stage, app_path, together

TITLE = "A production line → Azure and AWS"
ABOUT = "Twenty chips, two offline stations, one signed list. Both clouds enroll every board."
_CHIPS = 20
_MESSAGES = 10
_LABEL = "sss:F0000100"
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["iot:Connect", "iot:Publish", "iot:Receive", "iot:Subscribe"],
            "Resource": "*",
        }
    ],
}


@dataclass
class _Chip:
    """A secure element on its board."""

    board: str
    directory: str
    variables: dict[str, str]
    name: str = ""
    thumbprint: str = ""


def play(stage: Stage) -> None:
    """Run the scenario."""
    stage.say(f"{_CHIPS} boards leave the line, each with an SE050. All are simulated, each with its own CA.")
    chips = _chips(stage)
    north, south = chips[: _CHIPS // 2], chips[_CHIPS // 2 :]

    stage.say("One chip contains the certificate of another. The station verifies the chip itself and rejects it.")
    _exchange(stage, north[4], north[3])

    stage.say("Station north records ten boards: insert a board, scan its serial number, and repeat.")
    _run_intake(stage, "north", north)
    stage.say("Station south does the same in parallel. Neither station has a network.")
    _run_intake(stage, "south", south)

    stage.say(
        "At night, another station records a chip of station north again, on another board. The station cannot "
        "detect it; verification of the list can."
    )
    stage.birthmark("chip", "intake", "BOARD-9999", "--station", "night", environment=north[0].variables)

    stage.say("For the handover, seal the bundles and merge them into one file.")
    trust = _hand_over(stage)

    stage.say("Start the local cloud, and enroll the complete list in Azure and in AWS.")
    stage.serve()
    stage.path("policy.json").write_text(json.dumps(_POLICY))
    document = ("--policy-document", "file://policy.json")
    stage.run("aws", "iot", "create-policy", "--policy-name", "line", *document)
    for to in (("--to", "azure"), ("--to", "aws", "--policy", "line")):
        rows = stage.rows("device", "enroll-list", "shipment.jsonl", *trust, *to)
        stage.expect(dict(Counter(row["outcome"] for row in rows)), {"created": _CHIPS}, to[1])

    stage.say("Switch on every device: ten use Microsoft's SDK, ten use Amazon's. The keys stay in the chips.")
    _connect_azure(stage, north)
    _connect_aws(stage, south)


def _chips(stage: Stage) -> list[_Chip]:
    made_by = ("birthmark", "chip", "simulate", "--chip", "se050", "--json")
    jobs: list[Job] = [((*made_by, f"chip-{n:02}"), {}) for n in range(1, _CHIPS + 1)]
    chips = []
    for n, done in enumerate(together(stage, jobs), 1):
        made: dict[str, str] = json.loads(done.stdout)
        variables = {name: value for name, value in made.items() if name.isupper()}
        chips.append(_Chip(f"BOARD-{n:04}", f"chip-{n:02}", variables))
    roots = [stage.path(f"{chip.directory}/maker-ca.pem").read_text() for chip in chips]
    stage.path("maker-ca.pem").write_text("".join(roots))
    return chips


def _exchange(stage: Stage, victim: _Chip, other: _Chip) -> None:
    """Write another device's certificate to a secure element, expect a refusal, and restore the original."""
    stage.birthmark("chip", "cert", "--out", "own.pem", environment=victim.variables)
    stage.birthmark("chip", "cert", "--out", "others.pem", environment=other.variables)
    label = ("--label", "sss:F0000101")
    stage.birthmark("chip", "write", "others.pem", *label, environment=victim.variables)
    intake = ("chip", "intake", victim.board, "--station", "north", "--operator", "ann", "--json")
    refused = stage.birthmark(*intake, environment=victim.variables, may_fail=True)
    stage.expect(json.loads(refused.stderr.splitlines()[-1])["error"], "intake.not_this_chip", "refused")
    stage.birthmark("chip", "write", "own.pem", *label, environment=victim.variables)


def _run_intake(stage: Stage, station: str, chips: Sequence[_Chip]) -> None:
    """Run intake for each secure element at a station; only the inserted element changes between two scans."""
    holder = stage.path(f"holder-{station}")
    command = ("birthmark", "chip", "intake", "--loop", "--station", station, "--operator", "ann", "--json")
    line = stage.start(
        *command,
        "--trust-root",
        "maker-ca.pem",
        log=f"{station}.log",
        environment={
            name: value.replace(chips[0].directory, holder.name) for name, value in chips[0].variables.items()
        },
        is_told=True,
    )
    for chip in chips:
        holder.unlink(missing_ok=True)
        holder.symlink_to(chip.directory)
        row = _scan_board(line, chip.board)
        chip.name, chip.thumbprint = row.get("device", "?"), row.get("thumbprint", "?")
    ended = line.communicate()[0] or line.returncode
    stage.expect(ended, 0, f"exit code after {len(chips)} boards, from {chips[0].board} to {chips[-1].board}")


def _scan_board(line: "subprocess.Popen[str]", board: str) -> dict[str, Any]:
    """Enter a serial number as a scanner does, and return the response."""
    with suppress(BrokenPipeError):  # no answer to read either
        print(board, file=line.stdin, flush=True)
    told: dict[str, Any] = json.loads(next(iter(line.stdout or ()), "{}"))
    return told


def _hand_over(stage: Stage) -> tuple[str, ...]:
    for station in ("north", "south", "night"):
        stage.birthmark("chip", "intake", "--seal", "--station", station)
    trust = ("--trust-root", "maker-ca.pem", "--station", "north/station.pem", "--station", "south/station.pem")
    north, south, night = (f"{station}/intake-0001.jsonl" for station in ("north", "south", "night"))
    merged = ("manifest", "merge", north, south)
    third = ("--station", "night/station.pem")
    refused = stage.birthmark(*merged, night, *trust, *third, "--out", "shipment.jsonl", "--json", may_fail=True)
    stage.note(json.loads(refused.stdout.splitlines()[0]).get("cause", "nothing was rejected"))
    stage.expect(stage.path("shipment.jsonl").exists(), False, "written despite the error")
    stage.birthmark(*merged, *trust, "--out", "shipment.jsonl")

    stage.say("Verification detects a line that was removed from the file in transit.")
    lines = stage.path("shipment.jsonl").read_bytes().splitlines(keepends=True)
    stage.path("cut.jsonl").write_bytes(b"".join(lines[:7] + lines[8:]))
    told = stage.birthmark("manifest", "verify", "cut.jsonl", *trust, "--json", may_fail=True).stdout
    found = [row["error"] for line in told.splitlines() if "error" in (row := json.loads(line))]
    stage.expect(found, ["manifest.malformed", "manifest.not_whole"], "refused")
    rows = stage.rows("manifest", "verify", "shipment.jsonl", *trust)
    stage.expect(len({row["board"] for row in rows}), _CHIPS, "boards verified, each with a proof of its chip")
    stage.birthmark("manifest", "extract", "shipment.jsonl", *trust, "--out", "certificates")
    return trust


def _connect_azure(stage: Stage, chips: Sequence[_Chip]) -> None:
    program = ("birthmark", "chip", "exec", "--", "python", str(app_path("azure_device.py")))
    jobs = []
    for chip in chips:
        stage.path(f"{chip.board}.key").write_text(
            f"pkcs11:token={chip.variables['BIRTHMARK_TOKEN']};object={_LABEL};type=private\n"
        )
        identity = {"DPS_X509_REGISTRATION_ID": chip.name, "X509_CERT_FILE": f"certificates/{chip.name}.pem"}
        jobs.append((program, {**chip.variables, **identity, "X509_KEY_FILE": f"{chip.board}.key"}))
    together(stage, jobs)
    on_record = {row["name"]: row["state"] for row in stage.rows("device", "ls")}
    states = Counter(on_record[chip.name.lower()] for chip in chips)
    stage.expect(dict(states), {"assigned": len(chips)}, "registration state")
    hub = stage.endpoints["iothub"]["host"]
    received = Counter(row["device"] for row in stage.rows("hub", "messages", "--limit", "1000"))
    for chip in chips:
        count = received[chip.name.lower()]
        stage.prove(DemoProof(f"{chip.board} {chip.name}", IN_CHIP, chip.thumbprint, f"hub {hub}", f"{count} received"))
    stage.expect({received[chip.name.lower()] for chip in chips}, {_MESSAGES}, "messages per device in the hub")


def _connect_aws(stage: Stage, chips: Sequence[_Chip]) -> None:
    jobs = []
    for chip in chips:
        identity = {
            "AWS_IOT_ENDPOINT": stage.endpoints["aws"]["data_endpoint"],
            "THING_NAME": chip.name,
            "CERT_FILE": f"certificates/{chip.name}.pem",
            "PKCS11_LIB": chip.variables["BIRTHMARK_PKCS11_MODULE"],
            "TOKEN_LABEL": chip.variables["BIRTHMARK_TOKEN"],
            "PIN_FILE": chip.variables["BIRTHMARK_PIN_FILE"],
            "KEY_LABEL": _LABEL,
            "CA_FILE": stage.endpoints["trust_bundle"],
        }
        jobs.append((("python", str(app_path("aws_device.py"))), {**chip.variables, **identity}))
    for chip, done in zip(chips, together(stage, jobs), strict=True):
        told = done.stdout.splitlines()[-1]
        stage.prove(DemoProof(f"{chip.board} {chip.name}", IN_CHIP, chip.thumbprint, f"thing {chip.name}", told))
    stage.note(f"{len(chips)} things, each with its messages sent and received")
