"""`birthmark dps`: provisioning services, their links and CA certificates."""

from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.asking import only
from birthmark.cli.common import UsageError, emit, read_certificate, telling_refusals
from birthmark.cli.operator import DEFAULT_DATA, DataOption, JsonOption, at, operator, show

app = typer.Typer(
    help="Provisioning services: create, link to hubs, CA certificates.",
    epilog="Example: birthmark dps show",
    no_args_is_help=True,
)
ca = typer.Typer(
    help="CA certificates on record, and proof of possession.",
    epilog="Example: birthmark dps ca list",
    no_args_is_help=True,
)
app.add_typer(ca, name="ca")

_COLUMNS = ("name", "id_scope", "host", "linked_hubs")
_CA_COLUMNS = ("name", "subject", "verified", "not_after", "thumbprint")
NameOption = Annotated[str, typer.Option("--dps", help="Which provisioning service.")]


class VerificationMissingError(UsageError):
    """No verification certificate was named."""

    code = "dps.verification_missing"
    cause = "Nothing proves that the key of {name} is yours."
    fix = "Take your word for it: `birthmark dps ca verify {name} --without-proof`"
    name: str


class CertificateNotGivenError(UsageError):
    """One certificate is needed."""

    code = "dps.certificate_not_given"
    cause = "A CA is put on record by one certificate: a file, or the one of an enrollment group (--of-group)."
    fix = "Name one; `birthmark enroll list` shows the groups."
    name: str


@app.command("show")
def show_all(data: DataOption = Path(DEFAULT_DATA), as_json: JsonOption = False) -> None:
    """List the provisioning services with their ID scopes and linked hubs.

    Example: birthmark dps show
    """
    with telling_refusals(as_json=as_json):
        show(operator(data).rows("/dps"), _COLUMNS, as_json=as_json, nothing="There is no provisioning service.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Its name on this server.")],
    host: Annotated[str | None, typer.Option(help="Host name devices use; default is the server's.")] = None,
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Make another provisioning service, with an ID scope of its own.

    Example: birthmark dps create factory-2
    """
    with telling_refusals(as_json=as_json):
        emit(as_json, operator(data).post("/dps", {"name": name, "host": host}))


@app.command()
def link(
    hub: Annotated[str, typer.Argument(help="The hub's name (`birthmark hub show`).")],
    name: NameOption = "birthmark",
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Let a provisioning service assign devices to HUB.

    Example: birthmark dps link hub-2
    """
    with telling_refusals(as_json=as_json):
        emit(as_json, operator(data).post(at("dps", name, "link"), {"hub": hub}))


@app.command()
def release(
    registration: Annotated[str, typer.Argument(metavar="ID", help="The registration id.")],
    name: NameOption = "birthmark",
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Let a registration go, with the device it made at its hub: whoever is enrolled for the name next may have it.

    Example: birthmark dps release edge-0001
    """
    with telling_refusals(as_json=as_json):
        emit(as_json, operator(data).post(at("dps", name, "registrations", registration, "release")))


@ca.command("list")
def list_cas(
    name: NameOption = "birthmark", data: DataOption = Path(DEFAULT_DATA), as_json: JsonOption = False
) -> None:
    """List the CA certificates on record.

    Example: birthmark dps ca list
    """
    with telling_refusals(as_json=as_json):
        rows = operator(data).rows(at("dps", name, "cas"))
        show(rows, _CA_COLUMNS, as_json=as_json, nothing="No CA certificate is on record.")


@ca.command()
def add(
    ca_name: Annotated[str, typer.Argument(metavar="NAME", help="Its name on record.")],
    file: Annotated[Path | None, typer.Argument(help="The CA's certificate, PEM or DER.")] = None,
    of_group: Annotated[
        str | None, typer.Option(metavar="GROUP", help="The certificate that an enrollment group carries itself.")
    ] = None,
    verified: Annotated[bool, typer.Option("--verified", help="Mark it verified without proof of possession.")] = False,
    name: NameOption = "birthmark",
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Put a CA certificate on record. It needs proof of possession before a group may use it.

    Example: birthmark dps ca add my-ca root.pem
    """
    with telling_refusals(as_json=as_json):
        if (file is None) == (of_group is None):
            raise CertificateNotGivenError(name=ca_name)
        pem = None if file is None else read_certificate(file).pem()
        body = {"name": ca_name, "certificate": pem, "group": of_group, "verified": verified}
        made = operator(data).post(at("dps", name, "cas"), body)
        for one in made if isinstance(made, list) else [made]:
            emit(as_json, one)


@ca.command()
def code(
    ca_name: Annotated[str, typer.Argument(metavar="NAME", help="Its name on record.")],
    name: NameOption = "birthmark",
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Print a verification code; sign a certificate with it as common name: `birthmark ca verify-possession CODE`.

    Example: birthmark dps ca code my-ca
    """
    with telling_refusals(as_json=as_json):
        answer = operator(data).post(at("dps", name, "cas", ca_name, "code"))
        if as_json:
            emit(as_json, answer)
        else:
            typer.echo(answer["code"])


@ca.command()
def verify(
    ca_name: Annotated[str, typer.Argument(metavar="NAME", help="Its name on record.")],
    file: Annotated[Path | None, typer.Argument(help="The verification certificate.")] = None,
    without_proof: Annotated[bool, typer.Option("--without-proof", help="Take your word for it.")] = False,
    name: NameOption = "birthmark",
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Prove possession of the CA's key with the signed verification certificate.

    Example: birthmark dps ca verify my-ca verification.pem
    """
    with telling_refusals(as_json=as_json):
        if file is None and not without_proof:
            raise VerificationMissingError(name=ca_name)
        only(file is None, "without a verification certificate", without_proof=without_proof)
        pem = None if file is None else read_certificate(file).pem()
        emit(as_json, operator(data).post(at("dps", name, "cas", ca_name, "verify"), {"certificate": pem}))


@ca.command()
def remove(
    ca_name: Annotated[str, typer.Argument(metavar="NAME", help="Its name on record.")],
    name: NameOption = "birthmark",
    data: DataOption = Path(DEFAULT_DATA),
) -> None:
    """Take a CA certificate off the record.

    Example: birthmark dps ca remove my-ca
    """
    with telling_refusals():
        operator(data).delete(at("dps", name, "cas", ca_name))
        typer.echo(f"Removed {ca_name}.", err=True)
