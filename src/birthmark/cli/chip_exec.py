"""`birthmark chip exec`: any program with the chip's key."""

import os
from typing import Annotated

import typer

from birthmark.cli.chip_options import ChipOptions
from birthmark.cli.confirmation import only
from birthmark.keys.pkcs11_library import stop_library
from birthmark.secure_elements import exec as element_exec
from birthmark.secure_elements.exec import KeyAccess
from birthmark.secure_elements.exec.proxy import parse_target


def exec_(
    chip: ChipOptions,
    program: Annotated[list[str], typer.Argument(metavar="-- PROGRAM [ARG]...", help="Any program that uses TLS.")],
    how: Annotated[KeyAccess | None, typer.Option(help="Go this way; default: what program and machine have.")] = None,
    server: Annotated[
        list[str] | None, typer.Option(metavar="HOST:PORT", help="By the proxy, to this server; may be repeated.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="Object id, label, or id:HEX, for a program that names no key; default: the identity."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print what was found, what is chosen and what it sets; run nothing.")
    ] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Say of each key file which key it is mapped to.")] = False,
) -> None:
    """Run a program that only takes key files with the key in the chip; the program stays as it is.

    Wherever it loads a reference key, a `pkcs11:` URI file or a URI PEM, it gets the token's key: by a hook (Python,
    Node), OpenSSL's engine (curl, openssl), pkcs11-provider, or a TLS proxy on loopback (mosquitto_pub, any other).
    """
    only(how in (None, KeyAccess.PROXY), "with --how proxy", server=server or None)
    for target in server or ():
        _check_target(target)
    element, pin = chip.open_by(chip.pin())
    with element:
        planned = element_exec.plan(
            program, element, pin=pin, environment=os.environ, explain=trace, how=how, to=server or (), key=key
        )
    stop_library()
    if explain:
        typer.echo(planned.explain())
        return
    element_exec.run(planned, os.environ)


def _check_target(text: str) -> None:
    try:
        parse_target(text)
    except ValueError:
        raise typer.BadParameter(f"{text} is not HOST:PORT", param_hint="--server") from None
