"""`birthmark demo`: end-to-end scenarios on this machine."""

import contextlib
import importlib
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.output.table import format_count

if TYPE_CHECKING:
    from birthmark.demo.harness import Stage


class DemoScenario(StrEnum):
    """Demo scenarios, including the value for all of them."""

    AZURE = "azure"
    GROUP = "group"
    MANIFEST = "manifest"
    AWS = "aws"
    JITP = "jitp"
    EST = "est"
    TWIN = "twin"
    RENEW = "renew"
    EDGE = "edge"
    FACTORY = "factory"
    JOBS = "jobs"
    TELEMETRY = "telemetry"
    ALL = "all"


_WIDE = 240


def demo(
    scenario: Annotated[DemoScenario, typer.Argument(help="Scenario.")] = DemoScenario.ALL,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the servers until Enter is pressed, and keep the files.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a demo scenario with the vendors' unmodified SDKs.

    Starts its own server and a simulated secure element.

    azure: SE050, individual enrollment. group: ATECC608, own CA. manifest: a Trust&GO shipment. aws: SE050 over
    PKCS#11. jitp: twenty chips of one CA become things automatically. est: a device agent renews its certificate.
    twin: device twins and methods of a hub. renew: no password, an expired certificate, a new root. edge: a gateway
    with two modules, renewed by the hub. factory: twenty chips at two stations of a line. jobs: a rollout that aborts
    itself, and a webhook. telemetry: a back end reads a device's messages.
    """
    from birthmark.cli.app import check_extra

    check_extra("demo")  # before the first step, not the fourth
    from birthmark.clock_and_entropy import SystemEntropy
    from birthmark.demo.harness import stage

    chosen = [j for j in DemoScenario if j is not DemoScenario.ALL] if scenario is DemoScenario.ALL else [scenario]
    console = Console(stderr=as_json, highlight=False)
    if not console.is_terminal:
        console.width = _WIDE  # keeps names unbroken for programs that parse the table
    tables = []
    with ExitStack() as held:
        stages = []
        for number, one in enumerate(chosen, 1):
            play = importlib.import_module(f"birthmark.demo.{one.value}")
            with ExitStack() as this:
                on = this.enter_context(stage(one.value, console, SystemEntropy(), keep=keep))
                place = f"{number}/{len(chosen)}  " if len(chosen) > 1 else ""
                on.title(place + play.TITLE, play.ABOUT)
                play.play(on)
                tables.append(on.table())
                if as_json:
                    for proof in on.proofs:
                        typer.echo(json.dumps(proof.as_row(one.value)))
                if keep:
                    stages.append(on)
                    held.push(this.pop_all())
        console.rule()
        for table in tables:
            console.print(table)
        console.print(f"{format_count(len(tables), 'scenario')} completed; every claim above was checked.")
        _hold(stages, console)


def _hold(stages: "Sequence[Stage]", console: Console) -> None:
    """Keep the servers running until the user presses Enter; return at once without input."""
    links = [(one.scenario, link) for one in stages if (link := one.console_link()) is not None]
    for scenario, link in links:
        console.print(f"Console of “{scenario}” (single-use link): {link}", soft_wrap=True)
    if links:
        console.print("Press Enter to stop the servers.")
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.readline()
