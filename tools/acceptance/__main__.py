"""`scripts/acceptance`: play journeys with real chips and clouds, undo them, and keep what was seen."""

import argparse
import contextlib
import json
import os
import platform
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.acceptance import rehearsing
from tools.acceptance.journeys import journeys
from tools.acceptance.playing import Play, written
from tools.acceptance.steps import Journey, Step

FORM = "birthmark-acceptance-1"
_EXIT_ASKED, _EXIT_OTHERWISE, _EXIT_LEFT = 6, 1, 8
_ABOUT = """Play the journeys with what cannot be had on a build machine: chips, a TPM, accounts at Azure and AWS.
Each step that writes says what and asks first; at the end, or when you break off, all of it is taken back. What was
seen is kept in acceptance.json, with versions and without secrets; look through it before you send it.
"""


def main() -> int:
    """Return 0 where everything was as it has to be, 1 where not, 8 where something could not be taken back."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # also into a pipe, as to `tee`
    given = _given()
    if given.undo is not None:
        return _undone(given.undo)
    names = given.journeys or (list(journeys()) if given.rehearse else [])
    if not names:
        print("Say which journeys: " + ", ".join(journeys()) + ". Or: scripts/acceptance --rehearse", file=sys.stderr)
        return 2
    directory: Path = given.out.resolve()
    if _has_seen(directory / "acceptance.json"):
        print(f"{directory} has what was seen before. Name another place: --out", file=sys.stderr)
        return 2
    os.umask(0o077)  # what servers of a run's own are reached by is nobody else's
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C
    directory.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"form": FORM, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    record |= {"rehearsed": given.rehearse, "versions": _versions(), "journeys": []}
    is_good, is_clean = True, True
    for name in names:
        try:
            good, clean = _one(journeys()[name], given, directory, record)
        except KeyboardInterrupt:  # no further one begins
            is_good, is_clean = False, not any(one.get("owed") for one in record["journeys"])
            break
        is_good &= good
        is_clean &= clean
    print(f"What was seen: {directory / 'acceptance.json'}")
    if not is_clean:
        print(f"Something could not be taken back. Try again: scripts/acceptance --undo {directory}")
        return _EXIT_LEFT
    return 0 if is_good else _EXIT_OTHERWISE


def _given() -> argparse.Namespace:
    needs = "\n".join(f"  {one.name:11} {one.title}; {one.needs}" for one in journeys().values())
    parser = argparse.ArgumentParser(
        prog="scripts/acceptance",
        description=_ABOUT,
        epilog=f"journeys:\n{needs}\n\nExample: scripts/acceptance se050 azure-chip --profile factory --out seen",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("journeys", nargs="*", metavar="JOURNEY", choices=[*journeys(), []])
    parser.add_argument("--rehearse", action="store_true", help="with chips of software and our own server")
    parser.add_argument("--profile", default="cloud", help="where enrollments go (docs/howto/clouds.md)")
    parser.add_argument("--tcti", default="device", help="how the TPM is reached")
    parser.add_argument("--out", type=Path, default=Path("acceptance"), help="directory for what was seen")
    parser.add_argument("--yes", action="store_true", help="do not ask before what writes")
    parser.add_argument("--undo", type=Path, metavar="DIR", help="take back what an earlier run could not")
    return parser.parse_args()


def _has_seen(path: Path) -> bool:
    """Say whether anything was played there: what only said what it needs is no reason to take another place."""
    if not path.exists():
        return False
    try:
        return any("steps" in one for one in json.loads(path.read_text())["journeys"])
    except (ValueError, KeyError, TypeError):  # something of somebody's
        return True


def _one(scenario: Journey, given: argparse.Namespace, directory: Path, record: dict[str, Any]) -> tuple[bool, bool]:
    """Play one journey; say whether it went as it has to, and whether all of it was taken back.

    Raise `KeyboardInterrupt` where it was broken off, when it was taken back.
    """
    print(f"{scenario.name}: {scenario.title}")
    kept: dict[str, Any] = {"name": scenario.name, "title": scenario.title}
    record["journeys"].append(kept)
    here = directory / scenario.name
    with contextlib.ExitStack() as stack:
        environment = {**os.environ, "PROFILE": given.profile, "TCTI": given.tcti, "FREE": rehearsing.free_address()}
        if given.rehearse:
            environment |= _rehearsed(scenario, directory / f"{scenario.name}-stands-in", environment, stack)
        missing = [name for name in scenario.variables if not environment.get(name)]
        if missing:
            print(f"  not played: it needs {', '.join(missing)}; what that is: {scenario.needs}")
            kept["result"] = f"not played: no {', '.join(missing)}"
            written(directory / "acceptance.json", record)
            return False, True
        agrees = _agreeing(is_asked=not (given.yes or given.rehearse))

        def keep() -> None:
            names = {each: environment[each] for each in ("NAME", "ID") if each in environment}
            kept.update(steps=play.seen, owed=play.owed, stays=play.stays, profile=environment["PROFILE"], names=names)
            written(directory / "acceptance.json", record)

        play = Play(scenario, here, environment, agrees, print, keep)
        play.begin()
        is_good = False
        try:
            is_good = play.play()
        except KeyboardInterrupt:
            print("  broken off")
            raise
        finally:
            kept["result"] = "as it has to be" if is_good else "otherwise"
            is_clean = play.undo()
        return is_good, is_clean


def _rehearsed(
    scenario: Journey, directory: Path, environment: dict[str, str], stack: contextlib.ExitStack
) -> dict[str, str]:
    directory.mkdir(parents=True)
    if scenario.name == "tpm":
        return {"TCTI": stack.enter_context(rehearsing.a_tpm(directory / "tpm"))}
    if scenario.name in {"azure", "azure-chip", "aws"}:
        environment = stack.enter_context(rehearsing.a_cloud(directory, environment))
        environment["PROFILE"] = rehearsing.PROFILE
    return rehearsing.a_chip(scenario.name, directory / "chip", environment)


def _agreeing(*, is_asked: bool) -> Callable[[Step], bool]:
    def agrees(step: Step) -> bool:
        print(f"  {step.title} writes {step.writes}." + (f" It stays: {step.stays}." if step.stays else ""))
        if not is_asked:
            return True
        if not sys.stdin.isatty():
            print("  Nobody is here to be asked: say --yes where that is meant.", file=sys.stderr)
            sys.exit(_EXIT_ASKED)
        try:
            return input("  Go on? [y/N] ").strip().lower() in {"y", "yes"}
        except EOFError:  # Ctrl-D
            return False

    return agrees


def _undone(directory: Path) -> int:
    """Take back what is owed still, by what was kept of it."""
    path = directory.resolve() / "acceptance.json"
    if not path.exists():
        print(f"Nothing was written there: {path} does not exist.", file=sys.stderr)
        return 2
    record, is_clean = json.loads(path.read_text()), True
    for kept in record["journeys"]:
        if not kept.get("owed"):
            continue
        print(kept["name"])
        here = path.parent / kept["name"]
        names = {name: kept.get("names", {}).get(name, "") for name in ("NAME", "ID")}
        environment = {**os.environ, **names, "PROFILE": kept["profile"]}

        def keep() -> None:
            written(path, record)

        play = Play(journeys()[kept["name"]], here, environment, lambda _: True, print, keep)
        play.owed = kept["owed"]  # the record's own, which is written when a line is done
        is_clean &= play.undo()
    return 0 if is_clean else _EXIT_LEFT


def _versions() -> dict[str, str]:
    told = subprocess.run(["birthmark", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "birthmark": told,
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
        "module": os.environ.get("BIRTHMARK_PKCS11_MODULE", ""),
    }


if __name__ == "__main__":
    sys.exit(main())
