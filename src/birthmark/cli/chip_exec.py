"""`birthmark chip exec`: run a program with the secure element's key."""

import os
from typing import Annotated

import typer

from birthmark.cli.option_checks_and_confirmation import only
from birthmark.cli.options.chip_and_pin import ChipOptions
from birthmark.keys.pkcs11_library_lifecycle import stop_library
from birthmark.secure_elements import exec as element_exec
from birthmark.secure_elements.exec import KeyAccess
from birthmark.secure_elements.exec.loopback_tls_proxy import parse_target


def exec_(
    chip: ChipOptions,
    program: Annotated[list[str], typer.Argument(metavar="-- PROGRAM [ARG]...", help="Any program that uses TLS.")],
    how: Annotated[
        KeyAccess | None,
        typer.Option(help="Integration method. Default: the first that program and machine support."),
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="Server to reach through the proxy; may be repeated."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="Object ID, label, or id:HEX for a program that names no key. Default: the identity key."),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Print the findings, the method and its settings without running the program."),
    ] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Print the mapped key for each key file.")] = False,
) -> None:
    """Run a program with its TLS key in the chip.

    For unmodified programs that only support key files.

    A reference key, a `pkcs11:` URI file or a URI PEM selects the token's key. It is loaded through a hook (Python,
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
