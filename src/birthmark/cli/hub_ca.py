"""`birthmark hub ca`: CA certificates of a hub, and their proof of possession."""

from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.dps import CA_COLUMNS, CaName, proof_of
from birthmark.cli.hub import HubOption
from birthmark.cli.input_files import read_ca_certificate, with_certificate
from birthmark.cli.options.server import (
    ListOptions,
    RemoveOptions,
    ServerOutputOptions,
    at,
)
from birthmark.cli.output.command_output import say


def list_cas(server: ListOptions, hub: HubOption = "birthmark") -> None:
    """List the CA certificates of a hub."""
    server.show("hubs", hub, "cas", columns=CA_COLUMNS, nothing="No CA certificate is registered.")


def add_ca(
    server: ServerOutputOptions,
    name: CaName,
    file: Annotated[Path, typer.Argument(help="The CA's certificate, PEM or DER.")],
    verified: Annotated[
        bool, typer.Option("--verified", help="Mark the CA as verified without proof of possession.")
    ] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Register a CA certificate at a hub.

    It authenticates devices that were created with --by-ca.
    """
    with with_certificate(file):
        server.do("hubs", hub, "cas", name=name, certificate=read_ca_certificate(file).pem(), verified=verified)


def ca_code(server: ServerOutputOptions, name: CaName, hub: HubOption = "birthmark") -> None:
    """Print a verification code for a hub's CA certificate.

    Issue a certificate with the code as common name: `birthmark ca verify-possession CODE`.
    """
    answer = server.client.post(at("hubs", hub, "cas", name, "code"))
    say(server.as_json, answer, answer["code"])


def verify_ca(
    server: ServerOutputOptions,
    name: CaName,
    file: Annotated[Path | None, typer.Argument(help="File with the verification certificate.")] = None,
    without_proof: Annotated[bool, typer.Option("--without-proof", help="Skip the proof of possession.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Prove possession of a CA's key to a hub.

    Uses the signed verification certificate.
    """
    pem = proof_of(name, file, without_proof, "hub")
    server.do("hubs", hub, "cas", name, "verify", certificate=pem)


def remove_ca(server: RemoveOptions, name: CaName, hub: HubOption = "birthmark") -> None:
    """Delete a CA certificate from a hub.

    Its devices can no longer connect.
    """
    server.remove("hubs", hub, "cas", name, subject=f"the CA certificate {name}, by which no device connects then")
