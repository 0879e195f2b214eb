"""A fault: how it is seeded, what doctor has to say of it, and how its printed fix is typed."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fixes.scenario import after, typed
from fixes.scene import Scene

__all__ = ["CHIP", "Fault", "after", "diagnosed", "mended", "typed"]

CHIP = 'eval "$(birthmark chip simulate chip)"'


@dataclass(frozen=True)
class Fault:
    """`prepare` seeds it; `birthmark doctor OPTIONS` names `code`, with `evidence` in what was seen.

    The fix's command is typed as it stands, with the file `stdin` for what a person types into it, and doctor then
    finds nothing to do, but for the codes in `leaves`. With `is_instead` the command is that of doctor itself. Where
    only a person can mend it, `for_a_person` says why. What comes to light then is in `then`, and mended in turn.
    `works` is what a user wanted to do: it fails before the fix, and passes after it.
    """

    prepare: Callable[[Scene], None]
    code: str
    evidence: str
    options: str = "--offline"
    stdin: str = ""
    is_instead: bool = False
    for_a_person: str = ""
    leaves: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    works: str = ""


def diagnosed(scene: Scene, options: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """Run doctor; return how it ended and its findings that are not right."""
    done = scene.type(f"birthmark doctor {options} --json")
    assert done.returncode in {0, 1, 6}, f"{done.stdout}{done.stderr}"
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return done, [row for row in rows if row["severity"] not in {"ok", "note"}]


def mended(scene: Scene, fault: Fault, command: str) -> None:
    """Type the command as it stands, and see that the fault is gone."""
    given = None if not fault.stdin else (scene.directory / fault.stdin).read_text()
    done = scene.type(command, given)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    if fault.is_instead:
        return
    again, left = diagnosed(scene, fault.options)
    for code in fault.then:
        (found,) = [row for row in left if row["code"] == code]
        done = scene.type(found["command"])
        assert done.returncode == 0, f"{found['command']}\n{done.stdout}{done.stderr}"
        again, left = diagnosed(scene, fault.options)
    assert {row["code"] for row in left} <= set(fault.leaves), left
    assert again.returncode == (6 if left else 0)
