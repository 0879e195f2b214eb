"""`birthmark ca init`, `show` and `verify-possession`: the CAs themselves."""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.ca import ca_directory
from birthmark.ca.certificate_inventory_queries import CertificateQuery, Inventory
from birthmark.ca.model import IssuedCertificate
from birthmark.ca.offline_root import ask
from birthmark.ca.passphrase_rotation import move
from birthmark.ca.passphrase_sources import FORMS, Passphrase
from birthmark.ca.pkcs11_keys import TokenPlace
from birthmark.ca.revocation import CertificateUnknownError
from birthmark.ca.root_generation_directories import FIRST
from birthmark.cli.ca.server_managed_ca import at_server, server_of
from birthmark.cli.option_checks_and_confirmation import only
from birthmark.cli.options.ca import AuthorityOptions, Out, check_leads, opened, parse_source
from birthmark.cli.options.certificate_inventory import INVENTORY_COLUMNS, InventoryOptions, export
from birthmark.cli.options.server import show as show_rows
from birthmark.cli.output.ca_certificate_files import issued_row, show_hierarchy, write_chain
from birthmark.cli.output.command_output import emit, write_result
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.errors import BirthmarkError
from birthmark.operator_api.certificate_views import inventory_view, issuer_of
from birthmark.operator_api.data_directory_lock import DirectoryInUseError, is_served, prevent_start
from birthmark.pki.ca_possession_proof import prove_possession
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.issuance import new_serial

_VERIFICATION_LIFETIME = timedelta(days=1)


class HierarchyLevel(StrEnum):
    """Level of a CA."""

    ROOT = "root"
    ISSUING = "issuing"


def init(
    authority: AuthorityOptions,
    name: Annotated[str, typer.Option(help="Name of your organization.")],
    flat: Annotated[
        bool, typer.Option(help="Create a root that signs devices directly, without an issuing CA.")
    ] = False,
    token: Annotated[str | None, typer.Option(help="Label of the PKCS#11 token for the keys.")] = None,
    module: Annotated[
        Path | None,
        typer.Option(envvar="BIRTHMARK_PKCS11_MODULE", help="PKCS#11 library of the token. Default: SoftHSM."),
    ] = None,
    pin_file: Annotated[
        Path | None, typer.Option(envvar="BIRTHMARK_PIN_FILE", help="File of mode 0600 with the PIN.")
    ] = None,
    offline_root: Annotated[
        bool, typer.Option("--offline-root", help="Write a signing request for a root on another machine.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output file for the signing request.")] = Path(
        "issuing.csr"
    ),
) -> None:
    """Create a root CA (20 years) and an issuing CA.

    Keys are encrypted files of mode 0600, or objects in a PKCS#11 token.

    CAs for other uses (servers, EST identities, edge CAs) are created below the root when first needed.
    """
    now, entropy = SystemClock().now(), SystemEntropy()
    if token is not None and pin_file is None:
        raise typer.BadParameter("specify the CA's PIN file: --pin-file FILE", param_hint="--token")
    place = None if token is None or pin_file is None else TokenPlace.of(token, pin_file, module)
    if offline_root:
        write_result(
            out,
            ask(
                authority.directory,
                Purpose.DEVICES,
                now=now,
                entropy=entropy,
                organization=name,
                passphrase=authority.passphrase,
                token=place,
            ),
        )
        typer.echo(f"Run on the root's machine: `birthmark ca root sign {out.name} --out issuing.answer`", err=True)
        return
    secret = authority.passphrase
    made = ca_directory.create(
        authority.directory, name, now=now, entropy=entropy, flat=flat, passphrase=secret, token=place
    )
    show_hierarchy(authority, made)


async def show(
    authority: AuthorityOptions,
    which: InventoryOptions,
    wanted: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Thumbprint, serial number or device id.")
    ] = None,
) -> None:
    """Show a CA's own certificates and the certificates it issued.

    Use the ID or the options to select certificates.
    """
    if which.is_asked:
        only(wanted is None, "without ID", **which.said)
        await _export(authority, which)
        return
    found: Sequence[IssuedCertificate] = ()
    if wanted is not None or server_of(authority.directory) is None:
        async with opened(authority, at_server("pki", "ls", *([wanted] if wanted else ()))) as ca:
            found = await ca.latest() if wanted is None else await ca.search(wanted)
    if wanted is not None and not found:
        raise CertificateUnknownError(wanted=wanted)
    if wanted is None:
        show_hierarchy(authority, authority.load())
        if authority.passphrase.is_in_key_directory:
            again = (
                f"birthmark ca passphrase --new file:$HOME/ca.passphrase --dir {shlex.quote(str(authority.directory))}"
            )
            typer.echo(f"The keys' passphrase is stored next to them. To move it: `{again}`", err=True)
    for one in found:
        if not authority.as_json:
            typer.echo()
        emit(authority.as_json, issued_row(one))


async def _export(authority: AuthorityOptions, which: InventoryOptions) -> None:
    async with opened(authority, at_server("pki", "ls", "--all")) as ca:
        wanted = CertificateQuery(which.expiring, which.expired, which.revoked, which.of_profile)
        wanted = replace(wanted, is_unrevoked=which.unrevoked, ends_from=which.ends_from, ends_to=which.ends_to)
        if which.of_issuer is not None:
            wanted = replace(wanted, issuer=issuer_of(ca, which.of_issuer))
        rows = [inventory_view(one) for one in await Inventory(ca.database, ca.clock).every(wanted)]
    if authority.as_json or which.as_csv:
        export(rows, as_csv=which.as_csv)
    else:
        show_rows(rows, INVENTORY_COLUMNS, as_json=False, nothing=which.nothing)


def passphrase(
    authority: AuthorityOptions,
    to: Annotated[
        str,
        typer.Option(
            "--new",
            metavar="SOURCE",
            help=(
                f"Source of the new passphrase: {FORMS}; or beside, for a file next to the keys. A missing file is "
                "created."
            ),
        ),
    ],
) -> None:
    """Change the passphrase of the CA's keys, and where it is stored.

    Stop the server first.

    Afterwards, set --passphrase, BIRTHMARK_CA_PASSPHRASE, or `ca.passphrase` of the server's configuration to the new
    source.
    """
    if is_served(authority.directory.parent):
        raise DirectoryInUseError(path=authority.directory.parent)
    check_leads(authority.directory)
    new = Passphrase(authority.directory, None if to == "beside" else parse_source(to), is_new=True)
    for one in (authority.passphrase, new):
        if one.is_handed_over:
            one.reveal()  # first: no server waits while a user types
    count = 0
    of_one = _generations(authority.directory)  # first: the lock below looks like a running server
    with prevent_start(authority.directory.parent):
        for directory in of_one:
            old = authority.passphrase.of(directory)
            later = new if directory == authority.directory else new.of(directory)  # made with the first, if a file
            with suppress(BirthmarkError):  # an earlier run did this
                ca_directory.load(directory, later)
                continue
            ca_directory.load(directory, old)
            count += move(directory, old, later, SystemEntropy())
    emit(authority.as_json, {"keys": count, "passphrase": to})


def _generations(directory: Path) -> list[Path]:
    """Return the directories whose keys share a passphrase; a server in a root rollover has two.

    Without a server, a sibling directory is another CA, or a copy.
    """
    if directory.name != FIRST or server_of(directory) is None:
        return [directory]
    return [directory, *(one for one in sorted(directory.parent.glob(f"{FIRST}-*")) if (one / "root.pem").exists())]


def verify_possession(
    authority: AuthorityOptions,
    code: Annotated[str, typer.Argument(help="Verification code (Azure) or registration code (AWS).")],
    level: Annotated[
        HierarchyLevel, typer.Option("--with", help="CA whose possession is proven.")
    ] = HierarchyLevel.ROOT,
    out: Out = None,
) -> None:
    """Issue a verification certificate for a cloud's CODE.

    It is signed with the CA's key and proves possession of it.
    """
    made = authority.load()
    proof = prove_possession(
        code,
        made.root if level is HierarchyLevel.ROOT else made.issuing,
        ec.generate_private_key(ec.SECP256R1()).public_key(),
        serial=new_serial(SystemEntropy()),
        now=SystemClock().now(),
        lifetime=_VERIFICATION_LIFETIME,
    )
    write_chain((proof,), out, authority.as_json)
