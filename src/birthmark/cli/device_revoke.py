"""`birthmark device revoke`: revoke a lost device at every target that has it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated

import typer

from birthmark.cli.option_checks_and_confirmation import confirm
from birthmark.cli.options.device_enrollment import (
    PLACES,
    CloudName,
    ProfileOptions,
    TargetOptions,
    TargetSelection,
    parse_place,
    places,
)
from birthmark.cli.options.server import ServerOutputOptions, at, show
from birthmark.cli.output.command_output import SOME_ROWS_REFUSED
from birthmark.cli.output.table import format_count
from birthmark.devices.model import RevocationOutcome, RevokedPart
from birthmark.errors import BirthmarkError, NotFoundError
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.crl_encoder import RevocationReason

_COLUMNS = ("place", "what", "id", "became", "note")
_CERTIFICATES = ("certificate", "certificate of another CA")


@dataclass(frozen=True, slots=True)
class RevocationOptions:
    """Device and revocation reason."""

    reason: Annotated[RevocationReason, typer.Option(help="Revocation reason (RFC 5280 section 5.3.1).")] = (
        RevocationReason.KEY_COMPROMISE
    )
    block: Annotated[
        bool,
        typer.Option("--block", help="Block the name at the server and at Azure even if it is unknown there."),
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the planned changes without making them.")] = False
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation prompt.")] = False


@dataclass(slots=True)
class _DeviceRevocation:
    """Revocation of a device at several targets; certificates found at one are passed to the next."""

    name: str
    server: ServerOutputOptions
    asked: RevocationOptions
    certificates: list[Thumbprint] = field(default_factory=list)

    def at(self, target: TargetSelection) -> list[RevokedPart]:
        """Revoke the device at a target; an error of the target becomes a row as well."""
        try:
            return self._at(target)
        except NotFoundError:
            raise
        except BirthmarkError as error:
            return [
                RevokedPart(
                    str(target), "", self.name, RevocationOutcome.FAILED, error.explain_cause(), error.explain_fix()
                )
            ]

    def _at(self, place: TargetSelection) -> list[RevokedPart]:
        dry_run, reason = self.asked.dry_run, self.asked.reason.value
        if place.profile == "local":
            body = {"reason": reason, "dry_run": dry_run, "block": self.asked.block}
            told = self.server.client.post(at("devices", self.name, "revoke"), body)
            rows = [RevokedPart(**{**row, "became": RevocationOutcome(row["became"])}) for row in told]
            known = [row.id for row in rows if row.what in _CERTIFICATES and row.became is not RevocationOutcome.LEFT]
            self.certificates += [Thumbprint(bytes.fromhex(one)) for one in dict.fromkeys(known)]
            return rows
        from birthmark.fleet.azure_target import AzureTarget

        target = TargetOptions(place, ProfileOptions(place.profile or "cloud", self.server.data)).open(takes_away=True)
        if isinstance(target, AzureTarget):
            return target.revoke_device(self.name, reason, dry_run=dry_run, block=self.asked.block, scope=str(place))
        return target.revoke_device(self.name, self.certificates, dry_run=dry_run)


def revoke(
    server: ServerOutputOptions,
    asked: RevocationOptions,
    name: Annotated[str, typer.Argument(help="Name of the device: registration ID, device ID or thing.")],
    to: Annotated[
        list[TargetSelection] | None,
        typer.Option(
            parser=parse_place,
            metavar="CLOUD",
            autocompletion=places,
            help=(
                f"Target cloud: {PLACES}. Default: local. Without a profile, azure and aws are the vendors' own. "
                "May be repeated."
            ),
        ),
    ] = None,
) -> None:
    """Revoke all credentials of a lost device.

    Covers certificates, keys, passwords, tokens, enrollments, hub devices and connections.

    Prints what was revoked now and earlier, what could not be revoked, and shared credentials that still work. You can
    run it again at any time; nothing is enabled again. Records stay in all lists as disabled.
    """
    wanted = sorted(
        dict.fromkeys(to or [TargetSelection(CloudName.AZURE, "local", "local")]),
        key=lambda one: one.profile != "local",
    )
    if not (asked.yes or asked.dry_run):  # report a device without any record before the prompt
        list(_everywhere(_DeviceRevocation(name, server, replace(asked, dry_run=True)), wanted))
    confirm(
        f"Permanently revoke all access of '{name}' at {', '.join(map(str, wanted))}?", yes=asked.yes or asked.dry_run
    )
    losing = _DeviceRevocation(name, server, asked)
    rows = list(_everywhere(losing, wanted))
    for row in rows if server.as_json else ():
        typer.echo(json.dumps(asdict(row)))
    if not server.as_json:
        show([asdict(row) for row in rows], _COLUMNS, as_json=False, nothing="No records exist there.")
        _say_what_is_left(rows, dry_run=asked.dry_run)
    if any(row.became is RevocationOutcome.FAILED for row in rows):
        raise typer.Exit(SOME_ROWS_REFUSED)


def _everywhere(losing: _DeviceRevocation, selections: Sequence[TargetSelection]) -> Iterator[RevokedPart]:
    """Yield the results of all targets in sequence. Raise `NotFoundError` if no target has the device."""
    nothing: NotFoundError | None = None
    is_known = False
    for place in selections:
        try:
            found = losing.at(place)
        except NotFoundError as error:
            nothing, found = error, []
        is_known = is_known or bool(found)
        yield from found
    if nothing is not None and not is_known:
        raise nothing


def _say_what_is_left(rows: Sequence[RevokedPart], *, dry_run: bool) -> None:
    done = RevocationOutcome.WOULD_REVOKE if dry_run else RevocationOutcome.REVOKED
    typer.echo(f"{format_count(sum(row.became is done for row in rows), 'part')} {done}.", err=True)
    for row in rows:
        if row.became in {RevocationOutcome.LEFT, RevocationOutcome.FAILED}:
            typer.echo(f"{row.became}: {row.place} {row.what} {row.id}, {row.note} {row.command}".rstrip(), err=True)
