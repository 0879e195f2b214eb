"""DPS over HTTPS: the device API (register, operation status, lookup) and the service API.

Register returns 202 and the poll 200, as IoT Edge requires. In the service API, the key that signed the request
identifies the instance.
"""

import asyncio
import hashlib
import itertools
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse as PlainJSONResponse
from starlette.responses import Response
from starlette.routing import Route

from birthmark.auth.permission_statements import Right
from birthmark.clock_and_entropy import Clock, SystemEntropy, new_uuid
from birthmark.dps import enrollment_document, wire
from birthmark.dps.enrollment_document import EnrollmentDocument
from birthmark.dps.error_mapping import http_error, wire_message
from birthmark.dps.model import Claim, Instance
from birthmark.dps.rules.attestation import check_same
from birthmark.dps.rules.tiers import ThrottledOperation
from birthmark.dps.service import EnrollmentQueries, Enrollments, Instances, Registrations
from birthmark.dps.service.queries import EnrollmentPage, view_of
from birthmark.errors import BirthmarkError, ThrottledError
from birthmark.iam.missing_right_errors import RightMissingError
from birthmark.net.fair_scheduler import begin_task
from birthmark.net.http_route_wrappers import Handler, refusing, with_complete_body
from birthmark.unknown_field_detection import find_unread_member
from birthmark.untrusted_json_and_text import read_json, whole_number

_ENTROPY = SystemEntropy()
_MAX_BULK = 10
_UNAUTHORIZED = 401002
_MAX_ITEMS = 100
Record = Callable[[BirthmarkError, Request], str]


class JSONResponse(PlainJSONResponse):
    """JSON in the service's form: clients that receive no charset search for it in the text."""

    media_type = "application/json; charset=utf-8"


class _Bulk(msgspec.Struct, rename="camel"):
    mode: str
    enrollments: list[EnrollmentDocument] = []
    enrollment_groups: list[EnrollmentDocument] = []


class _BulkMode(msgspec.Struct):
    """Members of a bulk request other than its lists, whose items are validated separately."""

    mode: str


class _Query(msgspec.Struct):
    query: str | None = None


_LISTS = ("enrollments", "enrollmentGroups")


def _guarded(handler: Handler, record: Record, clock: Clock) -> Handler:
    def render(error: BirthmarkError, request: Request) -> Response:
        status, number = http_error(error)
        tracking_id = record(error, request)
        body = wire.error_json(number, wire_message(error), tracking_id, clock.now())
        headers = {"x-ms-error-code": str(number), "x-ms-request-id": tracking_id}
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            waits_s = error.retry_after_s if isinstance(error, ThrottledError) else 0
            headers["retry-after"] = str(max(wire.RETRY_AFTER_S, waits_s))
        return JSONResponse(body, status, headers)

    async def named(request: Request) -> Response:
        answer = await handler(request)
        answer.headers.setdefault("x-ms-request-id", new_uuid(_ENTROPY))
        return answer

    return refusing(with_complete_body(named), render)


def device_routes(registrations: Registrations, record: Record, clock: Clock) -> list[Route]:
    """Return the routes of the device API."""

    def challenged(sealed: bytes) -> Response:
        """Return the response to the first request of a TPM, which the ledger does not record as a refusal."""
        tracking_id, number = str(uuid.UUID(bytes=hashlib.sha256(sealed).digest()[:16], version=4)), _UNAUTHORIZED
        error = wire.error_json(number, "Unauthorized", tracking_id, clock.now())
        headers = {"x-ms-error-code": str(number), "x-ms-request-id": tracking_id}
        return JSONResponse(wire.challenge_json(sealed, error), HTTPStatus.UNAUTHORIZED, headers)

    async def register(request: Request) -> Response:
        claim = _claim(request)
        body = wire.parse_registration(await request.body())
        check_same(claim.registration_id, body.registration_id)
        if body.tpm is not None:
            claim = replace(claim, tpm=wire.parse_tpm(body.tpm))
        if (sealed := await registrations.attester.challenge(claim)) is not None:
            return challenged(sealed)
        registration = await registrations.register(wire.add_request(claim, body))
        headers = {"retry-after": str(wire.RETRY_AFTER_S), "location": str(request.url).partition("?")[0]}
        return JSONResponse(wire.assigning_json(registration.operation_id, registration.registration_id), 202, headers)

    async def operation(request: Request) -> Response:
        claim = _claim(request)
        registration = await registrations.operation(claim, request.path_params["operation_id"])
        return JSONResponse(wire.status_json(registration, claim.leaf, _api_version(request)))

    async def lookup(request: Request) -> Response:
        claim = _claim(request)
        body = wire.parse_registration(await request.body())
        wire.check_no_csr(body)
        check_same(claim.registration_id, body.registration_id)
        attested = await registrations.attester.attest(claim)
        registration = await registrations.get(attested.instance, claim.registration_id)
        return JSONResponse(wire.device_state_json(registration, claim.leaf, _api_version(request)))

    base = "/{id_scope}/registrations/{registration_id}"
    return [
        Route(base + "/register", _guarded(register, record, clock), methods=["PUT"]),
        Route(base + "/operations/{operation_id}", _guarded(operation, record, clock), methods=["GET"]),
        Route(base, _guarded(lookup, record, clock), methods=["POST"]),
    ]


def service_routes(
    instances: Instances, enrollments: Enrollments, registrations: Registrations, record: Record, clock: Clock
) -> list[Route]:
    """Return the routes of the service API, for operators."""

    def asked(request: Request, right: Right) -> tuple[Instance, str]:
        """Return the requested instance and the caller, and count the operation."""
        instance, who = authorized(request, right)
        instances.take(ThrottledOperation.OPERATION, instance)
        return instance, who

    def authorized(request: Request, right: Right) -> tuple[Instance, str]:
        authorization, address = request.headers.get("authorization"), request.client.host if request.client else ""
        return instances.authorize(authorization, request.scope["path"], right, address)

    queries = EnrollmentQueries(enrollments, registrations, clock)

    def may_enroll(request: Request) -> bool:
        with suppress(RightMissingError):
            authorized(request, Right.ENROLL)
            return True
        return False

    async def answered(request: Request, instance: Instance, enrollment: EnrollmentDocument) -> Response:
        registration = None if enrollment.is_group else await registrations.find(instance, enrollment.id)
        return JSONResponse(view_of(enrollment, registration, may_enroll=may_enroll(request)))

    def one(*, is_group: bool) -> Handler:
        async def handle(request: Request) -> Response:
            instance, actor = asked(request, Right.READ if request.method == "GET" else Right.ENROLL)
            enrollment_id, if_match = request.path_params["id"], request.headers.get("if-match")
            if request.method == "PUT":
                given = _named(
                    enrollment_document.parse_document(await request.body()), enrollment_id, is_group=is_group
                )
                done = await enrollments.put(instance, given, if_match, actor=actor)
                return await answered(request, instance, done)
            if request.method == "DELETE":
                await enrollments.delete(instance.id_scope, enrollment_id, if_match, is_group=is_group, actor=actor)
                return Response(status_code=204)
            found = await enrollments.document(instance.id_scope, enrollment_id, is_group=is_group)
            return await answered(request, instance, found)

        return handle

    def mechanism(*, is_group: bool) -> Handler:
        async def handle(request: Request) -> Response:
            instance, actor = asked(request, Right.ENROLL)
            found = await enrollments.document(instance.id_scope, request.path_params["id"], is_group=is_group)
            if found.attestation.symmetric_key is not None:
                await enrollments.audit_key_display(instance.id_scope, found, actor=actor)
            return JSONResponse(enrollment_document.document_view(found, with_keys=True)["attestation"])

        return handle

    def query(*, is_group: bool) -> Handler:
        async def handle(request: Request) -> Response:
            instance, _ = asked(request, Right.READ)
            text, limit = _query_of(await request.body()), _page_size(request)
            found = await queries.enrollments(
                instance, text, _marker(request), limit, is_group=is_group, may_enroll=may_enroll(request)
            )
            return _page(found, "enrollmentGroup" if is_group else "enrollment", limit)

        return handle

    def bulk(*, is_group: bool) -> Handler:
        async def handle(request: Request) -> Response:
            instance, actor = asked(request, Right.ENROLL)
            given = read_json(await request.body(), _Bulk, wire.BodyInvalidError)
            items = given.enrollment_groups if is_group else given.enrollments
            _check_bulk(
                read_json(await request.body(), dict[str, Any], wire.BodyInvalidError), items, is_group=is_group
            )
            if len(items) > _MAX_BULK or given.mode not in _BULK_MODES:
                raise wire.BodyInvalidError(detail="at most 10 items; mode create, update …")
            if any(item.is_group != is_group or bool(item.registration_id) == is_group for item in items):
                # The token was for this path and must not authorize actions on another one.
                raise wire.BodyInvalidError(detail="each item has the id of this path")
            # All at once, so that they become durable together; items with one id keep their order.
            by_id: defaultdict[str, list[EnrollmentDocument]] = defaultdict(list)
            for item in items:
                by_id[item.id.lower()].append(item)
            refused = await asyncio.gather(
                *(begin_task(_bulk_of_one(enrollments, instance, given.mode, each, actor)) for each in by_id.values())
            )
            problems = []
            for item, problem in itertools.chain(*refused):
                record(problem, request)
                told = {"errorCode": http_error(problem)[1], "errorStatus": str(problem)}
                problems.append({"registrationId": item.id, **told})
            return JSONResponse({"isSuccessful": not problems, "errors": problems})

        return handle

    async def registration(request: Request) -> Response:
        instance, actor = asked(request, Right.READ if request.method == "GET" else Right.ENROLL)
        if request.method == "DELETE":
            if_match = request.headers.get("if-match")
            await registrations.delete(instance, request.path_params["id"], if_match, actor=actor)
            return Response(status_code=204)
        return JSONResponse(wire.state_json(await registrations.get(instance, request.path_params["id"])))

    async def group_registrations(request: Request) -> Response:
        instance, _ = asked(request, Right.READ)
        text, limit = _query_of(await request.body()), _page_size(request)
        found = await queries.registrations(instance, request.path_params["id"], text, _marker(request), limit)
        return _page(found, "deviceRegistration", limit)

    made: list[Route] = []

    def route(path: str, handler: Handler, *methods: str) -> None:
        made.append(Route(path, _guarded(handler, record, clock), methods=list(methods)))

    # Azure ignores case in paths, and Node's SDK requests a group's keys in lower case.
    for path, is_group in (("/enrollments", False), ("/enrollmentGroups", True), ("/enrollmentgroups", True)):
        route(path + "/query", query(is_group=is_group), "POST")
        route(path, bulk(is_group=is_group), "POST")
        route(path + "/", bulk(is_group=is_group), "POST")
        route(path + "/{id}/attestationmechanism", mechanism(is_group=is_group), "POST")
        route(path + "/{id}", one(is_group=is_group), "GET", "PUT", "DELETE")
    route("/registrations/{id}/query", group_registrations, "POST")
    route("/registrations/{id}", registration, "GET", "DELETE")
    return made


_BULK_MODES = frozenset({"create", "update", "updateIfMatchETag", "delete"})


async def _bulk_of_one(
    enrollments: Enrollments, instance: Instance, mode: str, items: Sequence[EnrollmentDocument], actor: str
) -> list[tuple[EnrollmentDocument, BirthmarkError]]:
    """Execute the operations on one ID in sequence, and return the rejected ones."""
    scope, refused = instance.id_scope, []
    for given in items:
        try:
            if mode == "create":
                await enrollments.create(instance, given, actor=actor)
            elif mode == "delete":
                await enrollments.delete(scope, given.id, None, is_group=given.is_group, actor=actor)
            else:
                await enrollments.get(scope, given.id, is_group=given.is_group)
                if_match = given.etag if mode == "updateIfMatchETag" else None
                await enrollments.put(instance, given, if_match, actor=actor)
        except BirthmarkError as error:
            refused.append((given, error))
    return refused


def _check_bulk(values: dict[str, Any], items: Sequence[EnrollmentDocument], *, is_group: bool) -> None:
    """Raise `BodyInvalidError` for members that would be dropped."""
    ours, others = ("enrollmentGroups", "enrollments") if is_group else ("enrollments", "enrollmentGroups")
    member = find_unread_member(values, _BulkMode, frozenset(_LISTS)) or (others if values.get(others) else None)
    if member is not None:
        raise wire.BodyInvalidError(detail=f"{member} is not served here, leave it out")
    for one, item in zip(values.get(ours) or [], items, strict=True):
        enrollment_document.check_members(one, item)


def _api_version(request: Request) -> str:
    return request.query_params.get("api-version", "")


def _claim(request: Request) -> Claim:
    peer = request.scope["extensions"]["tls"]
    token = request.headers.get("authorization")
    params = request.path_params
    address = request.client.host if request.client else ""
    return Claim(params["id_scope"], params["registration_id"], peer.leaf, peer.chain, token, address=address)


def _named(document: EnrollmentDocument, enrollment_id: str, *, is_group: bool) -> EnrollmentDocument:
    """Return the enrollment with the ID of its path, which the body may repeat but not contradict."""
    stated = document.enrollment_group_id if is_group else document.registration_id
    if stated is not None and stated.lower() != enrollment_id.lower():
        raise wire.BodyInvalidError(detail=f"the ID in the body is {stated}, the ID in the path is {enrollment_id}")
    if is_group:
        return msgspec.structs.replace(document, enrollment_group_id=enrollment_id, registration_id=None)
    return msgspec.structs.replace(document, registration_id=enrollment_id, enrollment_group_id=None)


_OF_AZ = re.compile(r"\{'additional_properties': \{\}, 'query': '(SELECT \*)'\}")
"""The object that `az iot dps enrollment list` sends in place of the query text, in Python's form."""


def _query_of(body: bytes) -> str:
    """Return the text of a query; an empty body selects all."""
    if not body.strip():
        return ""
    asked = read_json(body, dict[str, Any], wire.BodyInvalidError)
    if (member := find_unread_member(asked, _Query)) is not None:
        raise wire.BodyInvalidError(detail=f"{member} is not served here, leave it out")
    text = read_json(body, _Query, wire.BodyInvalidError).query or ""
    return of_az[1] if (of_az := _OF_AZ.fullmatch(text)) else text


def _marker(request: Request) -> str:
    return request.headers.get("x-ms-continuation", "")


def _page(page: EnrollmentPage, kind: str, limit: int) -> Response:
    headers = {"x-ms-item-type": kind, "x-ms-max-item-count": str(limit)}
    if page.after is not None:
        headers["x-ms-continuation"] = page.after
    return JSONResponse(page.rows, headers=headers)


def _page_size(request: Request) -> int:
    """Return the page size of a request; a negative number means the maximum."""
    text = request.headers.get("x-ms-max-item-count", str(_MAX_ITEMS))
    wanted = whole_number(text.removeprefix("-"))
    if wanted is None:
        raise wire.BodyInvalidError(detail="x-ms-max-item-count must be a number")
    return min(wanted, _MAX_ITEMS) if wanted and not text.startswith("-") else _MAX_ITEMS
