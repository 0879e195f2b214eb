"""`birthmark device`: track enrolled devices, and move them between clouds."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.device_enroll_shipment import Shipment, hint_at_policy, template_of
from birthmark.cli.device_state_poller import PatienceOptions, told_and_kept
from birthmark.cli.device_state_poller import follow as follow_all
from birthmark.cli.device_state_poller import move as move_all
from birthmark.cli.manifest import ManifestOptions, count_entries
from birthmark.cli.option_checks_and_confirmation import confirm, only, only_typed
from birthmark.cli.options.device_enrollment import (
    PLACES,
    DeviceOptions,
    ProfileOptions,
    TargetOptions,
    TargetSelection,
    TemplateOption,
    WriteOptions,
    parse_place,
)
from birthmark.cli.options.report import ReportOption, add_row, check_reports, opened
from birthmark.cli.options.server import DataOption
from birthmark.cli.output.bulk_summary import BulkSummary, print_pause
from birthmark.cli.output.command_output import without
from birthmark.cli.output.table import format_count
from birthmark.fleet.device_migration import Move
from birthmark.fleet.device_onboarding_stages import Goal
from birthmark.fleet.enrollment_rollback_journal import Journal
from birthmark.operator_api.client.server_discovery_and_api_client import DEFAULT_DATA


@dataclass(frozen=True, slots=True)
class MigrationOptions:
    """Source and destination options."""

    source: Annotated[
        TargetSelection,
        typer.Option("--from", parser=parse_place, metavar="CLOUD", help=f"Source cloud of the devices: {PLACES}."),
    ]
    to: Annotated[TargetSelection, typer.Option(parser=parse_place, metavar="CLOUD", help="Destination cloud.")]
    from_profile: Annotated[str, typer.Option(help="Target profile of the source: local, cloud, or a named one.")] = (
        "local"
    )
    to_profile: Annotated[
        str, typer.Option(help="Target profile of the destination: local, cloud, or a named one.")
    ] = "local"
    data: DataOption = Path(DEFAULT_DATA)

    def ends(self) -> tuple[TargetOptions, TargetOptions]:
        """Return both targets. Raise `BadParameter` if they are the same."""
        only_typed(self.source.profile is None, "if --from names no profile", "--from-profile")
        only_typed(self.to.profile is None, "if --to names no profile", "--to-profile")
        source = TargetOptions(self.source, ProfileOptions(self.from_profile, self.data))
        to = TargetOptions(self.to, ProfileOptions(self.to_profile, self.data))
        if (source.to.cloud, source.profile) == (to.to.cloud, to.profile):
            raise typer.BadParameter("source and destination are the same: --from and --to", param_hint="--to")
        return source, to


def follow(
    where: TargetOptions,
    shipped: ManifestOptions,
    patience: PatienceOptions,
    wait: Annotated[Goal | None, typer.Option(help="Wait until every device has reached the state.")] = None,
    template: TemplateOption = None,
    report: ReportOption = None,
) -> None:
    """Show the state of each device in a shipment.

    States: unassigned, never seen, away, connected.

    At AWS, a device is identified by the client ID that equals its thing's name. The connection state at an IoT Hub
    requires IOTHUB_CONNECTION_STRING or the profile's hub_connection_string_file.
    """
    check_reports(report, shipped.file, template)
    wanted, trust, target = template_of(template, DeviceOptions()), shipped.trust(), where.open()
    total = count_entries(shipped.file)
    shipment = Shipment(shipped.file, trust, total, wanted, quiet=shipped.as_json, force=True, doing="Looking")
    with opened(report, "Device states", target.description, dry_run=False) as reports:
        follow_all(target, shipment, wait, patience, partial(add_row, reports), as_json=shipped.as_json)


def move(
    way: MigrationOptions,
    shipped: ManifestOptions,
    patience: PatienceOptions,
    writing: WriteOptions,
    policy: Annotated[str | None, typer.Option(help="AWS IoT policy to attach (AWS).")] = None,
    template: TemplateOption = None,
    update: Annotated[
        bool,
        typer.Option("--update", help="Enable disabled enrollments at the destination, for example after a move back."),
    ] = False,
    journal: Annotated[
        Path | None,
        typer.Option(help="Journal file of the new enrollments; `device enroll-list --undo` reverses them."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every device has moved.")] = False,
    report: ReportOption = None,
) -> None:
    """Move a shipment's devices to another cloud.

    Enrolls each device at the destination, waits for its connection, and only then retires it at the source.

    Each run makes the progress that is possible; repeat it, or use --wait, until all devices have moved. A retired
    device keeps its records: at Azure it is disabled at the DPS and at its hub; at AWS its certificate is inactive.
    """
    check_reports(report, shipped.file, journal, template)
    only(not writing.dry_run, "to writes, not to --dry-run", journal=journal)
    source, destination = way.ends()
    wanted, trust = template_of(template, DeviceOptions(policy=policy)), shipped.trust()
    here, there = source.open(takes_away=True), destination.open(takes_away=True)
    if source.is_azure == destination.is_azure and here.place == there.place:
        raise typer.BadParameter("source and destination are the same: both profiles", param_hint="--to-profile")
    total = count_entries(shipped.file)
    typer.echo(f"{format_count(total, 'device')} from {here.description} to {there.description}", err=True)
    hint_at_policy(needs_one=not destination.is_azure and wanted.aws.policy is None)
    is_local = source.profile.is_local and destination.profile.is_local
    confirm(f"Move them to {there.description}, and retire them?", yes=writing.yes or writing.dry_run or is_local)
    shipment = Shipment(shipped.file, trust, total, wanted, quiet=True, needs_common_name=destination.is_azure)
    tally = BulkSummary(as_json=False)
    where = f"{here.description} to {there.description}"
    with (
        opened(report, "Move", where, dry_run=writing.dry_run) as reports,
        Journal(journal, there.identity if journal else "", again=without("--journal", takes_value=True)) as kept,
    ):
        keep = partial(add_row, reports)
        wishes = list(shipment.wishes(told_and_kept(tally, keep)))
        moving = Move(here, there, kept, dry_run=writing.dry_run, update=update, says=print_pause)
        pairs = [(wish, wish) for wish in wishes]
        patience_s = patience.seconds if wait and not writing.dry_run else 0
        ends = source.as_options(), destination.as_options()
        move_all(moving, pairs, patience_s, tally, ends, keep=keep, as_json=shipped.as_json)
