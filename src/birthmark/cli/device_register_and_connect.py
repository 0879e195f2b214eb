"""`birthmark device`: device operations without writing code.

The hub's host name is taken from --hub, otherwise from the secure element's storage, otherwise from registration at
DPS.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, assert_never

import typer

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.option_checks_and_confirmation import only, only_typed
from birthmark.cli.options.device_identity import IdentityOptions, OpenedIdentity
from birthmark.cli.options.duration import DurationParser
from birthmark.cli.output.command_output import UsageError, emit, without
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.device_transports.errors import MqttRefusedError
from birthmark.device_transports.transport_selection import open_links
from birthmark.device_transports.urls import UrlInvalidError, parse_url
from birthmark.dps.client import DpsTarget, HubAssignment, register_by_https, register_by_mqtt
from birthmark.iothub.client import HubClient, connect_hub
from birthmark.secure_elements.dps_assignment_codec import Assignment, Layout
from birthmark.secure_elements.element_session import Element
from birthmark.secure_elements.errors import ElementLayoutTooSmallError, ElementNoMemoryError
from birthmark.untrusted_json_and_text import printable


class Transport(StrEnum):
    """Transport for registration."""

    MQTT = "mqtt"
    HTTPS = "https"


_MAX_PORT = 65535
_DEFAULT_DATA = (
    "~/.local/share/birthmark"  # `birthmark.operator_api.client.server_discovery_and_api_client`, which devices lack
)


class DpsNotNamedError(UsageError):
    """No provisioning service was specified."""

    code = "device.dps_not_named"
    cause = "No hub is specified or stored, and no provisioning service is specified."
    fix = (
        'Specify the provisioning service. For a Birthmark server, set the environment: `eval "$(birthmark env)"`. '
        "Otherwise, use --host and --id-scope, or --hub HOST."
    )


class RememberWithoutElementError(UsageError):
    """There is no secure element to store the hub in."""

    code = "device.remember_without_element"
    cause = "The option --remember writes to a secure element, but the key is in a file."
    fix = (
        'Use --chip, or omit --remember: `birthmark device register --cert "$X509_CERT_FILE" --key '
        '"$X509_KEY_FILE"`. Without --remember, pass --hub next time.'
    )


class HostInvalidError(UsageError):
    """The host is not valid."""

    code = "device.host_invalid"
    cause = "The host '{host}' does not have the format NAME or NAME:PORT."
    fix = 'Set the server\'s name: `eval "$(birthmark env)"`. A port applies only to --transport https.'
    host: str


@dataclass(frozen=True, slots=True)
class DpsOptions:
    """Options of the provisioning service."""

    host: Annotated[str | None, typer.Option(envvar="PROVISIONING_HOST", help="DPS host: NAME or NAME:PORT.")] = None
    id_scope: Annotated[str | None, typer.Option(envvar="PROVISIONING_IDSCOPE", help="ID scope of the DPS.")] = None
    registration_id: Annotated[
        str | None,
        typer.Option(
            envvar="DPS_X509_REGISTRATION_ID", help="Registration ID. Default: the certificate's common name."
        ),
    ] = None
    transport: Annotated[
        Transport,
        typer.Option(help="Protocol: mqtt (8883, through a proxy 443) or https (443, or the port in --host)."),
    ] = Transport.MQTT
    remember: Annotated[bool, typer.Option("--remember", help="Store the assigned hub in the secure element.")] = False
    layout: Annotated[
        Layout | None,
        typer.Option(help="Format of the stored hub: Birthmark's or the how-to's. Default: that of the stored data."),
    ] = None
    replace_data: Annotated[
        bool, typer.Option("--replace-data", help="Overwrite another program's data at that location.")
    ] = False

    def only_what_counts(self) -> None:
        only(self.remember, "with --remember", layout=self.layout, replace_data=self.replace_data)

    def target(self, identity: OpenedIdentity) -> DpsTarget:
        """Return the DPS target and identity. Raise `DpsNotNamedError`."""
        if not self.host or not self.id_scope:
            raise DpsNotNamedError
        name = self.registration_id or identity.identity.chain[0].subject_cn or ""
        host, _, port = self.host.partition(":") if self.host.count(":") == 1 else (self.host, "", "")
        try:
            path = parse_url(f"https://[{host}]" if ":" in host else f"https://{host}").path
        except UrlInvalidError as error:
            raise HostInvalidError(host=self.host[:100]) from error
        if path != "/" or (port and not (port.isdecimal() and 0 < int(port) <= _MAX_PORT)):
            raise HostInvalidError(host=self.host[:100])
        return DpsTarget(host, self.id_scope, name, https_port=int(port or _https_port(host, self.id_scope)))


def _https_port(host: str, id_scope: str) -> int:
    """Return 443, or the port of this machine's server with that scope.

    The server may not be permitted to bind 443.
    """
    data = Path(os.environ.get("BIRTHMARK_DATA") or _DEFAULT_DATA).expanduser()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        dps = json.loads((data / "endpoints.json").read_bytes())["dps"]
        if (dps["host"], dps["id_scope"]) == (host, id_scope):
            return int(dps["https_port"])
    return 443


async def _register(identity: OpenedIdentity, asked: DpsOptions) -> HubAssignment:
    if asked.remember and identity.element is None:
        raise RememberWithoutElementError
    _check_memory(identity, asked)
    links = open_links(identity.identity, identity.trust, SystemClock())
    target = asked.target(identity)
    match asked.transport:
        case Transport.MQTT:
            assigned = await register_by_mqtt(links.mqtt(), target, entropy=SystemEntropy())
        case Transport.HTTPS:
            assigned = await register_by_https(links.https(), target)
        case _:
            assert_never(asked.transport)
    if asked.remember and identity.element is not None:
        _remember(identity.element, Assignment(assigned.hub, assigned.device_id, target.id_scope), asked)
    return assigned


def _check_memory(identity: OpenedIdentity, asked: DpsOptions) -> None:
    """Reject settings that could not be stored, before registration."""
    if asked.remember and not asked.replace_data and identity.element is not None:
        with _saying_how():
            identity.element.check_memory(asked.layout)


def _remember(element: Element, assignment: Assignment, asked: DpsOptions) -> None:
    with _saying_how():
        element.remember(assignment, asked.layout, may_replace=asked.replace_data)


@contextlib.contextmanager
def _saying_how() -> Iterator[None]:
    """Add the command without the rejected option to a storage error."""
    try:
        yield
    except ElementNoMemoryError as error:
        error.add_facts(without=without("--remember", takes_value=False))
        raise
    except ElementLayoutTooSmallError as error:
        error.add_facts(without=without("--layout", takes_value=True))
        raise


def _assigned_row(assigned: HubAssignment, how: str) -> dict[str, Any]:
    return {
        "registration_id": assigned.registration_id,
        "assigned_hub": assigned.hub,
        "device_id": assigned.device_id,
        "how": how,
    }


async def register(asked: DpsOptions, options: IdentityOptions, as_json: JsonOption = False) -> None:
    """Register with DPS and print the assigned hub."""
    asked.only_what_counts()
    with options.opened() as who:
        emit(as_json, _assigned_row(await _register(who, asked), "registered"))


@dataclass(frozen=True, slots=True)
class HubOptions:
    """Options of the hub and the device identity."""

    hub: Annotated[
        str | None, typer.Option(help="Host name of the hub. Default: the stored hub, otherwise from DPS.")
    ] = None
    device_id: Annotated[str | None, typer.Option(help="Device ID. Default: the certificate's common name.")] = None
    asked: DpsOptions = field(default_factory=DpsOptions)
    options: IdentityOptions = field(default_factory=IdentityOptions)


@asynccontextmanager
async def _at_hub(place: HubOptions) -> AsyncIterator[tuple[HubClient, dict[str, Any]]]:
    """Connect to the hub; a stored host name is tried first, and replaced if outdated."""
    hub, asked = place.hub, place.asked
    asked.only_what_counts()
    with place.options.opened() as who:
        only(
            hub is not None,
            "with --hub: otherwise, the provisioning service assigns the device ID",
            device_id=place.device_id,
        )
        when = "when registering, which --hub makes unnecessary"
        only(hub is None, when, remember=asked.remember)
        only_typed(hub is None, when, "--host", "--id-scope", "--registration-id", "--transport")
        name = place.device_id or who.identity.chain[0].subject_cn or ""
        links = open_links(who.identity, who.trust, SystemClock())
        connection: HubClient | None = None
        if hub is not None:
            found, how = HubAssignment(hub, name, name), "given"
        elif (remembered := _remembered(who, asked)) is not None:
            found, how = HubAssignment(remembered.hub, remembered.device, name), "remembered"
            try:
                connection = await connect_hub(links.mqtt(), found.hub, found.device_id)
            except MqttRefusedError:
                if not asked.host:
                    raise
                found, how = await _register(who, asked), "registered again"
        else:
            found, how = await _register(who, asked), "registered"
        if connection is None:
            connection = await connect_hub(links.mqtt(), found.hub, found.device_id)
        try:
            yield connection, _assigned_row(found, how)
        finally:
            await connection.close()


def _remembered(identity: OpenedIdentity, asked: DpsOptions) -> Assignment | None:
    if identity.element is None or identity.element.profile.memory_label is None:
        return None
    found = identity.element.recall()
    is_other = found is not None and asked.id_scope is not None and found.scope not in ("", asked.id_scope)
    return None if is_other else found


async def connect(
    place: HubOptions,
    seconds: Annotated[
        float,
        typer.Option(parser=DurationParser(), metavar="DURATION", help="Duration of the connection, for example 30s."),
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Connect to the hub for a limited time, then disconnect."""
    async with _at_hub(place) as (connection, row):
        emit(as_json, {**row, "connected": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                raise await connection.wait_until_lost()


async def send(
    place: HubOptions,
    message: Annotated[str, typer.Argument(help="Message text; {n} is replaced with the message's number.")],
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of messages.")] = 1,
    interval: Annotated[
        float,
        typer.Option(parser=DurationParser(), metavar="DURATION", help="Interval between messages: 500ms, 10s."),
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Send telemetry and wait until the hub acknowledges it."""
    only(count > 1, "with --count", interval=interval)
    async with _at_hub(place) as (connection, row):
        for number in range(1, count + 1):
            text = message.replace("{n}", str(number))
            await connection.send(text.encode(), message_id=str(number))
            if not as_json:
                typer.echo(f"{number}/{count}  {printable(text[:60])}", err=True)
            if number < count:
                await asyncio.sleep(interval)
        emit(as_json, {**row, "sent": count})
