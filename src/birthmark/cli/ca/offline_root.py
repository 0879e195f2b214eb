"""`birthmark ca request`, `root sign` and `install`: CAs under a root whose key is on another machine."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from birthmark.ca import ca_directory
from birthmark.ca.cross_certificates import make_links
from birthmark.ca.hierarchy_files import BELOW
from birthmark.ca.offline_root import (
    MAX_ANSWER_BYTES,
    RequestRefusedError,
    ask,
    install,
    read_request,
    render_answer,
    waits_for_root,
)
from birthmark.ca.passphrase_sources import FORMS, Passphrase
from birthmark.cli.ca.server_managed_ca import by_another
from birthmark.cli.input_files import about, read_file
from birthmark.cli.options.ca import AuthorityOptions, Out, check_leads, opened, parse_source
from birthmark.cli.output.ca_certificate_files import show_hierarchy, write
from birthmark.cli.output.command_output import certificate_row, write_result
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.certificates import CertificateInvalidError, parse_thumbprint
from birthmark.pki.csr import MAX_CSR_BYTES
from birthmark.pki.issuance import issue, new_serial


class IssuingPurpose(StrEnum):
    """Purpose of a subordinate CA."""

    ISSUING = "issuing"
    EST = "est"
    EDGE = "edge"
    SERVERS = "servers"


def request(
    authority: AuthorityOptions,
    purpose: Annotated[IssuingPurpose, typer.Option(help="Use of the CA.")],
    out: Out = None,
) -> None:
    """Request a CA certificate from a root CA on another machine.

    Creates the key on this machine; an earlier pending key is deleted.

    Sign the request on that machine: `birthmark ca root sign FILE`. Then install the response on this machine:
    `birthmark ca install`.
    """
    is_asked_anew = purpose is IssuingPurpose.ISSUING and waits_for_root(authority.directory)
    if not ((authority.directory / "root.pem").exists() or is_asked_anew):
        raise ca_directory.missing(authority.directory)
    check_leads(authority.directory)
    write_result(
        out,
        ask(
            authority.directory,
            Purpose(purpose),
            now=SystemClock().now(),
            entropy=SystemEntropy(),
            passphrase=authority.passphrase,
        ),
    )


async def sign(
    authority: AuthorityOptions,
    file: Annotated[Path, typer.Argument(help="Signing request, as written by `birthmark ca request`.")],
    out: Out = None,
) -> None:
    """Sign another machine's CA request with the root.

    Writes the certificate, the root and its CRL.

    The same request always gets the same certificate, so you can repeat a lost response.
    """
    async with opened(authority, by_another("A CA on another machine", "--flat", directory="root-ca")) as ca:
        now = ca.clock.now()
        with about(file):
            wanted = read_request(read_file(file, 2 * MAX_CSR_BYTES), ca.hierarchy.anchor, now, file.stem)
        profile, asked, above = BELOW[wanted.purpose][1], wanted.request, ca.hierarchy.root
        there = await ca.live_of(asked.spki_der)
        same = [
            one.certificate for one in there if (one.certificate.subject, one.profile) == (asked.subject, profile.name)
        ]
        if there and not same:
            detail = "it was answered before, for another name or purpose"
            raise RequestRefusedError(detail=detail, purpose=wanted.purpose)
        if same:
            made = same[0]
        else:
            serial = new_serial(ca.entropy)
            made = issue(profile, asked.subject, asked.public_key, issuer=above, serial=serial, now=now)
            await ca.note(profile, made)
        text = render_answer(made, above.certificate, await ca.crl(above))
    row = {"purpose": str(wanted.purpose), **certificate_row(made), "file": str(out) if out else None}
    write(text, out, row, {**row, "pem": text}, authority.as_json)


def link_roots(
    authority: AuthorityOptions,
    old: Annotated[Path, typer.Argument(help="Directory of the root to be replaced.", file_okay=False)],
    old_source: Annotated[
        str | None,
        typer.Option(
            "--old-passphrase",
            parser=parse_source,
            metavar="SOURCE",
            help=f"Source of the old root's passphrase: {FORMS}.",
        ),
    ] = None,
    out: Out = None,
) -> None:
    """Cross-certify an old and a new root CA.

    Verifiers that trust either root can then verify the other.

    The new root is in --dir. Install the file on the server together with the new root's CAs: `birthmark ca install`.
    """
    before = ca_directory.load(old, Passphrase(old, old_source)).root
    after = authority.load().root
    if after.certificate == before.certificate:
        raise typer.BadParameter("it is also the root in --dir: specify the root to be replaced")
    made = make_links(before, after, now=SystemClock().now(), entropy=SystemEntropy())
    row = {"old": before.certificate.subject_text, **certificate_row(made.new), "file": str(out) if out else None}
    write(made.pem(), out, row, {**row, "pem": made.pem()}, authority.as_json)


def _parse_root(text: str) -> str:
    try:
        return parse_thumbprint(text).hex()
    except CertificateInvalidError as error:
        raise typer.BadParameter(
            "a thumbprint must have 64 hex digits; to print it, run `birthmark ca show` on the root's machine"
        ) from error


def install_answer(
    authority: AuthorityOptions,
    file: Annotated[Path, typer.Argument(help="Signed response, as written by `birthmark ca root sign`.")],
    thumbprint: Annotated[
        str | None,
        typer.Option(
            "--root-thumbprint",
            metavar="THUMBPRINT",
            parser=_parse_root,
            help="Expected thumbprint of the root, checked at the first installation.",
        ),
    ] = None,
) -> None:
    """Install a CA, CRL or cross-certificates from the root.

    A running server loads them at its next start.
    """
    check_leads(authority.directory)
    with about(file):
        install(
            authority.directory,
            read_file(file, MAX_ANSWER_BYTES),
            SystemClock().now(),
            root=thumbprint,
            passphrase=authority.passphrase,
            name=file.stem,
        )
    show_hierarchy(authority, authority.load())
