"""Certificate validity at a time other than the machine's clock, and queries of a server's time.

OpenSSL verifies chain, name and trust as usual, without the dates. This module checks the dates of every certificate in
the chain that OpenSSL found, at the given time. The standard library returns that chain from Python 3.13 on. Earlier
versions have only an undocumented call, which this module encapsulates.
"""

import http.client
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from birthmark.device_transports.errors import ServerUntrustedError
from birthmark.device_transports.identity import ServerTrust
from birthmark.device_transports.openssl.deadlines import ConnectionAbort, run_with_deadline
from birthmark.device_transports.openssl.tls_context import client_context, translate_error
from birthmark.device_transports.urls import parse_url
from birthmark.pki.certificates import Certificate, parse_der

_DER = 2
_TIMEOUT_S = 10.0
_MAX_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class StatedTime:
    """A server's stated time, and the period in which all certificates of its verified chain are valid."""

    at: datetime
    valid_from: datetime
    valid_until: datetime


def verified_chain(connection: Any) -> list[Certificate]:
    """Return the verified chain, including leaf and anchor; `connection` is a TLS socket or object."""
    found: list[Any]
    if hasattr(connection, "get_verified_chain"):
        found = connection.get_verified_chain()
    else:
        found = [one.public_bytes(_DER) for one in connection._sslobj.get_verified_chain()]  # noqa: SLF001 (see above)
    return [parse_der(bytes(one)) for one in found]


def check_dates(connection: Any, trust: ServerTrust, host: str, port: int) -> None:
    """Check the dates of a server's chain when the clock is not used. Raise `ServerUntrustedError`."""
    if trust.at is None:
        return
    for one in verified_chain(connection):
        if not one.not_before <= trust.at <= one.not_after:
            valid = f"{one.not_before:%Y-%m-%d %H:%M} to {one.not_after:%Y-%m-%d %H:%M} UTC"
            reason = (
                f"'{one.subject_text}' is valid from {valid}, and the time used for the check is "
                f"{trust.at:%Y-%m-%d %H:%M}"
            )
            error = ServerUntrustedError(host=host, port=port, reason=reason)
            vars(error)["is_about_time"] = True
            raise error


async def ask_time(url: str, trust: ServerTrust) -> StatedTime | None:
    """Return a server's stated time; None without one. The caller evaluates the dates of the certificates."""
    try:
        return await run_with_deadline(_TIMEOUT_S, partial(_ask, url, trust))
    except TimeoutError:
        return None


def _ask(url: str, trust: ServerTrust, cut: ConnectionAbort) -> StatedTime | None:
    target = parse_url(url)
    context = client_context(None, trust.at_time(datetime.max.replace(tzinfo=UTC)))  # any: the caller checks
    connection = http.client.HTTPSConnection(target.host, target.port, timeout=_TIMEOUT_S, context=context)
    vars(connection)["_create_connection"] = cut.connect
    try:
        connection.connect()
        chain = verified_chain(connection.sock)
        connection.request("GET", target.path, headers={"Connection": "close"})
        response = connection.getresponse()
        response.read(_MAX_BODY_BYTES)
        stated = parsedate_to_datetime(response.getheader("Date") or "")
    except (http.client.HTTPException, ValueError, TypeError, OverflowError):
        return None
    except OSError as error:
        raise translate_error(error, target.host, target.port) from error
    finally:
        connection.close()
    return StatedTime(stated, max(one.not_before for one in chain), min(one.not_after for one in chain))
