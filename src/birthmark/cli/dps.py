"""`birthmark dps`: provisioning services, their links and CA certificates."""

import shlex
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.common import UsageError, emit, read_ca_certificate, read_device_certificate, say, with_certificate
from birthmark.cli.confirmation import only
from birthmark.cli.policy_keys import (
    PolicyArgument,
    PolicyOption,
    RotateOption,
    WhichArgument,
    show_keys,
    show_policies,
)
from birthmark.cli.server_client import ListOptions, RemoveOptions, ServerOutputOptions, at

_COLUMNS = ("name", "id_scope", "host", "linked_hubs")
CA_COLUMNS = ("name", "subject", "verified", "not_after", "thumbprint")
Dps = Annotated[str, typer.Option("--dps", help="Which provisioning service.")]
CaName = Annotated[str, typer.Argument(metavar="NAME", help="Its name on record.")]


class VerificationMissingError(UsageError):
    """No verification certificate was named."""

    code = "dps.verification_missing"
    cause = "Nothing proves that the key of {name} is yours."
    fix = "Take your word for it: `birthmark {room} ca verify {name} --without-proof`"
    room: str = "dps"
    name: str


class CertificateNotGivenError(UsageError):
    """One certificate is needed."""

    code = "dps.certificate_not_given"
    cause = "A CA is put on record by one certificate: a file, or the one of an enrollment group (--of-group)."
    fix = "Name one; `birthmark device ls` shows the groups."
    name: str


def show_all(server: ListOptions) -> None:
    """List the provisioning services with their ID scopes and linked hubs."""
    server.show("dps", columns=_COLUMNS, nothing="There is no provisioning service.")


def create(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Its name on this server.")],
    host: Annotated[str | None, typer.Option(help="Host name devices use; default is the server's.")] = None,
) -> None:
    """Make another provisioning service, with an ID scope of its own."""
    server.do("dps", name=name, host=host)
    typer.echo(f"Link a hub to it: birthmark dps link birthmark --dps {shlex.quote(name)}", err=True)


def link(
    server: ServerOutputOptions,
    hub: Annotated[str, typer.Argument(help="The hub's name (`birthmark hub ls`).")],
    dps: Dps = "birthmark",
) -> None:
    """Let a provisioning service assign devices to HUB."""
    server.do("dps", dps, "link", hub=hub)


def key(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Its name on this server.")] = "birthmark",
    policy: PolicyOption = None,
    rotate: RotateOption = None,
) -> None:
    """Show the keys of a provisioning service, as connection strings for SDKs and for `birthmark device`."""
    show_keys(server, "dps", name, policy, rotate)


def show_one(
    server: ServerOutputOptions, name: Annotated[str, typer.Argument(help="Its name on this server.")] = "birthmark"
) -> None:
    """Show a provisioning service: ID scope, host, linked hubs, policies, and how many CAs it has on record."""
    emit(server.as_json, server.client.get(at("dps", name)))


class DpsTierName(StrEnum):
    """The tier of provisioning services, and none."""

    S1 = "S1"
    NONE = "none"


def set_tier(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Its name on this server.")],
    tier: Annotated[DpsTierName, typer.Argument(metavar="TIER", help="S1, or none.")],
) -> None:
    """Let the limits of Azure's tier count for a service: registrations and operations a minute, polls of devices."""
    wanted = None if tier is DpsTierName.NONE else tier.value
    emit(server.as_json, server.client.put(at("dps", name, "tier"), {"tier": wanted}))


def list_policies(server: ListOptions, dps: Dps = "birthmark") -> None:
    """List the shared access policies of a provisioning service, and what each may do."""
    show_policies(server, "dps", dps)


def show_policy(server: ServerOutputOptions, policy: PolicyArgument, dps: Dps = "birthmark") -> None:
    """Show the keys of a policy, as connection strings: what `dps key` shows of the owner's."""
    show_keys(server, "dps", dps, policy, None)


def rotate_policy(
    server: ServerOutputOptions, policy: PolicyArgument, which: WhichArgument, dps: Dps = "birthmark"
) -> None:
    """Make one of a policy's keys another one and show both; what it signed is refused then."""
    show_keys(server, "dps", dps, policy, which)


def delete(server: RemoveOptions, name: Annotated[str, typer.Argument(help="Its name on this server.")]) -> None:
    """Delete a provisioning service with its enrollments and registrations; devices stay at their hubs."""
    server.remove("dps", name, what=f"the provisioning service {name} with all its enrollments")


def release(
    server: ServerOutputOptions,
    registration: Annotated[str, typer.Argument(metavar="ID", help="The registration id.")],
    dps: Dps = "birthmark",
) -> None:
    """Let a registration go, with the device it made at its hub: whoever is enrolled for the name next may have it."""
    server.do("dps", dps, "registrations", registration, "release")


def list_cas(server: ListOptions, dps: Dps = "birthmark") -> None:
    """List the CA certificates on record."""
    server.show("dps", dps, "cas", columns=CA_COLUMNS, nothing="No CA certificate is on record.")


def add(
    server: ServerOutputOptions,
    name: CaName,
    file: Annotated[Path | None, typer.Argument(help="The CA's certificate, PEM or DER.")] = None,
    of_group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="The certificate that an enrollment group carries itself.")
    ] = None,
    verified: Annotated[bool, typer.Option("--verified", help="Mark it verified without proof of possession.")] = False,
    dps: Dps = "birthmark",
) -> None:
    """Put a CA certificate on record. It needs proof of possession before a group may use it."""
    if (file is None) == (of_group is None):
        raise CertificateNotGivenError(name=name)
    pem = None if file is None else read_ca_certificate(file).pem()
    body = {"name": name, "certificate": pem, "group": of_group, "verified": verified}
    with with_certificate(file) if file is not None else nullcontext():
        made = server.client.post(at("dps", dps, "cas"), body)
    for one in made if isinstance(made, list) else [made]:
        emit(server.as_json, one)


def code(server: ServerOutputOptions, name: CaName, dps: Dps = "birthmark") -> None:
    """Print a verification code; sign a certificate with it as common name: `birthmark ca verify-possession CODE`."""
    answer = server.client.post(at("dps", dps, "cas", name, "code"))
    say(server.as_json, answer, answer["code"])


def verify(
    server: ServerOutputOptions,
    name: CaName,
    file: Annotated[Path | None, typer.Argument(help="The verification certificate.")] = None,
    without_proof: Annotated[bool, typer.Option("--without-proof", help="Take your word for it.")] = False,
    dps: Dps = "birthmark",
) -> None:
    """Prove possession of the CA's key with the signed verification certificate."""
    server.do("dps", dps, "cas", name, "verify", certificate=proof_of(name, file, without_proof, "dps"))


def proof_of(name: str, file: Path | None, without_proof: bool, room: str) -> str | None:
    """Return a verification certificate as PEM, None for an operator's word. Raise `VerificationMissingError`."""
    if file is None and not without_proof:
        raise VerificationMissingError(name=name, room=room)
    only(file is None, "without a verification certificate", without_proof=without_proof)
    return None if file is None else read_device_certificate(file).pem()


def remove(server: RemoveOptions, name: CaName, dps: Dps = "birthmark") -> None:
    """Take a CA certificate off the record."""
    server.remove("dps", dps, "cas", name, what=f"the CA certificate {name}, by which no group registers then")
