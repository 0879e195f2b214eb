"""`birthmark pki ra`: registration authorities, which request certificates for other devices."""

from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.input_files import read_device_certificate
from birthmark.cli.options.server import ListOptions, RemoveOptions, ServerOutputOptions


def add_authority(
    server: ServerOutputOptions,
    file: Annotated[Path, typer.Argument(help="Certificate in PEM or DER with extendedKeyUsage cmcRA.")],
    names: Annotated[str, typer.Option(metavar="PATTERN", help="Pattern of permitted device IDs, with * and ?.")] = "*",
) -> None:
    """Register a registration authority by its certificate.

    It can enroll devices that it has verified.

    When it renews its certificate over EST, the new certificate replaces the old one.
    """
    server.do("est", "authorities", certificate=read_device_certificate(file).pem(), names=names)


def list_authorities(server: ListOptions) -> None:
    """List the registration authorities."""
    server.show("est", "authorities", columns=_AUTHORITY_COLUMNS, nothing="No registration authority is registered.")


def remove_authority(
    server: RemoveOptions,
    thumbprint: Annotated[
        str,
        typer.Argument(metavar="THUMBPRINT", help="Registration authority, as listed by `birthmark pki ra ls`."),
    ],
) -> None:
    """Delete a registration authority.

    Certificates that it requested stay valid.
    """
    server.remove("est", "authorities", thumbprint, subject=f"the registration authority {thumbprint}")


_AUTHORITY_COLUMNS = ("subject", "names", "not_after", "thumbprint")
