"""Streaming HTTPS download of large files, with resumption after an interruption.

Redirects are not followed, so that the author of the URL also chooses the server. The device presents no certificate.
"""

import http.client
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from birthmark.device_transports.errors import LinkAnswerError, LinkLostError, LinkTimeoutError
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.device_transports.openssl.certificate_time import check_dates
from birthmark.device_transports.openssl.deadlines import ConnectionAbort, run_with_deadline
from birthmark.device_transports.openssl.tls_context import client_context, translate_error
from birthmark.device_transports.urls import TIMEOUT_S, HttpTarget, parse_url
from birthmark.untrusted_json_and_text import reason_of

_READ_BYTES = 16 * 1024  # amount lost on a cut connection
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


@dataclass(frozen=True, slots=True)
class DownloadResponse:
    """A server's response: status, offset of the content, and total size if stated."""

    status: int
    offset: int = 0
    size: int | None = None


Begin = Callable[[DownloadResponse], bool]
"""Receives the response before its content, and returns whether to read the content."""
Take = Callable[[bytes], None]


async def download(
    url: str, trust: ServerTrust, *, offset: int, begin: Begin, take: Take, timeout_s: float
) -> DownloadResponse:
    """Download `url` from `offset` on and return the response; `begin` and `take` are called in a thread.

    Raise the transport errors for an interrupted connection, `LinkAnswerError` for a response that is not HTTP, and the
    errors of `begin` and `take`.
    """
    target = parse_url(url)
    try:
        return await run_with_deadline(timeout_s, partial(_fetched, target, trust, offset, (begin, take)))
    except TimeoutError as error:
        raise LinkTimeoutError(host=target.host, port=target.port, seconds=f"{timeout_s:g}") from error


def _fetched(
    target: HttpTarget, trust: ServerTrust, offset: int, heard: tuple[Begin, Take], cut: ConnectionAbort
) -> DownloadResponse:
    begin, take = heard
    context = client_context(None, trust)
    connection = http.client.HTTPSConnection(target.host, target.port, timeout=TIMEOUT_S, context=context)
    vars(connection)["_create_connection"] = cut.connect
    headers = {"Connection": "close", "Accept-Encoding": "identity"}
    try:
        try:
            connection.connect()
            check_dates(connection.sock, trust, target.host, target.port)
            connection.request("GET", target.path, headers=headers | ({"Range": f"bytes={offset}-"} if offset else {}))
            response = connection.getresponse()
        except http.client.HTTPException as error:
            reason = "the answer is cut off" if isinstance(error, http.client.IncompleteRead) else reason_of(error)
            raise LinkAnswerError(host=target.host, port=target.port, reason=reason) from error
        except OSError as error:
            raise translate_error(error, target.host, target.port) from error
        sent = _sent(response)
        if begin(sent):
            while data := _read(response, target):
                take(data)
        return sent
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse, target: HttpTarget) -> bytes:
    try:
        data = response.read(_READ_BYTES)
    except http.client.HTTPException as error:
        reason = "the answer is cut off" if isinstance(error, http.client.IncompleteRead) else reason_of(error)
        raise LinkLostError(host=target.host, reason=reason) from error
    except OSError as error:
        raise translate_error(error, target.host, target.port) from error
    if not data and response.length:  # more data was announced
        raise LinkLostError(host=target.host, reason=f"{response.length} bytes are missing")
    return data


def _sent(response: http.client.HTTPResponse) -> DownloadResponse:
    found = _RANGE.fullmatch(response.getheader("Content-Range", "").strip())
    if response.status == HTTPStatus.PARTIAL_CONTENT and found is not None:
        return DownloadResponse(response.status, int(found[1]), None if found[3] == "*" else int(found[3]))
    return DownloadResponse(response.status, 0, response.length)
