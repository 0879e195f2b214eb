"""Time of a server, from the Date header of its response."""

import http.client
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial

from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.device_transports.openssl.certificate_time import verified_chain
from birthmark.device_transports.openssl.deadlines import ConnectionAbort, run_with_deadline
from birthmark.device_transports.openssl.tls_context import client_context, translate_error
from birthmark.device_transports.urls import parse_url

_TIMEOUT_S = 10.0


_MAX_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class StatedTime:
    """A server's stated time, and the period in which all certificates of its verified chain are valid."""

    at: datetime
    valid_from: datetime
    valid_until: datetime


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
