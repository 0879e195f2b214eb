"""`birthmark dps`: provisioning services with their linked hubs, tier, policy keys and CA certificates."""

import shlex
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.input_files import read_ca_certificate, read_device_certificate, with_certificate
from birthmark.cli.option_checks_and_confirmation import only
from birthmark.cli.options.server import ListOptions, RemoveOptions, ServerOutputOptions, at
from birthmark.cli.output.command_output import UsageError, emit, say
from birthmark.cli.policy_keys import (
    PolicyArgument,
    PolicyOption,
    RotateOption,
    WhichArgument,
    show_keys,
    show_policies,
)

_COLUMNS = ("name", "id_scope", "host", "linked_hubs")
CA_COLUMNS = ("name", "subject", "verified", "not_after", "thumbprint")
Dps = Annotated[str, typer.Option("--dps", help="Provisioning service.")]
CaName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the registered CA certificate.")]


class VerificationMissingError(UsageError):
    """No verification certificate was specified."""

    code = "dps.verification_missing"
    cause = "Possession of the private key of {name} is not proven."
    fix = "To skip the proof: `birthmark {room} ca verify {name} --without-proof`"
    room: str = "dps"
    name: str


class CertificateNotGivenError(UsageError):
    """Exactly one certificate is required."""

    code = "dps.certificate_not_given"
    cause = (
        "Registering a CA requires exactly one certificate: a file, or the certificate of an enrollment group "
        "(--of-group)."
    )
    fix = "Specify exactly one certificate. To list the enrollment groups: `birthmark device ls`."
    name: str


def show_all(server: ListOptions) -> None:
    """List provisioning services, ID scopes and linked hubs."""
    server.show("dps", columns=_COLUMNS, nothing="No provisioning services.")


def create(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Name of the provisioning service.")],
    host: Annotated[str | None, typer.Option(help="Host name for devices. Default: the server's.")] = None,
) -> None:
    """Create a provisioning service with its own ID scope."""
    server.do("dps", name=name, host=host)
    typer.echo(f"Link a hub to it: birthmark dps link birthmark --dps {shlex.quote(name)}", err=True)


def link(
    server: ServerOutputOptions,
    hub: Annotated[str, typer.Argument(help="Name of the hub (`birthmark hub ls`).")],
    dps: Dps = "birthmark",
) -> None:
    """Link HUB to a provisioning service.

    The service can then assign devices to it.
    """
    server.do("dps", dps, "link", hub=hub)


def key(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Name of the provisioning service.")] = "birthmark",
    policy: PolicyOption = None,
    rotate: RotateOption = None,
) -> None:
    """Show a provisioning service's keys.

    Printed as connection strings for SDKs and for `birthmark device`.
    """
    show_keys(server, "dps", name, policy, rotate)


def show_one(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Name of the provisioning service.")] = "birthmark",
) -> None:
    """Show a provisioning service.

    Shows ID scope, host, linked hubs, policies and the number of CA certificates.
    """
    emit(server.as_json, server.client.get(at("dps", name)))


class DpsTierName(StrEnum):
    """Tier of provisioning services, including none."""

    S1 = "S1"
    NONE = "none"


def set_tier(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Name of the provisioning service.")],
    tier: Annotated[DpsTierName, typer.Argument(metavar="TIER", help="Tier whose limits apply: S1, or none.")],
) -> None:
    """Apply the limits of Azure's tier to a DPS.

    Covers registrations and operations per minute, and polls of devices.
    """
    wanted = None if tier is DpsTierName.NONE else tier.value
    emit(server.as_json, server.client.put(at("dps", name, "tier"), {"tier": wanted}))


def list_policies(server: ListOptions, dps: Dps = "birthmark") -> None:
    """List a DPS's shared access policies and their rights."""
    show_policies(server, "dps", dps)


def show_policy(server: ServerOutputOptions, policy: PolicyArgument, dps: Dps = "birthmark") -> None:
    """Show a DPS policy's keys as connection strings.

    For the owner's policy, `dps key` prints the same.
    """
    show_keys(server, "dps", dps, policy, None)


def rotate_policy(
    server: ServerOutputOptions, policy: PolicyArgument, which: WhichArgument, dps: Dps = "birthmark"
) -> None:
    """Replace one key of a DPS policy and print both keys.

    Signatures of the replaced key are rejected.
    """
    show_keys(server, "dps", dps, policy, which)


def delete(
    server: RemoveOptions, name: Annotated[str, typer.Argument(help="Name of the provisioning service.")]
) -> None:
    """Delete a DPS with its enrollments and registrations.

    Devices stay at their hubs.
    """
    server.remove("dps", name, subject=f"the provisioning service {name} with all its enrollments")


def release(
    server: ServerOutputOptions,
    registration: Annotated[str, typer.Argument(metavar="ID", help="Registration ID.")],
    dps: Dps = "birthmark",
) -> None:
    """Release a registration and delete its hub device.

    The next device that is enrolled under the name can register.
    """
    server.do("dps", dps, "registrations", registration, "release")


def list_cas(server: ListOptions, dps: Dps = "birthmark") -> None:
    """List the CA certificates of a DPS."""
    server.show("dps", dps, "cas", columns=CA_COLUMNS, nothing="No CA certificate is registered.")


def add(
    server: ServerOutputOptions,
    name: CaName,
    file: Annotated[Path | None, typer.Argument(help="The CA's certificate, PEM or DER.")] = None,
    of_group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="Enrollment group that provides the certificate.")
    ] = None,
    verified: Annotated[
        bool, typer.Option("--verified", help="Mark the CA as verified without proof of possession.")
    ] = False,
    dps: Dps = "birthmark",
) -> None:
    """Register a CA certificate at a DPS.

    Groups can use it after proof of possession.
    """
    if (file is None) == (of_group is None):
        raise CertificateNotGivenError(name=name)
    pem = None if file is None else read_ca_certificate(file).pem()
    body = {"name": name, "certificate": pem, "group": of_group, "verified": verified}
    with with_certificate(file) if file is not None else nullcontext():
        made = server.client.post(at("dps", dps, "cas"), body)
    for one in made if isinstance(made, list) else [made]:
        emit(server.as_json, one)


def code(server: ServerOutputOptions, name: CaName, dps: Dps = "birthmark") -> None:
    """Print a verification code for a DPS's CA certificate.

    Issue a certificate with the code as common name: `birthmark ca verify-possession CODE`.
    """
    answer = server.client.post(at("dps", dps, "cas", name, "code"))
    say(server.as_json, answer, answer["code"])


def verify(
    server: ServerOutputOptions,
    name: CaName,
    file: Annotated[Path | None, typer.Argument(help="File with the verification certificate.")] = None,
    without_proof: Annotated[bool, typer.Option("--without-proof", help="Skip the proof of possession.")] = False,
    dps: Dps = "birthmark",
) -> None:
    """Prove possession of a CA's key to a DPS.

    Uses the signed verification certificate.
    """
    server.do("dps", dps, "cas", name, "verify", certificate=proof_of(name, file, without_proof, "dps"))


def proof_of(name: str, file: Path | None, without_proof: bool, room: str) -> str | None:
    """Return a verification certificate as PEM; None without proof. Raise `VerificationMissingError`."""
    if file is None and not without_proof:
        raise VerificationMissingError(name=name, room=room)
    only(file is None, "without a verification certificate", without_proof=without_proof)
    return None if file is None else read_device_certificate(file).pem()


def remove(server: RemoveOptions, name: CaName, dps: Dps = "birthmark") -> None:
    """Delete a CA certificate from a DPS."""
    server.remove("dps", dps, "cas", name, subject=f"the CA certificate {name}, by which no group registers then")
