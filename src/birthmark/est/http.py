"""EST over HTTP: parse, call, render (RFC 7030 section 3.2)."""

from email.utils import format_datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.errors import BirthmarkError, ThrottledError, UnavailableError
from birthmark.est import wire
from birthmark.est.error_mapping import find_unrenewed_certificate, status_of
from birthmark.est.model import EstCaller
from birthmark.est.service import EstService
from birthmark.net.http_route_wrappers import Handler, refusing
from birthmark.pki.certificates import Certificate
from birthmark.refusals import Ledger
from birthmark.untrusted_json_and_text import printable

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_UNAUTHORIZED = 401
_RETRY_S = 30
# Before newer forms: embedded clients parse no more than this.
_CHALLENGE = 'Basic realm="birthmark"'
_BASE64 = {"Content-Transfer-Encoding": "base64"}


def routes(service: EstService, ledger: Ledger) -> list[Route]:
    """Return the EST routes, with and without a label; refusals are recorded in `ledger`."""

    def issued(certificate: Certificate, label: str | None) -> Response:
        window = wire.render_window(*service.renewal_window(certificate))
        body = wire.render_certs_only([certificate], is_wrapped=service.has_base64_lines(label))
        return _certs_only(body, {wire.RENEWAL_WINDOW: window})

    async def cacerts(request: Request) -> Response:
        label = _label(request)
        body = wire.render_certs_only(service.cacerts(label), is_wrapped=service.has_base64_lines(label))
        await service.record_anchor_fetch(_caller(request))
        # A device without a clock gets the time here, before it verifies any certificate.
        return _certs_only(body, {"Date": format_datetime(service.ca.clock.now(), usegmt=True)})

    async def csrattrs(request: Request) -> Response:
        label = _label(request)
        der = service.csr_attributes(label)
        if der is None:
            return Response(status_code=204)
        body = wire.encode_body(der, is_wrapped=service.has_base64_lines(label))
        return Response(body, media_type=wire.CSR_ATTRIBUTES, headers=_BASE64)

    async def simpleenroll(request: Request) -> Response:
        body = await _body(request)
        return issued(await service.enroll(body, _caller(request), _label(request)), _label(request))

    async def simplereenroll(request: Request) -> Response:
        body = await _body(request)
        return issued(await service.reenroll(body, _caller(request), _label(request)), _label(request))

    async def serverkeygen(request: Request) -> Response:
        body = await _body(request)
        label = _label(request)
        key, certificate = await service.generate(body, _caller(request), label)
        boundary = f"birthmark-{service.ca.entropy.token(12).hex()}"
        content = wire.render_key_and_certificate(
            key, certificate, boundary, is_wrapped=service.has_base64_lines(label)
        )
        headers = {"Content-Type": f"multipart/mixed; boundary={boundary}", "Cache-Control": "no-store"}
        return Response(content, headers=headers)

    async def fullcmc(_request: Request) -> Response:
        raise wire.FullCmcError

    def refusal(error: BirthmarkError, request: Request) -> Response:
        place = f"https://{request.url.netloc}{wire.BASE_PATH}"
        error.add_facts(operation=request.url.path.rpartition("/")[2], place=place)
        caller = _caller(request)
        leaf, unrenewed = caller.peer.leaf, find_unrenewed_certificate(error)
        reference = ledger.record(error, address=caller.address, presented=leaf, unrenewed=unrenewed)
        return _refusal(error, reference, is_challenge=caller.authorization is None)

    operations: list[tuple[str, str, Handler]] = [
        ("GET", "cacerts", cacerts),
        ("GET", "csrattrs", csrattrs),
        ("POST", "simpleenroll", simpleenroll),
        ("POST", "simplereenroll", simplereenroll),
        ("POST", "serverkeygen", serverkeygen),
        ("POST", "fullcmc", fullcmc),
    ]

    def route(label: str, method: str, name: str, handler: Handler) -> Route:
        async def checked(request: Request) -> Response:
            if request.method not in (method, "HEAD" if method == "GET" else method):
                await request.body()
                raise wire.MethodWrongError(method=request.method, wanted=method, operation=name)
            return await handler(request)

        return Route(f"{wire.BASE_PATH}{label}/{name}", refusing(checked, refusal), methods=_METHODS)

    return [route(label, *operation) for label in ("", "/{label}") for operation in operations]


def _refusal(error: BirthmarkError, reference: str, *, is_challenge: bool) -> Response:
    """Return the response to a refused request.

    Its text is for the device's log; cause and fix are for the operator (`birthmark why`). A 401 to a request without
    credentials has no body: Bouncy Castle closes it unread, and would fail on one.
    """
    status = status_of(error)
    headers = {wire.REFERENCE: reference, wire.REASON: printable(str(error)).encode("ascii", "replace").decode()}
    if status == _UNAUTHORIZED:
        headers["WWW-Authenticate"] = _CHALLENGE
    if isinstance(error, wire.MethodWrongError):
        headers["Allow"] = error.wanted
    if isinstance(error, ThrottledError):
        headers["Retry-After"] = str(error.retry_after_s)
    elif isinstance(error, UnavailableError):
        headers["Retry-After"] = str(_RETRY_S)
    is_empty = is_challenge and status == _UNAUTHORIZED
    text = "" if is_empty else f"{error!s}\nReference: {reference}\n"
    return Response(text, status, headers, media_type="text/plain")


def _certs_only(body: bytes, headers: dict[str, str]) -> Response:
    return Response(body, headers={"Content-Type": wire.CERTS_ONLY, **_BASE64, **headers})


async def _body(request: Request) -> bytes:
    """Return the complete request body after a check of its media type.

    The body is read even for a request that is refused: an unread body can turn the close of a connection into a reset.
    """
    body = await request.body()
    wire.check_media_type(request.headers.get("content-type"))
    return body


def _caller(request: Request) -> EstCaller:
    address = "" if request.client is None else request.client.host
    return EstCaller(request.scope["extensions"]["tls"], request.headers.get("authorization"), address)


def _label(request: Request) -> str | None:
    label: str | None = request.path_params.get("label")
    return label
