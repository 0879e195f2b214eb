"""Configurations and edge deployments over HTTPS (IoT Hub REST reference, "Configuration")."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from birthmark.auth.permission_statements import Right
from birthmark.iothub.http.authorization_and_errors import Authorized, Record, etag_of, guarded, hub_of
from birthmark.iothub.model import Configuration, ConfigurationKind, Hub
from birthmark.iothub.rules import configurations as rules
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.hubs_and_authorization import READ, WRITE
from birthmark.iothub.wire.configurations import configuration_json, parse_configuration, parse_test_queries
from birthmark.iothub.wire.times_and_body_validation import BodyInvalidError
from birthmark.net.http_route_wrappers import Handler
from birthmark.untrusted_json_and_text import whole_number

_MAX_LIST = rules.MAX_CONFIGURATIONS + rules.MAX_DEPLOYMENTS
_OF_MODULES = "from"


def routes(iothub: IotHub, authorized: Authorized, record: Record) -> list[Route]:
    """Return the configuration routes; `record` logs a refusal and returns its tracking id."""
    configurations = iothub.configurations

    def asked(request: Request, resource: str) -> tuple[Hub, str]:
        hub = hub_of(iothub.hubs, request)
        is_read = request.method == "GET"
        right = Right.READ if is_read else Right.OPERATE
        return hub, authorized(request, hub, READ if is_read else WRITE, resource, right)

    async def view_of(configuration: Configuration) -> dict[str, object]:
        counts = await configurations.counts(configuration)
        return configuration_json(configuration, rules.system_queries(configuration), counts)

    async def listing(request: Request) -> Response:
        hub, _ = asked(request, "configurations")
        top = whole_number(request.query_params.get("top", str(_MAX_LIST)))
        if not top:
            raise BodyInvalidError(detail="top must be 1 or more")
        found = await configurations.all(hub)
        return JSONResponse([await view_of(one) for one in found[: min(top, _MAX_LIST)]])

    async def one(request: Request) -> Response:
        configuration_id = request.path_params["configuration_id"]
        hub, actor = asked(request, f"configurations/{configuration_id}")
        etag = etag_of(request)
        if request.method == "DELETE":
            await configurations.delete(hub, configuration_id, etag, actor=actor)
            return Response(status_code=204)
        if request.method == "GET":
            return JSONResponse(await view_of(await configurations.get(hub, configuration_id)))
        body = parse_configuration(await request.body())
        if etag is None:
            made = await configurations.create(hub, configuration_id, body, actor=actor)
        else:
            made = await configurations.update(hub, configuration_id, body, etag, actor=actor)
        return JSONResponse(await view_of(made))

    async def test_queries(request: Request) -> Response:
        asked(request, "configurations/testQueries")
        condition, queries = parse_test_queries(await request.body())
        is_of_modules = condition.strip().lower().startswith(_OF_MODULES)
        kind = ConfigurationKind.MODULE if is_of_modules else ConfigurationKind.DEVICE
        problems = {name: problem for name, text in queries.items() if (problem := rules.metric_problem(text))}
        told = rules.target_problem(kind, condition) or ""
        return JSONResponse({"targetConditionError": told, "customMetricQueryErrors": problems})

    def at(path: str, handler: Handler, *methods: str) -> Route:
        return Route(path, guarded(handler, record), methods=list(methods))

    return [
        at("/configurations", listing, "GET"),
        at("/configurations/testQueries", test_queries, "POST"),
        at("/configurations/{configuration_id}", one, "GET", "PUT", "DELETE"),
    ]
