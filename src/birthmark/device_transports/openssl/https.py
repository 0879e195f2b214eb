"""HTTPS by the standard library, in a thread: one connection per request, with limits for time and size."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from birthmark.device_transports.errors import LinkAnswerError, LinkTimeoutError
from birthmark.device_transports.identity_and_trust import FileIdentity, ServerTrust
from birthmark.device_transports.openssl.certificate_time import check_dates
from birthmark.device_transports.openssl.deadlines import ConnectionAbort, run_with_deadline
from birthmark.device_transports.openssl.tls_context import client_context, translate_error
from birthmark.device_transports.ports import HttpResponse
from birthmark.device_transports.urls import MAX_ANSWER_BYTES, TIMEOUT_S, HttpTarget, parse_url
from birthmark.untrusted_json_and_text import reason_of


@dataclass(frozen=True, slots=True)
class OpensslHttps:
    """`HttpsClient` by the standard library."""

    identity: FileIdentity | None
    trust: ServerTrust
    timeout_s: float = TIMEOUT_S

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        target = parse_url(url)
        try:
            return await run_with_deadline(self.timeout_s, partial(self._request, method, target, headers, body))
        except TimeoutError as error:
            raise LinkTimeoutError(host=target.host, port=target.port, seconds=f"{self.timeout_s:g}") from error

    def _request(
        self, method: str, target: HttpTarget, headers: Mapping[str, str], body: bytes, cut: ConnectionAbort
    ) -> HttpResponse:
        context = client_context(self.identity, self.trust)
        connection = http.client.HTTPSConnection(target.host, target.port, timeout=self.timeout_s, context=context)
        vars(connection)["_create_connection"] = cut.connect
        try:
            connection.connect()
            check_dates(connection.sock, self.trust, target.host, target.port)
            connection.request(method, target.path, body or None, {**headers, "Connection": "close"})
            response = connection.getresponse()
            content = response.read(MAX_ANSWER_BYTES + 1)
        except http.client.HTTPException as error:
            reason = "the answer is cut off" if isinstance(error, http.client.IncompleteRead) else reason_of(error)
            raise LinkAnswerError(host=target.host, port=target.port, reason=reason) from error
        except OSError as error:
            raise translate_error(error, target.host, target.port) from error
        finally:
            connection.close()
        if len(content) > MAX_ANSWER_BYTES:
            raise LinkAnswerError(host=target.host, port=target.port, reason=f"more than {MAX_ANSWER_BYTES} bytes")
        return HttpResponse(response.status, {name.lower(): value for name, value in response.getheaders()}, content)
