"""`birthmark ca init`, `show` and `verify-possession`: the CAs themselves."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.ca import directory as ca_directory
from birthmark.ca.offline import ask
from birthmark.ca.revocation import CertificateUnknownError
from birthmark.cli.ca.common import AuthorityOptions, Out, app, issued_row, opened, show_hierarchy, write_chain
from birthmark.cli.common import emit, write_result
from birthmark.cli.options import command
from birthmark.clock import SystemClock, SystemEntropy
from birthmark.pki.issue import new_serial
from birthmark.pki.possession import prove_possession
from birthmark.pki.profiles import Purpose

_VERIFICATION_LIFETIME = timedelta(days=1)


class Level(StrEnum):
    """Which CA."""

    ROOT = "root"
    ISSUING = "issuing"


@command(app, 'birthmark ca init --dir ca --name "Example Gateways"')
def init(
    authority: AuthorityOptions,
    name: Annotated[str, typer.Option(help="Your organization's name.")],
    flat: Annotated[bool, typer.Option(help="A root that signs devices itself, without an issuing CA.")] = False,
    offline_root: Annotated[
        bool, typer.Option("--offline-root", help="No root here: write a request for one on another machine.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where that request goes.")] = Path("issuing.csr"),
) -> None:
    """Make a root (20 years) and an issuing CA below it. Keys are encrypted files of mode 0600.

    CAs for other purposes (servers, EST identities, edge CAs) are made below the root when they are first needed.
    """
    now, entropy = SystemClock().now(), SystemEntropy()
    if offline_root:
        write_result(out, ask(authority.directory, Purpose.DEVICES, now=now, entropy=entropy, organization=name))
        typer.echo(f"Where the root is: `birthmark ca root sign {out.name} --out issuing.answer`", err=True)
        return
    show_hierarchy(authority, ca_directory.create(authority.directory, name, now=now, entropy=entropy, flat=flat))


@command(app, "birthmark ca show device-1 --dir ca")
async def show(
    authority: AuthorityOptions,
    wanted: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Thumbprint, serial number or device id.")
    ] = None,
) -> None:
    """Show the CA's certificates and what it issued, or what it issued to ID."""
    async with opened(authority.directory) as ca:
        found = await ca.latest() if wanted is None else await ca.search(wanted)
        if wanted is not None and not found:
            raise CertificateUnknownError(wanted=wanted)
    if wanted is None:
        show_hierarchy(authority, ca.hierarchy)
    for one in found:
        if not authority.as_json:
            typer.echo()
        emit(authority.as_json, issued_row(one))


@command(app, "birthmark ca verify-possession 3F9C…A1 --dir ca --out proof.pem", "verify-possession")
def verify_possession(
    authority: AuthorityOptions,
    code: Annotated[str, typer.Argument(help="The verification code (Azure) or registration code (AWS).")],
    level: Annotated[Level, typer.Option("--with", help="The CA that is put on record.")] = Level.ROOT,
    out: Out = None,
) -> None:
    """Prove to a cloud that you have the CA's key: writes a certificate for CODE, signed by it."""
    made = ca_directory.load(authority.directory)
    proof = prove_possession(
        code,
        made.root if level is Level.ROOT else made.issuing,
        ec.generate_private_key(ec.SECP256R1()).public_key(),
        serial=new_serial(SystemEntropy()),
        now=SystemClock().now(),
        lifetime=_VERIFICATION_LIFETIME,
    )
    write_chain((proof,), out, authority.as_json)
