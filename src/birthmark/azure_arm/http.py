"""HTTPS handlers of the management API: parse, authenticate, call the service, format the response."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from birthmark.actor import Actor
from birthmark.auth.principals import Caller
from birthmark.auth.shared_access_policy_keys import keys_of, rights_of
from birthmark.azure_arm import wire
from birthmark.azure_arm.error_mapping import http_error
from birthmark.azure_arm.model import ArmOperation, ArmRequest, ArmResourceKind
from birthmark.azure_arm.rules.operation_paths import OperationNotServedError, call_of
from birthmark.azure_arm.service import Management
from birthmark.errors import BirthmarkError, NotFoundError
from birthmark.iam.missing_right_errors import check_whole, format_refusal
from birthmark.net.fair_scheduler import wait_for_caller_turn
from birthmark.net.http_route_wrappers import refusing, with_complete_body

Record = Callable[[BirthmarkError, Request], str]
Answer = Callable[[ArmRequest, Caller, Request], Awaitable[Response]]
_MAX_SHOWN = 200
_CHALLENGE = 'Bearer realm="birthmark"'
_ANY = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]
# First path segments of Azure Resource Manager; `rules.operation_paths` lists the served paths.
_BEGINS = ("/subscriptions", "/providers")


def routes(management: Management, record: Record) -> list[Route]:
    """Return the routes of the management API; `record` logs a refusal and returns its tracking ID."""
    answers = {**_of_certificates(management), **_of_services(management), **_of_consumer_groups(management)}

    async def answer(request: Request) -> Response:
        call = call_of(request.method, request.scope.get("raw_path", b"").decode("latin-1").partition("?")[0])
        if call.kind not in management.kinds:
            raise OperationNotServedError(method=request.method, path=request.url.path[:_MAX_SHOWN])
        address = request.client.host if request.client else ""
        caller = management.authenticate(request.headers.get("authorization"), address)
        wire.check_version(request.query_params.get("api-version"))
        management.check(call, caller)
        return await answers[call.operation](call, caller, request)

    def render(error: BirthmarkError, request: Request) -> Response:
        status, code = http_error(error)
        headers = {"x-ms-request-id": record(error, request)}
        if status == HTTPStatus.UNAUTHORIZED:
            headers["www-authenticate"] = _CHALLENGE
        return JSONResponse(wire.error_json(code, format_refusal(error)), status, headers)

    guarded = refusing(with_complete_body(answer), render)
    return [Route(f"{path}{rest}", guarded, methods=_ANY) for path in _BEGINS for rest in ("", "/{rest:path}")]


def _of_certificates(management: Management) -> Mapping[ArmOperation, Answer]:
    async def listing(request: ArmRequest, _caller: Caller, _request: Request) -> Response:
        room, of = management.certificates(request)
        return JSONResponse({"value": [wire.certificate_json(request, one) for one in await room.all(of)]})

    async def get(request: ArmRequest, _caller: Caller, _request: Request) -> Response:
        room, of = management.certificates(request)
        return JSONResponse(wire.certificate_json(request, await room.get(of, request.name)))

    async def put(call: ArmRequest, caller: Caller, request: Request) -> Response:
        certificate, is_verified = wire.parse_certificate(await request.body())
        room, of = management.certificates(call)
        made = await room.add(
            of, call.name, certificate, is_verified=bool(is_verified), actor=caller.actor, etag=_etag(request)
        )
        if made.is_verified and is_verified is False:
            raise wire.BodyInvalidError(
                detail=f"{call.name} is verified; delete it first to have it prove itself again"
            )
        return JSONResponse(wire.certificate_json(call, made))

    async def delete(call: ArmRequest, caller: Caller, request: Request) -> Response:
        etag = wire.needed(_etag(request))
        room, of = management.certificates(call)
        try:
            await room.remove(of, call.name, actor=caller.actor, etag=etag)
        except NotFoundError:
            return Response(status_code=204)  # Azure's reply for what is missing
        return Response(status_code=200)

    async def new_code(call: ArmRequest, caller: Caller, request: Request) -> Response:
        etag = wire.needed(_etag(request))
        room, of = management.certificates(call)
        made = await room.new_code(of, call.name, actor=caller.actor, etag=etag)
        return JSONResponse(wire.certificate_json(call, made, with_code=True))

    async def verify(call: ArmRequest, caller: Caller, request: Request) -> Response:
        etag, proof = wire.needed(_etag(request)), wire.parse_proof(await request.body())
        room, of = management.certificates(call)
        made = await room.verify(of, call.name, proof, actor=caller.actor, etag=etag)
        return JSONResponse(wire.certificate_json(call, made))

    return {
        ArmOperation.LIST_CERTIFICATES: listing,
        ArmOperation.GET_CERTIFICATE: get,
        ArmOperation.PUT_CERTIFICATE: put,
        ArmOperation.DELETE_CERTIFICATE: delete,
        ArmOperation.NEW_CODE: new_code,
        ArmOperation.VERIFY: verify,
    }


def _of_services(management: Management) -> Mapping[ArmOperation, Answer]:
    async def get(request: ArmRequest, _caller: Caller, _request: Request) -> Response:
        return JSONResponse(management.view(request))

    async def listing(request: ArmRequest, caller: Caller, _request: Request) -> Response:
        return JSONResponse({"value": management.views(request, caller)})

    async def key_of(request: ArmRequest, policy: str, actor: Actor) -> dict[str, Any]:
        pair = keys_of(management.policies(request), policy, request.service)
        await management.audit_key_display(request, policy, actor)
        return wire.key_json(policy, rights_of(policy), pair)

    async def keys(request: ArmRequest, caller: Caller, _request: Request) -> Response:
        check_whole(caller)
        policies = management.policies(request)
        return JSONResponse({"value": [await key_of(request, policy, caller.actor) for policy in policies]})

    async def key(request: ArmRequest, caller: Caller, _request: Request) -> Response:
        check_whole(caller)
        return JSONResponse(await key_of(request, request.name, caller.actor))

    async def skus(request: ArmRequest, _caller: Caller, _request: Request) -> Response:
        sku = management.view(request)["sku"]
        if request.kind is ArmResourceKind.DPS:
            return JSONResponse({"value": [{"name": sku["name"]}]})
        scale = {"minimum": 1, "maximum": 1, "default": 1, "scaleType": "None"}
        return JSONResponse({"value": [{"resourceType": "Microsoft.Devices/IotHubs", "sku": sku, "capacity": scale}]})

    async def statistics(request: ArmRequest, _caller: Caller, _request: Request) -> Response:
        total, enabled = await management.statistics(request)
        counts = {"totalDeviceCount": total, "enabledDeviceCount": enabled, "disabledDeviceCount": total - enabled}
        return JSONResponse(counts)

    async def name_is_free(call: ArmRequest, _caller: Caller, request: Request) -> Response:
        name = wire.parse_name(await request.body())
        return JSONResponse(wire.free_json(call.kind, is_free=management.is_free(call.kind, name)))

    async def put(call: ArmRequest, caller: Caller, request: Request) -> Response:
        etag = _etag(request)
        return JSONResponse(await management.put_service(call, await request.body(), etag, actor=caller.actor))

    async def try_all(call: ArmRequest, _caller: Caller, request: Request) -> Response:
        body = await request.body()
        await wait_for_caller_turn()
        found = management.test_all_routes(call, body)
        return JSONResponse({"routes": [{"properties": one} for one in found]})

    async def try_one(call: ArmRequest, _caller: Caller, request: Request) -> Response:
        body = await request.body()
        await wait_for_caller_turn()
        return JSONResponse(management.test_route(call, body))

    async def health(request: ArmRequest, _caller: Caller, _request: Request) -> Response:
        return JSONResponse({"value": await management.endpoints_health(request)})

    async def quota(request: ArmRequest, _caller: Caller, _request: Request) -> Response:
        return JSONResponse({"value": await management.quota_metrics(request)})

    return {
        ArmOperation.QUOTA_METRICS: quota,
        ArmOperation.PUT_SERVICE: put,
        ArmOperation.TEST_ROUTE: try_one,
        ArmOperation.TEST_ROUTES: try_all,
        ArmOperation.ENDPOINTS_HEALTH: health,
        ArmOperation.GET_SERVICE: get,
        ArmOperation.LIST_SERVICES: listing,
        ArmOperation.LIST_KEYS: keys,
        ArmOperation.GET_KEY: key,
        ArmOperation.LIST_SKUS: skus,
        ArmOperation.STATISTICS: statistics,
        ArmOperation.NAME_IS_FREE: name_is_free,
    }


def _of_consumer_groups(management: Management) -> Mapping[ArmOperation, Answer]:
    groups = management.iothub.consumer_groups

    async def listing(request: ArmRequest, _caller: Caller, _request: Request) -> Response:
        found = await groups.all(management.hub(request))
        return JSONResponse({"value": [wire.consumer_group_json(request, one.name, one.created_at) for one in found]})

    async def get(request: ArmRequest, _caller: Caller, _request: Request) -> Response:
        one = await groups.get(management.hub(request), request.name)
        return JSONResponse(wire.consumer_group_json(request, one.name, one.created_at))

    async def put(call: ArmRequest, caller: Caller, request: Request) -> Response:
        wire.check_consumer_group(await request.body(), call.name)
        one = await groups.create(management.hub(call), call.name, actor=caller.actor)
        return JSONResponse(wire.consumer_group_json(call, one.name, one.created_at))

    async def delete(call: ArmRequest, caller: Caller, _request: Request) -> Response:
        await groups.delete(management.hub(call), call.name, actor=caller.actor)
        return Response(status_code=200)

    return {
        ArmOperation.LIST_CONSUMER_GROUPS: listing,
        ArmOperation.GET_CONSUMER_GROUP: get,
        ArmOperation.PUT_CONSUMER_GROUP: put,
        ArmOperation.DELETE_CONSUMER_GROUP: delete,
    }


def _etag(request: Request) -> str | None:
    return wire.etag_of(request.headers.get("if-match"), request.headers.get("if-none-match"))
