"""HTTP distribution for relying parties: OCSP (RFC 6960 appendix A), CRLs, CA certificates.

The content is public and signed, and clients are unauthenticated, so plain HTTP is as secure as TLS. Caches may store
responses (RFC 5019 section 6) for at most 15 minutes, which bounds the delay of a revocation.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from email.utils import format_datetime
from hashlib import sha256
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from birthmark.ca.ocsp_responder import OcspResponder
from birthmark.errors import BirthmarkError
from birthmark.pki.ocsp import MAX_REQUEST_BYTES, OcspMalformedError, OcspResponse, UnsignedStatus

REQUEST, RESPONSE = "application/ocsp-request", "application/ocsp-response"
LIST, CERTIFICATE = "application/pkix-crl", "application/pkix-cert"
MAX_AGE_S = 900
_MAX_GET_CHARS = MAX_REQUEST_BYTES * 4 // 3 + 4


def routes(answers: OcspResponder, refused: Callable[[BirthmarkError, str], object]) -> Sequence[Route]:
    """Return the routes: OCSP over GET and POST, and the CRL and certificate of each CA.

    `refused` is called with the error and the client address of a malformed request.
    """
    ca = answers.ca

    async def post(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != REQUEST:
            return PlainTextResponse(f"Send Content-Type: {REQUEST}.\n", 415)
        return await said(request, await request.body(), is_kept=False)

    async def get(request: Request) -> Response:
        return await said(request, _asked(request.path_params["asked"]), is_kept=True)

    async def said(request: Request, der: bytes, *, is_kept: bool) -> Response:
        address = request.client.host if request.client else ""
        answer: OcspResponse | UnsignedStatus
        try:
            answer = await answers.answer(der, address)
        except OcspMalformedError as error:
            refused(error, address)
            answer = UnsignedStatus.MALFORMED
        if isinstance(answer, UnsignedStatus):
            return Response(answer.der, media_type=RESPONSE, headers={"Cache-Control": "no-store"})
        if not is_kept:
            return Response(answer.der, media_type=RESPONSE)
        return _cached(request, answer.der, RESPONSE, _Times(answer.this_update, answer.next_update, ca.clock.now()))

    async def crl(request: Request) -> Response:
        if (made := await ca.lists.named(request.path_params["name"])) is None:
            return _unknown()
        return _cached(request, made.der, LIST, _Times(made.made_at, made.next_update, ca.clock.now()))

    async def certificate(request: Request) -> Response:
        if (one := ca.hierarchy.named(request.path_params["name"])) is None:
            return _unknown()
        return _cached(request, one.der, CERTIFICATE, _Times(one.not_before, one.not_after, ca.clock.now()))

    return [
        Route("/ocsp", post, methods=["POST"]),
        Route("/ocsp/", post, methods=["POST"]),
        Route("/ocsp/{asked:path}", get, methods=["GET"]),
        Route("/crl/{name}.crl", crl, methods=["GET"]),
        Route("/ca/{name}.cer", certificate, methods=["GET"]),
    ]


def _asked(text: str) -> bytes:
    """Return the request in a path; empty if malformed. Accept the URL-safe alphabet and missing padding."""
    if len(text) > _MAX_GET_CHARS:
        return b""
    plain = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (ValueError, binascii.Error):
        return b""


class _Times(NamedTuple):
    """Creation time and end of validity of a response, and the current time."""

    made: datetime
    until: datetime
    now: datetime


def _cached(request: Request, body: bytes, media_type: str, times: _Times) -> Response:
    """Return a cacheable response, or 304 if the client has it already."""
    tag = f'"{sha256(body).hexdigest()[:32]}"'
    left = max(0, min(MAX_AGE_S, int((times.until - times.now).total_seconds())))
    headers = {
        "ETag": tag,
        "Last-Modified": format_datetime(times.made.replace(microsecond=0), usegmt=True),
        "Expires": format_datetime(times.until.replace(microsecond=0), usegmt=True),
        "Cache-Control": f"max-age={left}, public, no-transform, must-revalidate",
    }
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def _unknown() -> Response:
    return PlainTextResponse("This CA does not exist.\n", 404)
