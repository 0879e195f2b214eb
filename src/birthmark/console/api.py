"""The operator's REST interface: what one does in a portal (`birthmark dps`, `hub`, `est`, `aws key`, `why`).

JSON in and out under /operator/v1, on the health port, which is loopback only. Every call carries the token of the data
directory: whoever cannot read that directory has no rights here. Errors carry code, message, cause and fix.
"""

import base64
import hmac
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from birthmark import errors
from birthmark.awsiot.model import AccessKey
from birthmark.awsiot.service import AwsIot
from birthmark.dps.model import Authority, IdScope, Instance
from birthmark.dps.service import Authorities, Enrollments, Instances, Registrations
from birthmark.dps.service.instances import OWNER
from birthmark.errors import BirthmarkError, InvalidRequestError, UnauthenticatedError
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication, Hub, Message
from birthmark.iothub.service import Hubs
from birthmark.iothub.wire import DeviceBody, device_json
from birthmark.pki.certificates import parse_any, parse_thumbprint
from birthmark.refusals import refusals_about
from birthmark.store import Database, from_micros
from birthmark.store.paging import MAX_SIZE as MAX_PAGE
from birthmark.text import whole_number

ACTOR = "operator"
_MAX_MESSAGES = 10_000
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_REFUSALS = 1000
Handler = Callable[[Request], Awaitable[Any]]
T = TypeVar("T")

STATUS: Mapping[type[BirthmarkError], int] = {
    errors.InvalidRequestError: 400,
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.PolicyError: 422,
    errors.ThrottledError: 429,
    errors.UnavailableError: 503,
}


class OperatorTokenError(UnauthenticatedError):
    """The call does not carry this data directory's token."""

    code = "operator.token_refused"
    message = "The operator token is missing or wrong"
    cause = "The operator interface was called without the token of its data directory."
    fix = (
        "The commands show it, run by the user that owns the data directory. With curl: "
        '`-H "Authorization: Bearer $(cat "${{BIRTHMARK_DATA:-$HOME/.local/share/birthmark}}/operator.token")"`. '
        "If the file was changed, start the server again."
    )


def answering(handler: Handler, status: int = 200) -> Callable[[Request], Awaitable[Response]]:
    """Return `handler` with its value rendered as JSON, and its errors too."""

    async def answer(request: Request) -> Response:
        try:
            value = await handler(request)
        except BirthmarkError as error:
            return problem(error)
        return Response(status_code=204) if value is None else JSONResponse(value, status)

    return answer


def problem(error: BirthmarkError) -> Response:
    """Return an error as the command line reads it."""
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    body = {
        "code": error.code,
        "message": str(error),
        "cause": error.explain_cause(),
        "fix": error.explain_fix(),
    }
    return JSONResponse(body, status)


async def body_of(request: Request, kind: type[T]) -> T:
    """Return the request's JSON as `kind`. Raise `InvalidRequestError` naming what is wrong."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise OperatorRequestError(detail=str(error)) from error


class OperatorRequestError(InvalidRequestError):
    """A request that no route takes as it is."""

    code = "operator.request_invalid"
    message = "The request is not valid: {detail}"
    cause = "The operator interface does not take the request: {detail}."
    fix = "Ask as docs/reference/operator-api.md says."
    for_a_person = "a program asked, and has to be changed"

    detail: str


class NameInvalidError(InvalidRequestError):
    """A name that no path and no command line takes."""

    code = "operator.name_invalid"
    message = "The name cannot be used"
    cause = "A name has 1 to 64 letters, digits and - . _, and begins with a letter or digit."
    fix = "Choose another name. Those in use: `birthmark dps show`, `birthmark hub show`"

    name: str


def parse_name(text: str) -> str:
    """Return the name of something an operator makes. Raise `NameInvalidError`."""
    if _NAME.fullmatch(text) is None:
        raise NameInvalidError(name=text[:64])
    return text


class _NewInstance(msgspec.Struct):
    name: str
    host: str | None = None


class _Link(msgspec.Struct):
    hub: str


class _NewAuthority(msgspec.Struct):
    name: str
    certificate: str | None = None
    group: str | None = None
    verified: bool = False


class _Verification(msgspec.Struct):
    certificate: str | None = None


class _NewKey(msgspec.Struct):
    name: str = ""


class _NewDevice(msgspec.Struct):
    device_id: str
    thumbprint: str | None = None


class _NewHub(msgspec.Struct):
    name: str
    host: str


def dps_routes(instances: Instances, registrations: Registrations, hubs: Hubs, default_host: str) -> list[Route]:
    """Provisioning services and who registered."""

    async def listing(_request: Request) -> Any:
        return [_instance_json(instance) for instance in instances.all()]

    async def create(request: Request) -> Any:
        asked = await body_of(request, _NewInstance)
        return _instance_json(await instances.create(parse_name(asked.name), asked.host or default_host, actor=ACTOR))

    async def link(request: Request) -> Any:
        asked = await body_of(request, _Link)
        hub = hubs.by_name(asked.hub)
        return _instance_json(await instances.link(request.path_params["name"], hub.host, actor=ACTOR))

    async def release(request: Request) -> Any:
        instance = instances.by_name(request.path_params["name"])
        found = await registrations.release(instance, request.path_params["id"], actor=ACTOR)
        return {"registration_id": found.registration_id, "device": found.device_id, "hub": found.hub}

    return [
        Route("/dps", answering(listing), methods=["GET"]),
        Route("/dps", answering(create, 201), methods=["POST"]),
        Route("/dps/{name}/link", answering(link), methods=["POST"]),
        Route("/dps/{name}/registrations/{id}/release", answering(release), methods=["POST"]),
    ]


def dps_ca_routes(instances: Instances, authorities: Authorities, enrollments: Enrollments) -> list[Route]:
    """CA certificates of provisioning services."""

    def scope_of(request: Request) -> IdScope:
        return instances.by_name(request.path_params["name"]).id_scope

    async def list_cas(request: Request) -> Any:
        return [_authority_json(authority) for authority in await authorities.all(scope_of(request))]

    async def add_ca(request: Request) -> Any:
        asked = await body_of(request, _NewAuthority)
        scope, name = scope_of(request), parse_name(asked.name)
        if asked.group is None:
            wanted = {name: parse_any(asked.certificate or "")}
        else:
            carried = await enrollments.group_certificates(scope, asked.group)
            wanted = dict(zip((name, f"{name}-2"), carried, strict=False))
        made = [
            await authorities.add(scope, each, certificate, is_verified=asked.verified, actor=ACTOR)
            for each, certificate in wanted.items()
        ]
        return _authority_json(made[0]) if asked.group is None else [_authority_json(one) for one in made]

    async def remove_ca(request: Request) -> Any:
        await authorities.remove(scope_of(request), request.path_params["ca"], actor=ACTOR)

    async def code(request: Request) -> Any:
        return {"code": await authorities.new_code(scope_of(request), request.path_params["ca"], actor=ACTOR)}

    async def verify(request: Request) -> Any:
        asked = await body_of(request, _Verification)
        made = await _verified(authorities, scope_of(request), request.path_params["ca"], asked.certificate)
        return _authority_json(made)

    return [
        Route("/dps/{name}/cas", answering(list_cas), methods=["GET"]),
        Route("/dps/{name}/cas", answering(add_ca, 201), methods=["POST"]),
        Route("/dps/{name}/cas/{ca}", answering(remove_ca), methods=["DELETE"]),
        Route("/dps/{name}/cas/{ca}/code", answering(code), methods=["POST"]),
        Route("/dps/{name}/cas/{ca}/verify", answering(verify), methods=["POST"]),
    ]


def hub_routes(hubs: Hubs, instances: Instances, covers: Callable[[str], bool]) -> list[Route]:
    """Hubs and the telemetry they took. `covers` says whether the server's certificate has a host."""

    async def listing(_request: Request) -> Any:
        return [_hub_json(hub) for hub in hubs.all()]

    async def create(request: Request) -> Any:
        asked = await body_of(request, _NewHub)
        made = await hubs.create(parse_name(asked.name), asked.host, actor=ACTOR)
        return _hub_json(made) | {"in_certificate": covers(made.host)}

    async def delete(request: Request) -> Any:
        hub = hubs.by_name(request.path_params["name"])
        await hubs.delete(hub.name, actor=ACTOR)
        await instances.unlink(hub.host, actor=ACTOR)

    async def devices(request: Request) -> Any:
        hub = hubs.by_name(request.path_params["name"])
        found, after = [], ""
        while page := await hubs.devices(hub, after=after):
            found += [
                device_json(d, is_connected=(hub.name, d.device_id) in hubs.connected, with_keys=False) for d in page
            ]
            after = page[-1].device_id
        return found

    async def delete_device(request: Request) -> Any:
        hub = hubs.by_name(request.path_params["name"])
        await hubs.remove(hub, request.path_params["device"], None, actor=ACTOR)

    async def create_device(request: Request) -> Any:
        hub = hubs.by_name(request.path_params["name"])
        asked = await body_of(request, _NewDevice)
        kind = AuthenticationType.SAS if asked.thumbprint is None else AuthenticationType.SELF_SIGNED
        thumbprint = None if asked.thumbprint is None else parse_thumbprint(asked.thumbprint).hex().upper()
        wanted = DeviceAuthentication(kind, thumbprint)
        made = await hubs.put(hub, asked.device_id, DeviceBody(asked.device_id), wanted, None, actor=ACTOR)
        return {
            "device": made.device_id,
            "hub": hub.host,
            "auth": kind.value,
            "thumbprint": asked.thumbprint,
            "primary_key": _base64(made.authentication.primary_key),
        }

    async def messages(request: Request) -> Any:
        hub = hubs.by_name(request.path_params["name"])
        limit = _limit(request, 100, _MAX_MESSAGES)
        found = await hubs.latest_messages(hub, request.query_params.get("device"), limit)
        return [_message_json(hub, message) for message in found]

    return [
        Route("/hubs", answering(listing), methods=["GET"]),
        Route("/hubs", answering(create, 201), methods=["POST"]),
        Route("/hubs/{name}", answering(delete), methods=["DELETE"]),
        Route("/hubs/{name}/devices", answering(devices), methods=["GET"]),
        Route("/hubs/{name}/devices/{device:path}", answering(delete_device), methods=["DELETE"]),
        Route("/hubs/{name}/devices", answering(create_device, 201), methods=["POST"]),
        Route("/hubs/{name}/messages", answering(messages), methods=["GET"]),
    ]


def aws_routes(aws: AwsIot) -> list[Route]:
    """Access keys; what else there is in the account is asked through AWS's own interface, and listed here too."""

    async def keys(_request: Request) -> Any:
        return [_key_json(key) for key in aws.keys.all()]

    async def add_key(request: Request) -> Any:
        asked = await body_of(request, _NewKey)
        made = await aws.keys.add(asked.name, actor=ACTOR)
        return _key_json(made) | {"secret_access_key": made.secret}

    async def remove_key(request: Request) -> Any:
        await aws.keys.remove(request.path_params["id"], actor=ACTOR)

    async def things(_request: Request) -> Any:
        return [row async for row in _thing_rows(aws)]

    async def certificates(_request: Request) -> Any:
        return [row async for row in _certificate_rows(aws)]

    return [
        Route("/aws/keys", answering(keys), methods=["GET"]),
        Route("/aws/keys", answering(add_key, 201), methods=["POST"]),
        Route("/aws/keys/{id}", answering(remove_key), methods=["DELETE"]),
        Route("/aws/things", answering(things), methods=["GET"]),
        Route("/aws/certificates", answering(certificates), methods=["GET"]),
    ]


def refusal_routes(database: Database) -> list[Route]:
    """What `birthmark why` asks."""

    async def refusals(request: Request) -> Any:
        limit = _limit(request, 20, _MAX_REFUSALS)
        found = await refusals_about(database, request.query_params.get("subject"), limit)
        return [refusal.as_json() for refusal in found]

    return [Route("/refusals", answering(refusals), methods=["GET"])]


def operator_mount(token: str, routes: list[Route]) -> Mount:
    """Return the interface behind its token."""

    def guarded(route: Route) -> Route:
        inner = route.endpoint

        async def answer(request: Request) -> Response:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                return problem(OperatorTokenError())
            response: Response = await inner(request)
            return response

        return Route(route.path, answer, methods=list(route.methods or ()))

    return Mount("/operator/v1", routes=[guarded(route) for route in routes])


def _limit(request: Request, default: int, most: int) -> int:
    wanted = whole_number(request.query_params.get("limit", str(default)))
    if wanted is None or not 0 < wanted <= most:
        raise OperatorRequestError(detail=f"limit must be 1 to {most}")
    return wanted


def _instance_json(instance: Instance) -> dict[str, Any]:
    return {
        "name": instance.name,
        "id_scope": instance.id_scope,
        "host": instance.host,
        "linked_hubs": list(instance.hubs),
        "policy": OWNER,
    }


async def _verified(authorities: Authorities, scope: IdScope, name: str, proof: str | None) -> Authority:
    """Mark a CA verified by its proof, or without one by the operator's word."""
    if proof is not None:
        return await authorities.verify(scope, name, parse_any(proof), actor=ACTOR)
    present = await authorities.get(scope, name)
    return await authorities.add(scope, name, present.certificate, is_verified=True, actor=ACTOR)


def _base64(key: bytes | None) -> str | None:
    return None if key is None else base64.b64encode(key).decode()


def _authority_json(authority: Authority) -> dict[str, Any]:
    return {
        "name": authority.name,
        "subject": authority.certificate.subject_text,
        "thumbprint": authority.certificate.thumbprint.hex(),
        "verified": authority.is_verified,
        "not_after": authority.certificate.not_after.isoformat(),
    }


async def _thing_rows(aws: AwsIot) -> AsyncIterator[dict[str, Any]]:
    after: str | None = ""
    while after is not None:
        page = await aws.things.page(after, MAX_PAGE)
        for thing in page.items:
            attached = await aws.attachments.principals(thing.name, "", MAX_PAGE)
            ids = [certificate_id for certificate_id, _ in attached.items]
            yield {"thing": thing.name, "type": thing.type_name, "certificates": ids}
        after = page.last


async def _certificate_rows(aws: AwsIot) -> AsyncIterator[dict[str, Any]]:
    after: str | None = "0:" + "0" * 64
    while after is not None:
        page = await aws.certificates.page(after, MAX_PAGE, ascending=True)
        for known in page.items:
            policies = await aws.policies.attached(known.id, "", MAX_PAGE)
            owners = await aws.attachments.things(known.id, "", MAX_PAGE)
            yield {
                "certificate": known.id,
                "common_name": known.certificate.subject_cn,
                "status": known.status.value,
                "mode": known.mode.value,
                "not_after": known.certificate.not_after.isoformat(),
                "things": [name for name, _ in owners.items],
                "policies": list(policies.items),
            }
        after = page.last


def _key_json(key: AccessKey) -> dict[str, Any]:
    return {"access_key_id": key.id, "name": key.name, "created": key.created_at.isoformat()}


def _hub_json(hub: Hub) -> dict[str, Any]:
    return {"name": hub.name, "host": hub.host}


def _message_json(hub: Hub, message: Message) -> dict[str, Any]:
    try:
        body: Any = message.body.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        body, encoding = message.body.hex(), "hex"
    return {
        "hub": hub.name,
        "device": message.device_id,
        "enqueued": from_micros(message.enqueued_micros).isoformat(),
        "body": body,
        "encoding": encoding,
        "system": message.system,
        "properties": message.properties,
    }
