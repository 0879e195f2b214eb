"""`birthmark hub`: hubs, their devices and the telemetry they took."""

import json
import shlex
from collections.abc import Mapping
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from birthmark.cli.common import UsageError, emit, read_ca_certificate, read_device_certificate, say, with_certificate
from birthmark.cli.confirmation import agree, only, only_typed
from birthmark.cli.dps import CA_COLUMNS, CaName, proof_of
from birthmark.cli.duration_options import DurationParser
from birthmark.cli.json_input import json_of, object_of
from birthmark.cli.policy_keys import (
    PolicyArgument,
    PolicyOption,
    RotateOption,
    WhichArgument,
    show_identity,
    show_keys,
    show_policies,
)
from birthmark.cli.revocation_status import say_if_revoked, with_standing
from birthmark.cli.serve import NOT_IN_CERTIFICATE
from birthmark.cli.server_client import ListOptions, RemoveOptions, ServerOutputOptions, at, presented_certificate, show
from birthmark.cli.stream_reader import StreamReading, read
from birthmark.clock import SystemClock
from birthmark.untrusted_text import printable

if TYPE_CHECKING:
    from birthmark.fleet.azure_registry import AzureHubRegistry


class ModuleTakesNoneError(UsageError):
    """A message for a module, which none is for."""

    code = "hub.module_takes_none"
    cause = "{name} names a module. Messages to devices are for whole devices: no module takes one, as at Azure."
    fix = "Say it in what is desired of it, or by a method. What its twin says now: `birthmark hub twin {named}`"
    name: str
    named: str


HubOption = Annotated[str, typer.Option("--hub", help="Which hub.")]
DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="Its device id; letter case counts.")]
ModuleArgument = Annotated[str, typer.Argument(metavar="MODULE", help="Its module id; letter case counts.")]
CertOption = Annotated[
    Path | None, typer.Option("--cert", help="Its certificate, PEM or DER; without one, keys are made.")
]


def _whole(identity: str) -> str:
    if identity.startswith("/") or identity.endswith("/"):
        raise typer.BadParameter("a part of it is empty: DEVICE, or DEVICE/MODULE")
    return identity


IdentityArgument = Annotated[
    str,
    typer.Argument(
        metavar="DEVICE[/MODULE]", help="A device id, or a module of one; letter case counts.", callback=_whole
    ),
]
Profile = Annotated[
    str,
    typer.Option(
        "--profile",
        help="local (a Birthmark server), cloud (by IOTHUB_CONNECTION_STRING), or a named one.",
    ),
]
HubName = Annotated[str, typer.Argument(help="Its name on this server.")]


def registry_of(profile: str) -> "AzureHubRegistry | None":
    """Return the hub of a profile, None for that of a local server. Raise `ProfileError`."""
    if profile == "local":
        return None
    from birthmark.fleet.azure_registry import AzureHubRegistry
    from birthmark.fleet.profiles import hub_profile

    only_typed(False, "with --profile local", "--hub", "--data")
    text, ca_file = hub_profile(profile)
    registry = AzureHubRegistry(text, ca_file, SystemClock())
    registry.profile = shlex.quote(profile)
    return registry


Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before something is changed at another profile.")]


def agree_at(registry: "AzureHubRegistry", *, yes: bool) -> None:
    """Return when the person says yes to a change at a hub of Azure's."""
    agree(f"Change something at {registry.description}?", yes=yes)


class HubTierName(StrEnum):
    """The tiers of hubs, and none."""

    F1 = "F1"
    S1 = "S1"
    S2 = "S2"
    S3 = "S3"
    NONE = "none"


Units = Annotated[int, typer.Option(help="How many units of the tier.", min=1, max=200)]


class Feedback(StrEnum):
    """Which end of a message is told."""

    NONE = "none"
    POSITIVE = "positive"
    NEGATIVE = "negative"
    FULL = "full"


def show_all(server: ListOptions) -> None:
    """List the hubs."""
    server.show("hubs", columns=("name", "host"), nothing="There is no hub.")


def create(
    server: ServerOutputOptions,
    name: HubName,
    host: Annotated[str, typer.Option(help="Host name devices use; it must be in the server's certificate.")],
    tier: Annotated[HubTierName, typer.Option(help="Whose limits count: F1, S1, S2, S3, or none.")] = HubTierName.NONE,
    units: Units = 1,
) -> None:
    """Make another hub. Link it with `birthmark dps link NAME`."""
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
    """Show the keys of a hub's policy, as connection strings for the SDKs of a service."""
    show_keys(server, "hubs", name, policy, rotate)


def show_one(server: ServerOutputOptions, name: HubName = "birthmark") -> None:
    """Show a hub: host, policies, CAs, how many devices it has, may connect and are connected."""
    emit(server.as_json, server.client.get(at("hubs", name)))


def set_tier(
    server: ServerOutputOptions,
    name: HubName,
    tier: Annotated[HubTierName, typer.Argument(metavar="TIER", help="F1, S1, S2, S3, or none.")],
    units: Units = 1,
) -> None:
    """Let the limits of a tier of Azure's count for a hub from now on: what is too much is refused as there.

    What they are says `birthmark hub show`.
    """
    only(tier is not HubTierName.NONE, "with a tier", units=None if units == 1 else units)
    wanted = {"tier": None if tier is HubTierName.NONE else tier.value, "units": units}
    emit(server.as_json, server.client.put(at("hubs", name, "tier"), wanted))


def list_policies(server: ListOptions, hub: HubOption = "birthmark") -> None:
    """List the shared access policies of a hub, and what each may do."""
    show_policies(server, "hubs", hub)


def show_policy(server: ServerOutputOptions, policy: PolicyArgument, hub: HubOption = "birthmark") -> None:
    """Show the keys of a policy, as connection strings: what `hub key` shows of the owner's."""
    show_keys(server, "hubs", hub, policy, None)


def rotate_policy(
    server: ServerOutputOptions, policy: PolicyArgument, which: WhichArgument, hub: HubOption = "birthmark"
) -> None:
    """Make one of a policy's keys another one and show both; what it signed is refused then."""
    show_keys(server, "hubs", hub, policy, which)


def device_key(server: ServerOutputOptions, name: DeviceArgument, hub: HubOption = "birthmark") -> None:
    """Show the keys of a device, as connection strings for the device SDKs."""
    show_identity(server, hub, name)


def module_key(
    server: ServerOutputOptions, name: DeviceArgument, module: ModuleArgument, hub: HubOption = "birthmark"
) -> None:
    """Show the keys of a module, as connection strings for the device SDKs."""
    show_identity(server, hub, f"{name}/{module}")


def delete(server: RemoveOptions, name: HubName) -> None:
    """Delete a hub with its devices and messages."""
    server.remove("hubs", name, what=f"the hub {name} with all its devices and messages")


def create_device(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="The device id; letter case counts.")],
    cert: CertOption = None,
    presented: Annotated[
        str | None, typer.Option(metavar="THUMBPRINT", help="By the one that it presented when this server refused it.")
    ] = None,
    by_ca: Annotated[
        bool, typer.Option("--by-ca", help="By certificates with its name, of a CA of the hub: `hub ca create`.")
    ] = False,
    edge: Annotated[bool, typer.Option("--edge", help="It runs IoT Edge, and has its modules from the start.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Make a device in a hub, without a provisioning service. A key is shown, and again by `birthmark hub device key`.

    With the key its connection string is HostName=HUB;DeviceId=NAME;SharedAccessKey=KEY.
    """
    only(cert is None, "without --cert", by_ca=by_ca, presented=presented)
    only(presented is None, "without --presented", by_ca=by_ca)
    shown = None if presented is None else presented_certificate(server.client, presented).thumbprint.hex()
    wanted = {"device_id": name, "thumbprint": shown or _thumbprint(cert), "iot_edge": edge, "by_authority": by_ca}
    server.do("hubs", hub, "devices", **wanted)
    say_if_revoked(server.client, name)


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
    server.show_rows(with_standing(asked, server.client, name="device", state="status"), columns, nothing)


def show_identity_of(
    server: ServerOutputOptions, name: DeviceArgument, hub: HubOption = "birthmark", profile: Profile = "local"
) -> None:
    """Show what a hub's registry says of a device, as JSON, without its keys."""
    _show_identity(server, name, hub, profile)


def show_module(
    server: ServerOutputOptions,
    name: DeviceArgument,
    module: ModuleArgument,
    hub: HubOption = "birthmark",
    profile: Profile = "local",
) -> None:
    """Show what a hub's registry says of a module, as JSON, without its keys."""
    _show_identity(server, f"{name}/{module}", hub, profile)


def _show_identity(server: ServerOutputOptions, name: str, hub: str, profile: str) -> None:
    registry = registry_of(profile)
    shown = server.client.get(at("hubs", hub, "identities", name)) if registry is None else registry.identity(name)
    typer.echo(json.dumps(shown, indent=None if server.as_json else 2))


def delete_device(
    server: RemoveOptions,
    name: Annotated[str, typer.Argument(metavar="DEVICE", help="Its device id; letter case counts.")],
    hub: HubOption = "birthmark",
) -> None:
    """Remove a device from a hub's registry; its connection ends. It comes back if it is enrolled and registers."""
    server.remove("hubs", hub, "devices", name, what=f"the device {name} with its twin and messages")


def thumbprints(server: ListOptions, name: DeviceArgument, hub: HubOption = "birthmark") -> None:
    """List the certificates by which a device, or DEVICE/MODULE, was known to its hub, the latest first.

    `now` says which of them let it in today; it has two while a new one was not used yet.
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
    """Let a device connect no more, and end its connection. It stays disabled however often it registers."""
    _switch(server, name, hub, profile, yes=yes, is_enabled=False)


def enable_device(
    server: ServerOutputOptions,
    name: DeviceArgument,
    hub: HubOption = "birthmark",
    profile: Profile = "local",
    yes: Yes = False,
) -> None:
    """Let a device connect again that was disabled."""
    _switch(server, name, hub, profile, yes=yes, is_enabled=True)
    if profile == "local":
        say_if_revoked(server.client, name)


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
    """Make a module of a device: a program with a key, a twin and a connection of its own.

    A key is shown, and again by `birthmark hub module key`.

    With the key its connection string is HostName=HUB;DeviceId=DEVICE;ModuleId=MODULE;SharedAccessKey=KEY.
    """
    server.do("hubs", hub, "modules", name, module_id=module, thumbprint=_thumbprint(cert))


def delete_module(
    server: RemoveOptions, name: DeviceArgument, module: ModuleArgument, hub: HubOption = "birthmark"
) -> None:
    """Remove a module with its twin; its connection ends."""
    server.remove("hubs", hub, "modules", name, module, what=f"the module {module} of {name} with its twin")


def _thumbprint(cert: Path | None) -> str | None:
    return None if cert is None else read_device_certificate(cert).thumbprint.hex()


def twin(
    server: ServerOutputOptions,
    name: IdentityArgument,
    desired: Annotated[str | None, typer.Option(help="What is desired of it: a JSON patch, null removes.")] = None,
    tags: Annotated[str | None, typer.Option(help="Tags: a JSON patch, null removes.")] = None,
    hub: HubOption = "birthmark",
    profile: Profile = "local",
    yes: Yes = False,
) -> None:
    """Show a device's twin, as JSON; change what is desired of it, or its tags, first."""
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
        str, typer.Argument(metavar="QUERY", help="In IoT Hub's query language: SELECT … FROM devices WHERE ….")
    ],
    top: Annotated[int | None, typer.Option(min=1, help="So many rows at most.")] = None,
    hub: HubOption = "birthmark",
    profile: Profile = "local",
) -> None:
    """Show what a query finds among the twins of a hub, page after page: its twins, or the rows it selects."""
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
    """Return a row as a table has room for it: of a whole twin the little that tells devices apart."""
    if "properties" in row and "deviceId" in row:
        row = {name: row.get(name) for name in _OF_A_TWIN if name != _MODULE or name in row}
    return {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in row.items()}


_MODULE = "moduleId"
_OF_A_TWIN = ("deviceId", _MODULE, "status", "connectionState", "lastActivityTime", "version", "tags")


def method(
    server: ServerOutputOptions,
    name: IdentityArgument,
    method: Annotated[str, typer.Argument(help="The method's name.")],
    payload: Annotated[str, typer.Argument(help="What it is given: JSON.")] = "null",
    response_timeout: Annotated[
        int,
        typer.Option(
            parser=DurationParser(is_whole=True), metavar="TIME", help="How long to wait for the answer: 5s to 300s."
        ),
    ] = 30,
    connect_timeout: Annotated[
        int,
        typer.Option(
            parser=DurationParser(is_whole=True), metavar="TIME", help="How long to wait for the device: up to 300s."
        ),
    ] = 0,
    hub: HubOption = "birthmark",
    profile: Profile = "local",
    yes: Yes = False,
) -> None:
    """Call a method of a device that is connected, and print the status and payload it answers with."""
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
    text: Annotated[str | None, typer.Argument(help="The message; without one, those that wait are listed.")] = None,
    feedback: Annotated[
        Feedback, typer.Option(help="Be told of its end: positive (completed), negative (anything else), full (both).")
    ] = Feedback.NONE,
    purge: Annotated[bool, typer.Option("--purge", help="Drop those that wait.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Send a device a message; it waits for the device up to an hour. Modules take none."""
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
    """Show what became of messages to devices, as the service is told, until it takes it."""
    columns, nothing = ("originalMessageId", "deviceId", "statusCode"), "There is no feedback."
    server.show("hubs", hub, "feedback", columns=columns, nothing=nothing)


def messages(
    server: ServerOutputOptions,
    device: Annotated[str | None, typer.Argument(help="Only this device's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the latest.")] = 100,
    hub: HubOption = "birthmark",
) -> None:
    """Show the latest telemetry, oldest first."""
    columns, nothing = ("enqueued", "device", "body"), "No message came."
    server.show("hubs", hub, "messages", columns=columns, nothing=nothing, device=device, limit=limit)


def monitor(
    server: ServerOutputOptions,
    device: Annotated[str | None, typer.Argument(help="Only this device's.")] = None,
    since: Annotated[str | None, typer.Option(help="From when: 10m, 2026-11-21T10:00:00Z, or beginning.")] = None,
    after: Annotated[str | None, typer.Option(help="From a position, as an earlier run said it.")] = None,
    consumer_group: Annotated[
        str | None, typer.Option(help="From where this group is; the server notes how far it came.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes, until Ctrl-C.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Show telemetry as it was committed; without a beginning, what comes from now on."""
    only(device is None, "without a DEVICE: a group reads the hub", consumer_group=consumer_group)
    only(after is None, "without --after", since=since, consumer_group=consumer_group)
    asked = StreamReading(since, after, consumer_group, follow)
    read(
        server,
        ("hubs", hub),
        asked,
        lambda row: "  ".join((row["enqueued"], row["device"], row["body"])),
        device=device,
    )


def list_cas(server: ListOptions, hub: HubOption = "birthmark") -> None:
    """List the CA certificates that vouch for a hub's devices."""
    server.show("hubs", hub, "cas", columns=CA_COLUMNS, nothing="No CA certificate is on record.")


def add_ca(
    server: ServerOutputOptions,
    name: CaName,
    file: Annotated[Path, typer.Argument(help="The CA's certificate, PEM or DER.")],
    verified: Annotated[bool, typer.Option("--verified", help="Mark it verified without proof of possession.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Put a CA certificate on record, whose certificates let devices in that are made with --by-ca."""
    with with_certificate(file):
        server.do("hubs", hub, "cas", name=name, certificate=read_ca_certificate(file).pem(), verified=verified)


def ca_code(server: ServerOutputOptions, name: CaName, hub: HubOption = "birthmark") -> None:
    """Print a verification code; sign a certificate with it as common name: `birthmark ca verify-possession CODE`."""
    answer = server.client.post(at("hubs", hub, "cas", name, "code"))
    say(server.as_json, answer, answer["code"])


def verify_ca(
    server: ServerOutputOptions,
    name: CaName,
    file: Annotated[Path | None, typer.Argument(help="The verification certificate.")] = None,
    without_proof: Annotated[bool, typer.Option("--without-proof", help="Take your word for it.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Prove possession of the CA's key with the signed verification certificate."""
    pem = proof_of(name, file, without_proof, "hub")
    server.do("hubs", hub, "cas", name, "verify", certificate=pem)


def remove_ca(server: RemoveOptions, name: CaName, hub: HubOption = "birthmark") -> None:
    """Take a CA certificate off the record; its devices connect no more."""
    server.remove("hubs", hub, "cas", name, what=f"the CA certificate {name}, by which no device connects then")


def _twin_row(twin: Mapping[str, Any]) -> dict[str, Any]:
    """Return a device by its twin, which a query of a hub finds."""
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
