"""What every command shares: exit codes, how a refusal is shown, how results are printed.

Results go to stdout, as text for people or one JSON object per line; everything else goes to stderr.
"""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import typer

from birthmark import errors
from birthmark.cli.journal import note
from birthmark.pki.certificates import Certificate

T = TypeVar("T")

FAILED, WRONG_USAGE, NOT_FOUND, NOT_AUTHORIZED, CANNOT_REACH, ACTION_NEEDED, SOME_ROWS_REFUSED = range(1, 8)

EXIT_CODES: Mapping[type[errors.BirthmarkError], int] = {
    errors.BirthmarkError: FAILED,
    errors.NotFoundError: NOT_FOUND,
    errors.UnauthenticatedError: NOT_AUTHORIZED,
    errors.ForbiddenError: NOT_AUTHORIZED,
    errors.UnavailableError: CANNOT_REACH,
    errors.ThrottledError: CANNOT_REACH,
}
_LIFETIME = re.compile(r"([1-9][0-9]{0,8})(s|min|h|d)")
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def exit_code_of(error: errors.BirthmarkError) -> int:
    """Return the exit code of the nearest listed ancestor."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


@contextmanager
def refusals_shown(*, as_json: bool = False) -> Iterator[None]:
    """Turn a refusal into what a person needs (what, why, what to do) and the fitting exit code."""
    try:
        yield
    except errors.BirthmarkError as error:
        note(error)
        cause, fix = error.explain_cause(), error.explain_fix()
        if as_json:
            shown = {"error": error.code, "message": error.message, "cause": cause, "fix": fix}
            typer.echo(json.dumps(shown), err=True)
        else:
            typer.echo(f"{error.message}\n  Why: {cause}\n  Fix: {fix}\n  Code: {error.code}", err=True)
        raise typer.Exit(exit_code_of(error)) from error


def run(body: Callable[[], Coroutine[Any, Any, T]], *, as_json: bool = False) -> T:
    """Run a command's coroutine, its refusals shown."""
    with refusals_shown(as_json=as_json):
        return asyncio.run(body())


def emit(as_json: bool, row: Mapping[str, Any]) -> None:
    """Print one result: a JSON object in a line, or `name: value` lines."""
    if as_json:
        typer.echo(json.dumps(row))
        return
    width = max(len(name) for name in row)
    for name, value in row.items():
        if value is not None:
            typer.echo(f"{name.replace('_', ' '):<{width}}  {value}")


def certificate_row(certificate: Certificate) -> dict[str, Any]:
    """Return the stable JSON form of a certificate."""
    return {
        "subject": certificate.subject_text,
        "issuer": certificate.issuer_text,
        "serial": f"{certificate.serial:x}",
        "thumbprint": certificate.thumbprint.hex(),
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
    }


def parse_lifetime(text: str) -> timedelta:
    """Return the duration in `20s`, `30min`, `12h` or `365d`."""
    if (found := _LIFETIME.fullmatch(text)) is None:
        raise typer.BadParameter("give a number and a unit: 20s, 30min, 12h or 365d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def write_result(path: Path | None, text: str) -> None:
    """Write to a file, or to stdout when there is none."""
    if path is None:
        typer.echo(text, nl=False)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
