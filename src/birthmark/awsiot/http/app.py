"""The ASGI application: who asks (signature, or a device's certificate), which operation, how it answers.

Routes see the raw path; a router that decodes first could not tell an ARN's slash from the path's own.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_plus, unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response

from birthmark.auth.sigv4 import SignatureMissingError, SignedRequest, is_signed
from birthmark.awsiot.errors import http_error
from birthmark.awsiot.http.authorities import AuthorityOperations
from birthmark.awsiot.http.certificates import CertificateOperations
from birthmark.awsiot.http.policies import PolicyOperations
from birthmark.awsiot.http.routing import Call, Handler, Router
from birthmark.awsiot.http.table import FIRST_SEGMENTS, OPERATIONS
from birthmark.awsiot.http.things import ThingOperations
from birthmark.awsiot.model import Account
from birthmark.awsiot.rules import topics
from birthmark.awsiot.rules.variables import Visitor
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.authorities import CaExistsError
from birthmark.awsiot.service.certificates import CertificateExistsError
from birthmark.awsiot.service.devices import Grant
from birthmark.awsiot.service.policies import PolicyExistsError
from birthmark.awsiot.service.things import ThingExistsError
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.broker import Space
from birthmark.broker.model import Message
from birthmark.clock import Entropy, new_uuid
from birthmark.errors import BirthmarkError
from birthmark.net.http import ASGIApp, Receive, Scope, Send
from birthmark.net.tls import TlsPeer

GROUPS = (ThingOperations, CertificateOperations, AuthorityOperations, PolicyOperations)
SERVICES = frozenset({"iot", "iotdata", "iot-jobs-data", "iotdevicegateway"})
_TOPICS = "/topics/"
_PUBLISH = "aws iot-data publish --generate-cli-skeleton"
# Which fact of an error names the resource that exists already, and of which kind it is.
_EXISTING: Mapping[type[BirthmarkError], tuple[str, str]] = {
    ThingExistsError: ("thing", "thing"),
    CertificateExistsError: ("certificate_id", "cert"),
    CaExistsError: ("certificate_id", "cacert"),
    PolicyExistsError: ("policy", "policy"),
}
Record = Callable[[BirthmarkError, Request], str]


def is_for_aws(scope: Scope) -> bool:
    """Say whether a request is for this room: signed its way, or on one of its paths."""
    if scope["type"] != "http":
        return False
    authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    if is_signed(authorization.decode("latin-1"), scope["query_string"].decode("latin-1")):
        return True
    return raw_path_of(scope).split("/", 2)[1] in FIRST_SEGMENTS


def raw_path_of(scope: Scope) -> str:
    """Return the path as it was sent."""
    path: str = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    return path if path.startswith("/") else f"/{path}"


def signed_request_of(scope: Scope, body: bytes = b"") -> SignedRequest:
    """Return what a signature covers."""
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    query = scope["query_string"].decode("latin-1")
    return SignedRequest(scope.get("method", "GET"), raw_path_of(scope), query, headers, body)


def handlers(aws: AwsIot) -> Mapping[str, Handler]:
    """Return who serves which operation."""
    groups = [group(aws) for group in GROUPS]
    found = ((one.name, getattr(group, one.verb, None)) for one in OPERATIONS for group in groups)
    return {name: handler for name, handler in found if handler is not None}


class AwsHttp:
    """Answers for the control plane and for `POST /topics/…`; everything else goes on to `otherwise`."""

    def __init__(self, aws: AwsIot, space: Space, record: Record, entropy: Entropy, otherwise: ASGIApp) -> None:
        self._aws = aws
        self._space = space
        self._record = record
        self._entropy = entropy
        self._otherwise = otherwise
        self._router = Router(handlers(aws))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_for_aws(scope):
            await self._otherwise(scope, receive, send)
            return
        request = Request(scope, receive)
        response = await self._answer(request, self._handle)
        await response(scope, receive, send)

    async def _answer(self, request: Request, handle: Callable[[Request], Awaitable[Any]]) -> Response:
        try:
            value = await handle(request)
        except BirthmarkError as error:
            status, name = http_error(error)
            body: dict[str, Any] = {"message": str(error)} | _existing(self._aws.account, error)
            headers = {"x-amzn-ErrorType": name, "x-amzn-RequestId": self._record(error, request)}
            return Response(json.dumps(body), status, headers, "application/json")
        headers = {"x-amzn-RequestId": new_uuid(self._entropy)}
        return Response(json.dumps({} if value is None else value), 200, headers, "application/json")

    async def _handle(self, request: Request) -> Any:
        body = await request.body()
        signed = signed_request_of(request.scope, body)
        is_publish = signed.method == "POST" and signed.path.startswith(_TOPICS)
        if not is_signed(request.headers.get("authorization", ""), signed.query):
            if not is_publish:
                raise SignatureMissingError
            return await self._publish(signed, await self._device(request))
        key = self._aws.keys.authenticate(signed, SERVICES)
        actor = f"access_key:{key.id}"
        if is_publish:
            return await self._publish(signed, Grant(key.id, None, None, None))
        operation, handler, names = self._router.find(signed.method, signed.path)
        headers = {name: value for name, value in signed.headers if name.startswith("x-amz")}
        try:
            return await handler(Call(operation, names, _query(signed.query), headers, body, actor))
        except BirthmarkError as error:
            error.add_facts(command=operation.form)
            raise

    async def _device(self, request: Request) -> Grant:
        peer: TlsPeer = request.scope["extensions"]["tls"]
        address = request.client.host if request.client else ""
        return await self._aws.devices.admit(Visitor(peer.leaf, None, address, peer.sni, chain=peer.chain))

    async def _publish(self, signed: SignedRequest, grant: Grant) -> Any:
        query = _query(signed.query)
        topic = _topic_of(signed.path)
        if query.get("qos", "0") not in {"0", "1"}:
            raise BodyInvalidError(detail="qos is neither 0 nor 1", command=_PUBLISH)
        qos = int(query.get("qos", "0"))
        retain = query.get("retain", "false").lower() == "true"
        topics.check_publish("over HTTPS", topic, len(signed.body), qos)
        self._aws.devices.check(grant, "iot:Publish", "topic", topic)
        if retain:
            self._aws.devices.check(grant, "iot:RetainPublish", "topic", topic)
        await self._space.published(Message(topic, signed.body, qos, retain))
        return {"message": "OK", "traceId": new_uuid(self._entropy)}


def _topic_of(raw_path: str) -> str:
    """Both `a%2Fb` and `a/b` are in use; a literal percent sign stands as %25."""
    try:
        return unquote_to_bytes(raw_path[len(_TOPICS) :]).decode()
    except UnicodeDecodeError as error:
        raise BodyInvalidError(detail="the topic is not UTF-8", command=_PUBLISH) from error


def _query(text: str) -> Mapping[str, str]:
    pairs: Sequence[tuple[str, str, str]] = [part.partition("=") for part in text.split("&") if part]
    return {unquote_plus(name): unquote_plus(value) for name, _, value in pairs}


def _existing(account: Account, error: BirthmarkError) -> dict[str, str]:
    if type(error) not in _EXISTING:
        return {}
    fact, kind = _EXISTING[type(error)]
    name = error.facts[fact]
    return {"resourceId": name, "resourceArn": account.arn(kind, name)}
