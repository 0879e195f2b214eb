"""Shared options of enrollment commands: target, profile, settings and reports."""

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from birthmark.cli.option_checks_and_confirmation import confirm, only, only_typed
from birthmark.cli.options.report import ReportOption
from birthmark.cli.options.server import DataOption, ServerOptions, at
from birthmark.cli.output.command_output import ActionNeededError, without
from birthmark.cli.output.table import format_count
from birthmark.cli.policy_keys import owner_string
from birthmark.errors import BirthmarkError, ConflictError
from birthmark.operator_api.client.server_discovery_and_api_client import DEFAULT_DATA
from birthmark.pki.certificates import Certificate

if TYPE_CHECKING:
    from birthmark.fleet.aws_target import AwsTarget
    from birthmark.fleet.azure_target import AzureTarget
    from birthmark.fleet.enrollment_target import EnrollmentTarget
    from birthmark.fleet.target_profiles import AzureProfile


class HubNotLinkedError(ConflictError):
    """The hub is not linked to the provisioning service."""

    code = "enroll.hub_not_linked"
    cause = "The hub {hub} is not linked to the provisioning service {dps}; linked hubs: {linked}."
    fix = "Link the hub: `birthmark dps link {hub} --dps {dps}`. To list the existing hubs: `birthmark hub ls`"
    dps: str
    hub: str
    linked: str


class CloudName(StrEnum):
    """Cloud API."""

    AZURE = "azure"
    AWS = "aws"


@dataclass(frozen=True, slots=True)
class TargetSelection:
    """Enrollment target: a cloud API, optionally with a profile."""

    cloud: CloudName
    profile: str | None = None
    name: str = ""
    """Target as the user wrote it."""

    def __str__(self) -> str:
        return self.name or self.cloud.value

    @property
    def label(self) -> str:
        """File name suffix of this target."""
        return _NOT_IN_LABELS.sub("-", str(self))


def parse_place(text: "str | TargetSelection") -> TargetSelection:
    """Parse a target: `azure`, `aws`, `local`, or a cloud with a profile: `aws:plant`."""
    if isinstance(text, TargetSelection):  # the default
        return text
    if text == "local":
        return TargetSelection(CloudName.AZURE, "local", text)
    cloud, has_profile, profile = text.partition(":")
    if cloud not in set(CloudName) or bool(has_profile) != bool(profile):
        raise typer.BadParameter(f"{text!r} is not 'azure', 'aws' or 'local', and has no profile, such as 'aws:plant'")
    return TargetSelection(CloudName(cloud), profile or None, text)


DEFAULT_DPS = "birthmark"
_HUBS = ".azure-devices.net"
_NOT_IN_LABELS = re.compile("[^A-Za-z0-9_-]")
AZURE = TargetSelection(CloudName.AZURE)
PLACES = "azure, aws, local (Azure on this server), or CLOUD:PROFILE"


def places() -> list[str]:
    """Return the values for shell completion."""
    return ["azure", "aws", "local"]


def _said_of(hub: Mapping[str, Any], new: int) -> str:
    """Return a message about a hub's tier limit for `new` devices."""
    most, present = int(hub["most_devices"]), int(hub["devices"])
    said = f"Hub {hub['name']} is of the tier {hub['tier']}: it takes {most:,} devices and has {present:,}"
    over = present + new - most
    return f"{said}; {over:,} of {new:,} new devices exceed the limit." if over > 0 else f"{said}."


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """Profile of a target."""

    profile_name: Annotated[
        str,
        typer.Option(
            "--profile",
            help="Target profile: local (a Birthmark server), cloud (the vendor's cloud), or the name of a profile.",
        ),
    ] = "local"
    data: DataOption = Path(DEFAULT_DATA)
    dps: Annotated[
        str | None,
        typer.Option("--dps", help="Provisioning service of a local server (`birthmark dps ls`). Default: the first."),
    ] = None

    @property
    def is_local(self) -> bool:
        return self.profile_name == "local"

    @property
    def azure(self) -> "AzureProfile":
        """Return the provisioning service.

        Raise `ProfileError`, or the server's error for an unknown name.
        """
        from birthmark.fleet.target_profiles import azure_profile

        only(self.is_local, "with --profile local", dps=self.dps)
        found = azure_profile(self.profile_name, self.data)
        if self.dps is None:
            return found
        server = ServerOptions(self.data)
        text = owner_string(server, "dps", self.dps)
        scope = next((row["id_scope"] for row in server.client.rows("/dps") if row["name"] == self.dps), None)
        return replace(found, connection_string=text, scope=scope)

    def hub_host(self, name: str | None) -> str | None:
        """Return a hub's host name; a local server's hub is given by name, and must be linked."""
        if name is None or not self.is_local:
            return name if name is None or "." in name else f"{name}{_HUBS}"
        client = ServerOptions(self.data).client
        hosts = {row["name"]: str(row["host"]) for row in client.rows("/hubs")}
        host, dps = hosts.get(name, name), self.dps or DEFAULT_DPS
        linked: list[str] = next((row["linked_hubs"] for row in client.rows("/dps") if row["name"] == dps), [])
        if host.lower() not in {one.lower() for one in linked}:
            raise HubNotLinkedError(hub=name, dps=dps, linked=", ".join(linked) or "none")
        return host

    def tiers(self, new: int) -> tuple[bool, list[str]]:
        """Return whether a local server's service has a tier, and the messages of its hubs for `new` devices."""
        if not self.is_local:
            return False, []
        client, name = ServerOptions(self.data).client, self.dps or DEFAULT_DPS
        service = next((row for row in client.rows("/dps") if row["name"] == name), None)
        linked = {host.lower() for host in service["linked_hubs"]} if service is not None else set()
        found: list[str] = []
        for row in client.rows("/hubs"):
            if row["tier"] is not None and str(row["host"]).lower() in linked:
                hub = client.get(at("hubs", row["name"]))
                found.append(_said_of(hub, new))
        return service is not None and service["tier"] is not None, found

    def dps_option(self, described: str) -> str | None:
        """Return the option for the local server's service in a description, such as a journal's header."""
        if not self.is_local:
            return None
        rows = ServerOptions(self.data).client.rows("/dps")
        found = next((row["name"] for row in rows if f"(scope {row['id_scope']})" in described), None)
        return None if found is None else f" --dps {shlex.quote(found)}"

    def hub_option(self, host: str) -> str:
        """Return the option for the hub of a local server, for a command.

        A device name may exist at several hubs.
        """
        rows = ServerOptions(self.data).client.rows("/hubs")
        name = next((str(row["name"]) for row in rows if str(row["host"]).lower() == host.lower()), host)
        return f" --hub {shlex.quote(name)}"

    @property
    def as_option(self) -> str:
        """Return the option for the selected provisioning service, for a command in a fix."""
        return "" if self.dps is None else f" --dps {shlex.quote(self.dps)}"

    def revoked_here(self, certificate: Certificate) -> list[str]:
        """Return warnings of a local server's CA about a certificate revoked by it or by its CA."""
        if not self.is_local:
            return []
        told = ServerOptions(self.data).client.post("/certificates/check", {"certificate": certificate.pem()})
        return [told["revoked"].rstrip(".")] if told["revoked"] else []


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """Options of the enrollment target."""

    to: Annotated[
        TargetSelection,
        typer.Option(parser=parse_place, metavar="CLOUD", autocompletion=places, help=f"Target cloud: {PLACES}."),
    ] = AZURE
    whose: ProfileOptions = field(default_factory=ProfileOptions)

    @property
    def profile(self) -> ProfileOptions:
        """Profile, from any of the options."""
        return self.whose if self.to.profile is None else replace(self.whose, profile_name=self.to.profile)

    @property
    def is_azure(self) -> bool:
        return self.to.cloud is CloudName.AZURE

    def check(self) -> None:
        """Reject options that would have no effect."""
        only_typed(self.to.profile is None, "if --to names no profile", "--profile")
        only_typed(self.profile.is_local, "with --profile local", "--data")
        only(self.is_azure, "with --to azure", dps=self.profile.dps)

    def as_options(self) -> str:
        """Return the options for this target, for a command in a fix."""
        to = "" if self.is_azure else " --to aws"
        own = self.profile.as_option
        return f"{to}{own}" if self.profile.is_local else f"{to} --profile {shlex.quote(self.profile.profile_name)}"

    @contextmanager
    def add_target_to_errors(self) -> Iterator[None]:
        """Add the target's options to an error, for use in its fix."""
        try:
            yield
        except BirthmarkError as error:
            error.add_facts(options=self.as_options())
            raise

    def _at_local(self) -> str:
        """Return the typed command with the local server as target."""
        option, value = ("--to", f"{self.to.cloud}:local") if self.to.profile is not None else ("--profile", "local")
        return f"{without(option, takes_value=True)} {option} {value}"

    def open(self, *, takes_away: bool = False) -> "AzureTarget | AwsTarget":
        """Return the target; the error of an unusable one contains the command for the local server.

        With `takes_away` (a removal) the error omits that command, because the user did not choose the local server.
        """
        self.check()
        from birthmark.fleet.aws_target import AwsTarget
        from birthmark.fleet.azure_target import AzureTarget
        from birthmark.fleet.target_profiles import aws_profile, named_for

        try:
            if self.is_azure:
                return AzureTarget(self.profile.azure)
            return AwsTarget(aws_profile(self.profile.profile_name, self.profile.data))
        except BirthmarkError as error:
            here = {} if takes_away else {"command": self._at_local()}
            instead = f"Use the local server: `{self._at_local()}`. " if here else ""
            error.add_facts(instead=instead, there=named_for(self.to.cloud), **here)
            raise


@dataclass(frozen=True, slots=True)
class _OneOfSeveral(TargetOptions):
    """One of several targets whose options were validated together."""

    def check(self) -> None:
        """Do nothing: the options were validated together."""


@dataclass(frozen=True, slots=True)
class TargetsOptions:
    """Targets of a shipment: one cloud, or several."""

    to: Annotated[
        list[TargetSelection] | None,
        typer.Option(
            parser=parse_place,
            metavar="CLOUD",
            autocompletion=places,
            help=f"Target cloud: {PLACES}. Default: azure. May be repeated.",
        ),
    ] = None
    whose: ProfileOptions = field(default_factory=ProfileOptions)

    def each(self) -> list[TargetOptions]:
        """Return each target once, in the order given."""
        several = [TargetOptions(to, self.whose) for to in self.to or [AZURE]]
        unnamed = any(one.to.profile is None for one in several)
        only_typed(unnamed, "if a --to names no profile", "--profile")
        only_typed(any(one.profile.is_local for one in several), "with --profile local", "--data")
        only(any(one.is_azure for one in several), "with --to azure", dps=self.whose.dps)
        found: dict[tuple[CloudName, str], TargetOptions] = {}
        for one in several:
            found.setdefault((one.to.cloud, one.profile.profile_name), _OneOfSeveral(one.to, one.profile))
        return list(found.values())

    def includes(self, to: CloudName) -> bool:
        """Return whether the targets include this cloud."""
        return any(one.cloud is to for one in self.to or [AZURE])


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Confirmation options of a write."""

    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the planned changes without making them.")] = False
    yes: Annotated[
        bool, typer.Option("--yes", help="Skip the confirmation before writing to a profile other than local.")
    ] = False

    def confirm(self, target: "EnrollmentTarget", profile: ProfileOptions, count: int, what: str = "record") -> None:
        """Print the target, and request confirmation unless it is a local server."""
        typer.echo(f"{format_count(count, what)} for {target.description}", err=True)
        confirm(f"Write to {target.description}?", yes=self.yes or self.dry_run or profile.is_local)


TemplateOption = Annotated[
    Path | None,
    typer.Option(help="Template with each device's settings, see `birthmark device template`: names, tags, …"),
]
Hub = Annotated[
    str | None,
    typer.Option("--hub", metavar="NAME", help="Linked hub for all devices (Azure)."),
]
Issue = Annotated[
    str | None,
    typer.Option(
        "--issue",
        metavar="POLICY",
        help=(
            "Issuing policy for devices that register with a certificate request: the name of a profile of "
            "the server's CA, such as device; or NAMESPACE/CA/POLICY (Azure)."
        ),
    ),
]
Edge = Annotated[bool, typer.Option("--edge", help="Create an IoT Edge device (Azure).")]
Update = Annotated[
    bool, typer.Option("--update", help="Update existing enrollments that differ: certificate, status, settings.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Include certificates that will be rejected: expired, weak, without a name.")
]


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """Enrollment options for either cloud."""

    edge: Edge = False
    policy: Annotated[str | None, typer.Option(help="AWS IoT policy to attach (AWS).")] = None
    update: Update = False
    force: Force = False
    hub: Hub = None
    issue: Issue = None

    def check(self, *, azure: bool, aws: bool) -> None:
        """Reject options of another cloud."""
        only(azure, "with --to azure", edge=self.edge, hub=self.hub, issue=self.issue)
        only(aws, "with --to aws", policy=self.policy)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Journal, undo and report options of a run."""

    journal: Annotated[
        Path | None,
        typer.Option(help="Journal file for every result, required for --undo; one for each target."),
    ] = None
    undo: Annotated[bool, typer.Option("--undo", help="Undo only the changes in the journal.")] = False
    report: ReportOption = None

    def for_target(self, to: TargetSelection, *, among: int) -> "RunOptions":
        """Return the options for one of several targets.

        Each target has its own files: `run.azure.journal`, `run.aws.csv`.
        """
        if among == 1:
            return self
        reports = [path.with_suffix(f".{to.label}{path.suffix}") for path in self.report or ()]
        journal = self.journal and self.journal.with_suffix(f".{to.label}{self.journal.suffix}")
        return RunOptions(journal, self.undo, reports)


class CannotWorkError(ActionNeededError):
    """The enrollment could never work."""

    code = "enroll.cannot_work"
    cause = "{who} would be rejected: {detail}."
    fix = "Use another certificate, or enroll this certificate anyway: `{again} --force`"
    detail: str
    who: str


def device_with(certificate: "Certificate") -> str:
    """Return a phrase for the device of a certificate, as the subject of a sentence."""
    return f"A device with the certificate '{certificate.subject_text}'"
