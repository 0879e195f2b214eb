"""`birthmark chip simulate`: a simulated secure element, and the environment to use it."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.option_checks_and_confirmation import only, only_typed
from birthmark.cli.output.command_output import emit
from birthmark.cli.simulated_chip_list import add_simulated_chip
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.secure_elements.atecc.chip import CHIP_FILE
from birthmark.secure_elements.atecc.simulated_factory import KINDS, SoftwareAtecc, create_atecc
from birthmark.secure_elements.chip_profiles import ATECC608, PROFILES
from birthmark.secure_elements.softhsm_element import SoftwareElement, create_software_element, open_software_element


def simulate(
    directory: Annotated[Path, typer.Argument(help="Directory for the chip's files.", file_okay=False)],
    profile: Annotated[
        str, typer.Option("--chip", metavar="KIND", help="Chip type: se050, atecc608 or generic.")
    ] = "se050",
    variant: Annotated[
        str | None,
        typer.Option(
            help=(
                "Variant. SE050: with all keys of A, B, C, E, F; default: one of each kind. ATECC608: TNGTLS, "
                "TRUSTFLEX or TRUSTCUSTOM, through Microchip's cryptoauthlib; default: through PKCS#11."
            )
        ),
    ] = None,
    swapped_labels: Annotated[bool, typer.Option(help="Use the labels of SE050 middleware up to 4.3.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Create a simulated secure element (SoftHSM2).

    It holds a real chip's objects. Prints the environment variables to use it.
    """
    if profile not in PROFILES:
        raise typer.BadParameter(f"valid values: {', '.join(PROFILES)}", param_hint="--chip")
    variants = list(KINDS) if profile == ATECC608.name else list(PROFILES[profile].variants)
    only(bool(variants), "with --chip se050 or atecc608", variant=variant)
    if variant not in (None, *variants):
        raise typer.BadParameter(f"valid values: {', '.join(variants)}", param_hint="--variant")
    made: SoftwareElement | SoftwareAtecc
    if profile == ATECC608.name and (variant is not None or (directory / CHIP_FILE).exists()):
        only(False, "with --chip se050", swapped_labels=swapped_labels)
        made = _atecc(directory, variant)
    else:
        made = _softhsm(directory, profile, variant, has_swapped_labels=swapped_labels)
    add_simulated_chip(directory, profile)
    if as_json:
        emit(as_json, dict(made.environment) | {"maker_certificates": str(made.manufacturer_certificates)})
        return
    for name, value in made.environment.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def _softhsm(directory: Path, profile: str, variant: str | None, *, has_swapped_labels: bool) -> SoftwareElement:
    if (directory / "profile").exists():
        made = open_software_element(directory)
        is_same = made.profile.name == profile
        only_typed(is_same, f"to a new chip, but {directory} contains a {made.profile.name}", "--chip")
        only(False, f"to a new chip, but {directory} contains one", swapped_labels=has_swapped_labels, variant=variant)
        typer.echo(f"{directory} already contains a software {made.profile.name}; it is kept.", err=True)
        return made
    return create_software_element(
        directory,
        PROFILES[profile],
        now=SystemClock().now(),
        entropy=SystemEntropy(),
        variant=None if variant is None else PROFILES[profile].variants[variant],
        has_swapped_labels=has_swapped_labels,
    )


def _atecc(directory: Path, variant: str | None) -> SoftwareAtecc:
    if (directory / CHIP_FILE).exists():
        only(False, f"to a new chip, but {directory} contains one", variant=variant)
        typer.echo(f"{directory} holds a software ATECC608 already; it is left as it is.", err=True)
        return SoftwareAtecc(directory.resolve())
    return create_atecc(directory, str(variant), now=SystemClock().now(), entropy=SystemEntropy())
