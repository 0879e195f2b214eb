"""`birthmark hub`: hubs, their devices and received telemetry."""

import json
import shlex
from collections.abc import Mapping
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from birthmark.cli.input_files import read_device_certificate
from birthmark.cli.option_checks_and_confirmation import confirm, only, only_typed
from birthmark.cli.options.duration import DurationParser
from birthmark.cli.options.json_arguments import json_of, object_of
from birthmark.cli.options.server import (
    ListOptions,
    RemoveOptions,
    ServerOutputOptions,
    at,
    presented_certificate,
    show,
)
from birthmark.cli.output.command_output import UsageError, emit
from birthmark.cli.output.device_revocation_marks import mark_revoked_rows, print_revocation_notices
from birthmark.cli.output.server_stream_reader import StreamReading, read
from birthmark.cli.policy_keys import (
    PolicyArgument,
    PolicyOption,
    RotateOption,
    WhichArgument,
    show_identity,
    show_keys,
    show_policies,
)
from birthmark.cli.serve import NOT_IN_CERTIFICATE
from birthmark.clock_and_entropy import SystemClock
from birthmark.untrusted_json_and_text import printable

if TYPE_CHECKING:
    from birthmark.fleet.azure_hub_client import AzureHubRegistry


class ModuleTakesNoneError(UsageError):
    """Modules cannot receive cloud-to-device messages."""

    code = "hub.module_takes_none"
    cause = "{name} is a module. As in Azure, only devices receive cloud-to-device messages."
    fix = "Use desired properties or a direct method. To show the module's twin: `birthmark hub twin {named}`"
    name: str
    named: str


HubOption = Annotated[str, typer.Option("--hub", help="Hub.")]
DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="Device ID; case-sensitive.")]
ModuleArgument = Annotated[str, typer.Argument(metavar="MODULE", help="Module ID; case-sensitive.")]
CertOption = Annotated[Path | None, typer.Option("--cert", help="Certificate in PEM or DER. Default: generated keys.")]


def _whole(identity: str) -> str:
    if identity.startswith("/") or identity.endswith("/"):
        raise typer.BadParameter("one part is empty: use DEVICE, or DEVICE/MODULE")
    return identity


IdentityArgument = Annotated[
    str,
    typer.Argument(
        metavar="DEVICE[/MODULE]", help="Device ID, or a module of a device; case-sensitive.", callback=_whole
    ),
]
Profile = Annotated[
    str,
    typer.Option(
        "--profile",
        help="Target profile: local (a Birthmark server), cloud (with IOTHUB_CONNECTION_STRING), or a named one.",
    ),
]
HubName = Annotated[str, typer.Argument(help="Name of the hub.")]


def registry_of(profile: str) -> "AzureHubRegistry | None":
    """Return the device registry of an Azure profile, None for the local server. Raise `ProfileError`."""
    if profile == "local":
        return None
    from birthmark.fleet.azure_hub_client import AzureHubRegistry
    from birthmark.fleet.target_profiles import hub_profile

    only_typed(False, "with --profile local", "--hub", "--data")
    text, ca_file = hub_profile(profile)
    registry = AzureHubRegistry(text, ca_file, SystemClock())
    registry.profile = shlex.quote(profile)
    return registry


Yes = Annotated[bool, typer.Option("--yes", help="Skip the confirmation before changing another profile.")]


def agree_at(registry: "AzureHubRegistry", *, yes: bool) -> None:
    """Return if the user confirms a change at a hub of Azure."""
    confirm(f"Change something at {registry.description}?", yes=yes)


class HubTierName(StrEnum):
    """Tiers of hubs, including none."""

    F1 = "F1"
    S1 = "S1"
    S2 = "S2"
    S3 = "S3"
    NONE = "none"


Units = Annotated[int, typer.Option(help="Number of units of the tier.", min=1, max=200)]


class Feedback(StrEnum):
    """Message outcomes that generate feedback."""

    NONE = "none"
    POSITIVE = "positive"
    NEGATIVE = "negative"
    FULL = "full"


def show_all(server: ListOptions) -> None:
    """List the hubs."""
    server.show("hubs", columns=("name", "host"), nothing="No hubs.")


def create(
    server: ServerOutputOptions,
    name: HubName,
    host: Annotated[str, typer.Option(help="Host name for devices; it must be in the server's certificate.")],
    tier: Annotated[
        HubTierName, typer.Option(help="Tier whose limits apply: F1, S1, S2, S3, or none.")
    ] = HubTierName.NONE,
    units: Units = 1,
) -> None:
    """Create a hub.

    Link it with `birthmark dps link NAME`.
    """
    only(tier is not HubTierName.NONE, "with --tier", units=None if units == 1 else units)
    wanted = {"tier": None if tier is HubTierName.NONE else tier.value, "units": units}
    made = server.client.post("/hubs", {"name": name, "host": host, **wanted})
    is_covered, fitting = made.pop("in_certificate"), made.pop("names_that_fit")
    emit(server.as_json, made)
    if not is_covered:
        others = f" Names in the certificate that no hub uses: {', '.join(fitting)}." if fitting else ""
        typer.echo(printable(f"Warning: {NOT_IN_CERTIFICATE.format(host=host)}{others}"), err=True)


def key(
    server: ServerOutputOptions,
    name: HubName = "birthmark",
    policy: PolicyOption = None,
    rotate: RotateOption = None,
) -> None:
    """Show a hub policy's keys for service SDKs.

    Printed as connection strings.
    """
    show_keys(server, "hubs", name, policy, rotate)


def show_one(server: ServerOutputOptions, name: HubName = "birthmark") -> None:
    """Show a hub: host, policies, CAs and device counts.

    Counts all, enabled and connected devices.
    """
    emit(server.as_json, server.client.get(at("hubs", name)))


def set_tier(
    server: ServerOutputOptions,
    name: HubName,
    tier: Annotated[
        HubTierName, typer.Argument(metavar="TIER", help="Tier whose limits apply: F1, S1, S2, S3, or none.")
    ],
    units: Units = 1,
) -> None:
    """Apply the limits of an Azure tier to a hub.

    Excess requests are rejected as at Azure.

    `birthmark hub show` prints the limits.
    """
    only(tier is not HubTierName.NONE, "with a tier", units=None if units == 1 else units)
    wanted = {"tier": None if tier is HubTierName.NONE else tier.value, "units": units}
    emit(server.as_json, server.client.put(at("hubs", name, "tier"), wanted))


def list_policies(server: ListOptions, hub: HubOption = "birthmark") -> None:
    """List a hub's shared access policies and their rights."""
    show_policies(server, "hubs", hub)


def show_policy(server: ServerOutputOptions, policy: PolicyArgument, hub: HubOption = "birthmark") -> None:
    """Show a hub policy's keys as connection strings.

    For the owner's policy, `hub key` prints the same.
    """
    show_keys(server, "hubs", hub, policy, None)


def rotate_policy(
    server: ServerOutputOptions, policy: PolicyArgument, which: WhichArgument, hub: HubOption = "birthmark"
) -> None:
    """Replace one key of a hub policy and print both keys.

    Signatures of the replaced key are rejected.
    """
    show_keys(server, "hubs", hub, policy, which)


def device_key(server: ServerOutputOptions, name: DeviceArgument, hub: HubOption = "birthmark") -> None:
    """Show a device's keys as connection strings for SDKs."""
    show_identity(server, hub, name)


def module_key(
    server: ServerOutputOptions, name: DeviceArgument, module: ModuleArgument, hub: HubOption = "birthmark"
) -> None:
    """Show a module's keys as connection strings for SDKs."""
    show_identity(server, hub, f"{name}/{module}")


def delete(server: RemoveOptions, name: HubName) -> None:
    """Delete a hub with its devices and messages."""
    server.remove("hubs", name, subject=f"the hub {name} with all its devices and messages")


def create_device(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Device ID; case-sensitive.")],
    cert: CertOption = None,
    presented: Annotated[
        str | None,
        typer.Option(
            metavar="THUMBPRINT", help="Thumbprint of a certificate that this server rejected, from the error."
        ),
    ] = None,
    by_ca: Annotated[
        bool,
        typer.Option(
            "--by-ca", help="Authenticate with certificates of this name from a CA of the hub: `hub ca create`."
        ),
    ] = False,
    edge: Annotated[bool, typer.Option("--edge", help="Create an IoT Edge device with its system modules.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Create a hub device without a provisioning service.

    The output contains the key, which `birthmark hub device key` also prints later.

    Its connection string is HostName=HUB;DeviceId=NAME;SharedAccessKey=KEY.
    """
    only(cert is None, "without --cert", by_ca=by_ca, presented=presented)
    only(presented is None, "without --presented", by_ca=by_ca)
    shown = None if presented is None else presented_certificate(server.client, presented).thumbprint.hex()
    wanted = {"device_id": name, "thumbprint": shown or _thumbprint(cert), "iot_edge": edge, "by_authority": by_ca}
    server.do("hubs", hub, "devices", **wanted)
    print_revocation_notices(server.client, name)


def devices(
    server: ListOptions,
    edge: Annotated[bool, typer.Option("--edge", help="Only IoT Edge devices.")] = False,
    hub: HubOption = "birthmark",
    profile: Profile = "local",
) -> None:
    """List a hub's devices."""
    columns = ("device", "state", "status", "why", "edge", "thumbprint")
    kind = "IoT Edge device" if edge else "device"
    nothing = f"The hub has no {kind}."
    if (registry := registry_of(profile)) is not None:
        told = map(_twin_row, registry.devices())
        server.show_rows((row for row in told if row["edge"] or not edge), columns, nothing)
        return
    rows = map(_row, server.client.rows(at("hubs", hub, "devices")))
    asked = (row for row in rows if row["edge"] or not edge)
    server.show_rows(mark_revoked_rows(asked, server.client, name="device", state="status"), columns, nothing)


def show_identity_of(
    server: ServerOutputOptions, name: DeviceArgument, hub: HubOption = "birthmark", profile: Profile = "local"
) -> None:
    """Show a device's registry entry as JSON, without keys."""
    _show_identity(server, name, hub, profile)


def show_module(
    server: ServerOutputOptions,
    name: DeviceArgument,
    module: ModuleArgument,
    hub: HubOption = "birthmark",
    profile: Profile = "local",
) -> None:
    """Show a module's registry entry as JSON, without keys."""
    _show_identity(server, f"{name}/{module}", hub, profile)


def _show_identity(server: ServerOutputOptions, name: str, hub: str, profile: str) -> None:
    registry = registry_of(profile)
    shown = server.client.get(at("hubs", hub, "identities", name)) if registry is None else registry.identity(name)
    typer.echo(json.dumps(shown, indent=None if server.as_json else 2))


def delete_device(
    server: RemoveOptions,
    name: Annotated[str, typer.Argument(metavar="DEVICE", help="Device ID; case-sensitive.")],
    hub: HubOption = "birthmark",
) -> None:
    """Delete a device from a hub and end its connection.

    If it is still enrolled, the device returns when it registers.
    """
    server.remove("hubs", hub, "devices", name, subject=f"the device {name} with its twin and messages")


def thumbprints(server: ListOptions, name: DeviceArgument, hub: HubOption = "birthmark") -> None:
    """List the certificates of a hub device, latest first.

    For a device or DEVICE/MODULE.

    `now` marks the accepted certificates; two are accepted until the new one is used.
    """
    server.show(
        *("hubs", hub, "thumbprints", name),
        columns=("at", "thumbprint", "how", "now", "by"),
        nothing=f"{name} was never known by a certificate.",
    )


def disable_device(
    server: ServerOutputOptions,
    name: DeviceArgument,
    hub: HubOption = "birthmark",
    profile: Profile = "local",
    yes: Yes = False,
) -> None:
    """Disable a hub device and end its connection.

    It stays disabled when it registers again.
    """
    _switch(server, name, hub, profile, yes=yes, is_enabled=False)


def enable_device(
    server: ServerOutputOptions,
    name: DeviceArgument,
    hub: HubOption = "birthmark",
    profile: Profile = "local",
    yes: Yes = False,
) -> None:
    """Enable a disabled hub device."""
    _switch(server, name, hub, profile, yes=yes, is_enabled=True)
    if profile == "local":
        print_revocation_notices(server.client, name)


def _switch(server: ServerOutputOptions, name: str, hub: str, profile: str, *, yes: bool, is_enabled: bool) -> None:
    if (registry := registry_of(profile)) is not None:
        agree_at(registry, yes=yes)
        found = registry.switch(name, is_enabled=is_enabled)
        emit(server.as_json, {"device": name, "hub": registry.host, "status": found["status"]})
        return
    emit(server.as_json, server.client.patch(at("hubs", hub, "devices", name), {"enabled": is_enabled}))


def modules(
    server: ListOptions, name: DeviceArgument, hub: HubOption = "birthmark", profile: Profile = "local"
) -> None:
    """List the modules of a device."""
    registry = registry_of(profile)
    found = server.client.rows(at("hubs", hub, "modules", name)) if registry is None else registry.modules(name)
    rows = map(_module_row, found)
    server.show_rows(rows, ("module", "state", "auth", "managed_by"), f"{name} has no modules.")


def create_module(
    server: ServerOutputOptions,
    name: DeviceArgument,
    module: ModuleArgument,
    cert: CertOption = None,
    hub: HubOption = "birthmark",
) -> None:
    """Create a module identity for a device.

    A module is a program on the device with its own key, twin and connection.

    The output contains the key, which `birthmark hub module key` also prints later.

    Its connection string is HostName=HUB;DeviceId=DEVICE;ModuleId=MODULE;SharedAccessKey=KEY.
    """
    server.do("hubs", hub, "modules", name, module_id=module, thumbprint=_thumbprint(cert))


def delete_module(
    server: RemoveOptions, name: DeviceArgument, module: ModuleArgument, hub: HubOption = "birthmark"
) -> None:
    """Delete a module and its twin, and close its connection."""
    server.remove("hubs", hub, "modules", name, module, subject=f"the module {module} of {name} with its twin")


def _thumbprint(cert: Path | None) -> str | None:
    return None if cert is None else read_device_certificate(cert).thumbprint.hex()


def twin(
    server: ServerOutputOptions,
    name: IdentityArgument,
    desired: Annotated[
        str | None, typer.Option(help="JSON merge patch of the desired properties; null removes a key.")
    ] = None,
    tags: Annotated[str | None, typer.Option(help="JSON merge patch of the tags; null removes a key.")] = None,
    hub: HubOption = "birthmark",
    profile: Profile = "local",
    yes: Yes = False,
) -> None:
    """Show or update a device twin as JSON.

    Desired properties and tags are updated first.
    """
    path = at("hubs", hub, "twins", name)
    if (registry := registry_of(profile)) is not None:
        if desired is None and tags is None:
            shown = dict(registry.twin(name))
        else:
            given = object_of(desired, "--desired"), object_of(tags, "--tags")
            agree_at(registry, yes=yes)
            shown = dict(registry.patch_twin(name, *given))
    elif desired is None and tags is None:
        shown = server.client.get(path)
    else:
        patch = {"desired": object_of(desired, "--desired"), "tags": object_of(tags, "--tags")}
        shown = server.client.patch(path, patch)
    typer.echo(json.dumps(shown, indent=None if server.as_json else 2))


def query(
    server: ServerOutputOptions,
    text: Annotated[
        str, typer.Argument(metavar="QUERY", help="Query in IoT Hub's query language: SELECT … FROM devices WHERE ….")
    ],
    top: Annotated[int | None, typer.Option(min=1, help="Maximum number of rows.")] = None,
    hub: HubOption = "birthmark",
    profile: Profile = "local",
) -> None:
    """Query the device twins of a hub.

    Prints twins or the selected columns, page by page.
    """
    registry = registry_of(profile)
    told = server.client.rows(at("hubs", hub, "query"), query=text) if registry is None else registry.query(text)
    rows = islice(told, top)
    if server.as_json:
        show(rows, (), as_json=True, nothing="")
        return
    found = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(name for row in found for name in row))
    show(found, columns, as_json=False, nothing="Nothing is found.")


def _flat(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row for a table; a complete twin is reduced to its identifying fields."""
    if "properties" in row and "deviceId" in row:
        row = {name: row.get(name) for name in _OF_A_TWIN if name != _MODULE or name in row}
    return {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in row.items()}


_MODULE = "moduleId"
_OF_A_TWIN = ("deviceId", _MODULE, "status", "connectionState", "lastActivityTime", "version", "tags")


def method(
    server: ServerOutputOptions,
    name: IdentityArgument,
    method: Annotated[str, typer.Argument(help="Name of the method.")],
    payload: Annotated[str, typer.Argument(help="Payload of the method: JSON.")] = "null",
    response_timeout: Annotated[
        int,
        typer.Option(parser=DurationParser(is_whole=True), metavar="DURATION", help="Response timeout: 5s to 300s."),
    ] = 30,
    connect_timeout: Annotated[
        int,
        typer.Option(parser=DurationParser(is_whole=True), metavar="DURATION", help="Connection timeout: up to 300s."),
    ] = 0,
    hub: HubOption = "birthmark",
    profile: Profile = "local",
    yes: Yes = False,
) -> None:
    """Call a direct method and print its status and payload.

    The device must be connected, or connect in time.
    """
    given = json_of(payload, "PAYLOAD")
    if (registry := registry_of(profile)) is not None:
        agree_at(registry, yes=yes)
        told = registry.call(name, method, given, response_timeout, connect_timeout)
        emit(server.as_json, {"status": told.get("status"), "payload": told.get("payload")})
        return
    body: dict[str, Any] = {"method": method, "payload": given}
    body |= {"response_timeout_s": response_timeout, "connect_timeout_s": connect_timeout}
    patience_s = response_timeout + connect_timeout + 10
    answer = server.client.post(at("hubs", hub, "methods", name), body, patience_s=patience_s)
    emit(server.as_json, answer)


def c2d(
    server: ServerOutputOptions,
    name: DeviceArgument,
    text: Annotated[str | None, typer.Argument(help="Message text. Default: list the queued messages.")] = None,
    feedback: Annotated[
        Feedback,
        typer.Option(help="Feedback to request: positive (completed), negative (all other results), full (both)."),
    ] = Feedback.NONE,
    purge: Annotated[bool, typer.Option("--purge", help="Delete the queued messages.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Send a cloud-to-device message to a device.

    It is queued for up to an hour. Modules cannot receive messages.
    """
    if "/" in name:
        raise ModuleTakesNoneError(name=name, named=shlex.quote(name))
    path = at("hubs", hub, "mail", name)
    if purge:
        emit(server.as_json, server.client.delete(path))
    elif text is None:
        columns, nothing = ("message", "enqueued", "expires", "deliveries"), "No message waits."
        show(server.client.rows(path), columns, as_json=server.as_json, nothing=nothing)
    else:
        emit(server.as_json, server.client.post(path, {"text": text, "feedback": feedback}))


def feedback(server: ServerOutputOptions, hub: HubOption = "birthmark") -> None:
    """List feedback on cloud-to-device messages; a service receives and completes it."""
    columns, nothing = ("originalMessageId", "deviceId", "statusCode"), "No feedback."
    server.show("hubs", hub, "feedback", columns=columns, nothing=nothing)


def messages(
    server: ServerOutputOptions,
    device: Annotated[str | None, typer.Argument(help="Device whose messages to show.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Number of latest messages.")] = 100,
    hub: HubOption = "birthmark",
) -> None:
    """Show the latest telemetry, oldest first."""
    columns, nothing = ("enqueued", "device", "body"), "No messages."
    server.show("hubs", hub, "messages", columns=columns, nothing=nothing, device=device, limit=limit)


def monitor(
    server: ServerOutputOptions,
    device: Annotated[str | None, typer.Argument(help="Device whose messages to show.")] = None,
    since: Annotated[str | None, typer.Option(help="Start time: 10m, 2026-11-21T10:00:00Z, or beginning.")] = None,
    after: Annotated[str | None, typer.Option(help="Start position, as printed by an earlier run.")] = None,
    consumer_group: Annotated[str | None, typer.Option(help="Consumer group; the server stores its position.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print new messages until Ctrl-C.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Print telemetry from a start position or as it arrives."""
    only(device is None, "without a DEVICE: a consumer group reads the complete hub", consumer_group=consumer_group)
    only(after is None, "without --after", since=since, consumer_group=consumer_group)
    asked = StreamReading(since, after, consumer_group, follow)
    read(
        server,
        ("hubs", hub),
        asked,
        lambda row: "  ".join((row["enqueued"], row["device"], row["body"])),
        device=device,
    )


def _twin_row(twin: Mapping[str, Any]) -> dict[str, Any]:
    """Return the device row of a twin from a hub query."""
    thumbprints = twin.get("x509Thumbprint") or {}
    return {
        "device": twin["deviceId"],
        "state": str(twin.get("connectionState", "")).lower(),
        "status": twin.get("status"),
        "why": twin.get("statusReason"),
        "edge": bool((twin.get("capabilities") or {}).get("iotEdge")),
        "auth": twin.get("authenticationType"),
        "thumbprint": (thumbprints.get("primaryThumbprint") or "").lower() or None,
    }


def _module_row(module: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "module": module["moduleId"],
        "state": module["connectionState"].lower(),
        "auth": module["authentication"]["type"],
        "managed_by": module["managedBy"],
        "thumbprint": ((module["authentication"].get("x509Thumbprint") or {}).get("primaryThumbprint") or "").lower()
        or None,
    }


def _row(device: dict[str, Any]) -> dict[str, Any]:
    return {
        "device": device["deviceId"],
        "state": device["connectionState"].lower(),
        "status": device["status"],
        "why": device.get("statusReason"),
        "edge": device["capabilities"]["iotEdge"],
        "auth": device["authentication"]["type"],
        "thumbprint": (device["authentication"]["x509Thumbprint"]["primaryThumbprint"] or "").lower() or None,
    }
