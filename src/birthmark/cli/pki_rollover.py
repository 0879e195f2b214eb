"""`birthmark pki rollover`: roll over the root of a running server step by step."""

from typing import Annotated, Any

import typer

from birthmark.cli.option_checks_and_confirmation import confirm
from birthmark.cli.options.server import ServerOutputOptions, at
from birthmark.cli.output.command_output import emit

_AT = at("ca", "rollover")
_NOW = {
    "one root": "No rollover is in progress. `birthmark pki rollover start` creates a new root and trusts both.",
    "both trusted, the old signs": (
        "Devices fetch the new root at renewal. `birthmark pki rollover next` makes the new root sign when all "
        "devices and enrollment groups have it; `back` cancels the rollover."
    ),
    "both trusted, the new signs": (
        "Devices get certificates below the new root at renewal. `birthmark pki rollover next` ends trust in the "
        "old root, once no valid certificate chains to it; `back` makes the old root sign again."
    ),
    "the new alone": "The rollover is complete. `birthmark pki rollover back` trusts the old root again.",
}
_STEPS = (
    ("start", "creates a new root; both roots are published and trusted, and the old one signs"),
    ("next", "makes the new root sign; requires that all devices (--share: a part) and enrollment groups have it"),
    ("next", "ends trust in the old root; requires that no valid certificate chains to it"),
)


def plan(server: ServerOutputOptions) -> None:
    """Show the steps of a root CA rollover.

    Includes the number of devices that each step waits for.
    """
    row = server.client.get(_AT)
    if server.as_json:
        emit(True, {**_shown(row), "steps": [what for _, what in _STEPS]})
        return
    _tell(row, server)
    typer.echo()
    for name, what in _STEPS:
        typer.echo(f"birthmark pki rollover {name}: {what}")
    typer.echo(
        "birthmark pki rollover back: undoes the last step; requires that every valid certificate keeps a trusted root"
    )


def status(server: ServerOutputOptions) -> None:
    """Show the progress of a rollover and pending devices."""
    _tell(server.client.get(_AT), server)


def start(
    server: ServerOutputOptions,
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation prompt.")] = False,
) -> None:
    """Start a rollover: create, publish and trust a new root.

    Both roots are trusted. The old root continues to sign.
    """
    confirm("A new root will be created and published next to the old one. Continue?", yes=yes)
    _tell(server.client.post(f"{_AT}/start", {}), server)


def parse_share(text: str) -> float:
    """Parse a fraction: `90%` or `0.9`."""
    try:
        share = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter("specify a share of the devices: 90% or 0.9")
    return share


def step_forward(
    server: ServerOutputOptions,
    share: Annotated[
        float | None,
        typer.Option(
            parser=parse_share,
            metavar="PERCENT",
            help="Share of devices that must know the new root (default: 100%).",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation prompt.")] = False,
) -> None:
    """Run the next rollover step if its condition is met."""
    row = server.client.get(_AT)
    confirm(f"Now: {row['state']}. Take the next step?", yes=yes)
    body = {"share": 1.0 if share is None else share, "state": row["state"]}
    _tell(server.client.post(f"{_AT}/next", body), server)


def step_back(
    server: ServerOutputOptions,
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation prompt.")] = False,
) -> None:
    """Undo the last rollover step.

    Possible only if no certificate loses its root.
    """
    row = server.client.get(_AT)
    confirm(f"Now: {row['state']}. Undo the last step?", yes=yes)
    _tell(server.client.post(f"{_AT}/back", {"state": row["state"]}), server)


def groups(server: ServerOutputOptions) -> None:
    """Add the new CA to the enrollment groups of the old one.

    It becomes the secondary CA of groups that only have the old one.
    """
    emit(server.as_json, server.client.post(f"{_AT}/groups", {}))


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "now": _NOW[row["state"]]}


def _tell(row: dict[str, Any], server: ServerOutputOptions) -> None:
    if server.as_json:
        emit(True, _shown(row))
        return
    emit(False, {name: ", ".join(value) if isinstance(value, list) else value for name, value in row.items()})
    typer.echo(_NOW[row["state"]], err=True)
