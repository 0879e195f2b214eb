"""ASGI application: authentication (signature or device certificate), routing, and response.

Routing uses the raw path; a router that decodes first cannot distinguish an ARN's slash from a path separator.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any
from urllib.parse import unquote, unquote_plus

from starlette.requests import Request
from starlette.responses import Response

from birthmark.auth.sigv4 import SignatureMissingError, SignedRequest, is_signed, parse_signature
from birthmark.awsiot.error_mapping import http_error
from birthmark.awsiot.http.authorizers import AuthorizerOperations
from birthmark.awsiot.http.ca_certificates import CaCertificateOperations
from birthmark.awsiot.http.certificates import CertificateOperations
from birthmark.awsiot.http.client_connections import ClientOperations, ConnectivityOperations
from birthmark.awsiot.http.data_plane import FOR_DEVICES, Ask, DataOperations
from birthmark.awsiot.http.device_auth import HttpDevices
from birthmark.awsiot.http.event_configurations import EventOperations
from birthmark.awsiot.http.indexing_and_dynamic_groups import IndexingOperations
from birthmark.awsiot.http.job_file_downloads import file_of, is_file
from birthmark.awsiot.http.jobs import JOBS_FOR_DEVICES, JobDataOperations, JobOperations
from birthmark.awsiot.http.operation_routing_and_request_members import (
    FIRST_SEGMENTS,
    OPERATIONS,
    AwsOperation,
    AwsRequest,
    Handler,
    OperationRouter,
)
from birthmark.awsiot.http.policies import PolicyOperations
from birthmark.awsiot.http.policy_resources import implied_actions, resources_of
from birthmark.awsiot.http.provisioning import ProvisioningOperations
from birthmark.awsiot.http.registration_tasks import TaskOperations, report, report_of
from birthmark.awsiot.http.role_aliases_and_credentials import CREDENTIALS, RoleAliasOperations, credentials
from birthmark.awsiot.http.tags import TagOperations
from birthmark.awsiot.http.thing_groups import ThingGroupOperations
from birthmark.awsiot.http.things import ThingOperations
from birthmark.awsiot.http.topic_rules import TopicRuleOperations
from birthmark.awsiot.model import Account, OperationNotServedError
from birthmark.awsiot.rules.operation_rights import PLACE, right_for
from birthmark.awsiot.rules.topic_rule_evaluation import RuleExistsError
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.authorizers import AuthorizerExistsError
from birthmark.awsiot.service.ca_certificates import CaExistsError
from birthmark.awsiot.service.certificates import CertificateExistsError
from birthmark.awsiot.service.device_authorization import ConnectionGrant
from birthmark.awsiot.service.policies import PolicyExistsError
from birthmark.awsiot.service.provisioning_templates import TemplateExistsError
from birthmark.awsiot.service.role_aliases import RoleAliasExistsError
from birthmark.awsiot.service.things import ThingExistsError
from birthmark.broker import Namespace
from birthmark.clock_and_entropy import Entropy, new_uuid
from birthmark.errors import BirthmarkError
from birthmark.iam.missing_right_errors import format_refusal, require_right
from birthmark.net.bounded_http import ASGIApp, Receive, Scope, Send

GROUPS = (
    ThingOperations,
    ThingGroupOperations,
    CertificateOperations,
    CaCertificateOperations,
    AuthorizerOperations,
    PolicyOperations,
    RoleAliasOperations,
    TagOperations,
    ProvisioningOperations,
    TaskOperations,
    EventOperations,
    IndexingOperations,
    JobOperations,
    JobDataOperations,
    TopicRuleOperations,
)
_DATA, _JOBS = "iot-data", "iot-jobs-data"
# Signing service name of a request -> the API whose operations it calls.
SERVICES: Mapping[str, str] = {
    "iot": "iot",
    "iotdata": _DATA,
    _JOBS: _JOBS,
    "iotdevicegateway": _DATA,
}
_MAX_NAMED = 128
_CONFIRM = "/confirmdestination/"
_SCOPE = re.compile(r"Credential=[^/,\s]{1,128}+/[0-9]{8}/([a-z]{2}(?:-[a-z]+)+-[0-9])/")
_NAMED_SHADOWS = "/api/things/shadow/"  # the hub also has paths below /api
# Error fact that names the existing resource, and the resource type.
_EXISTING: Mapping[type[BirthmarkError], tuple[str, str]] = {
    ThingExistsError: ("thing", "thing"),
    CertificateExistsError: ("certificate_id", "cert"),
    CaExistsError: ("certificate_id", "cacert"),
    PolicyExistsError: ("policy", "policy"),
    TemplateExistsError: ("template", "provisioningtemplate"),
    AuthorizerExistsError: ("authorizer", "authorizer"),
    RoleAliasExistsError: ("alias", "rolealias"),
    RuleExistsError: ("rule", "rule"),
}
Record = Callable[[BirthmarkError, Request], str]


def is_for_aws(scope: Scope) -> bool:
    """Return whether a request is for AWS: signed with SigV4, or on one of its paths."""
    if scope["type"] != "http":
        return False
    authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    if is_signed(authorization.decode("latin-1"), scope["query_string"].decode("latin-1")):
        return True
    path = raw_path_of(scope)
    return path.split("/", 2)[1] in FIRST_SEGMENTS or path.startswith(_NAMED_SHADOWS) or is_file(path)


def raw_path_of(scope: Scope) -> str:
    """Return the path as it was sent."""
    path: str = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    return path if path.startswith("/") else f"/{path}"


def signed_request_of(scope: Scope, body: bytes = b"") -> SignedRequest:
    """Return the signed parts of a request."""
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    query = scope["query_string"].decode("latin-1")
    return SignedRequest(scope.get("method", "GET"), raw_path_of(scope), query, headers, body)


def handlers(aws: AwsIot, space: Namespace, ask: Ask, entropy: Entropy) -> Mapping[str, Handler]:
    """Return the handler of each operation."""
    of_space = (
        ConnectivityOperations(aws, space),
        ClientOperations(aws, space),
        DataOperations(aws, space, ask, entropy),
    )
    groups = [*(group(aws) for group in GROUPS), *of_space]
    found = ((one.title, getattr(group, one.handled_by, None)) for one in OPERATIONS for group in groups)
    return {name: handler for name, handler in found if handler is not None}


class AwsHttp:
    """Serves control plane and data plane; passes other requests on to `otherwise`.

    `ask` calls a cloud service by its topic.
    """

    def __init__(
        self, aws: AwsIot, space: Namespace, ask: Ask, record: Record, entropy: Entropy, *, otherwise: ASGIApp
    ) -> None:
        self._aws = aws
        self._record = record
        self._entropy = entropy
        self._otherwise = otherwise
        self._handlers = partial(handlers, aws, space, ask, entropy)
        self._devices = HttpDevices(aws, aws.keys.clock)

    @cached_property
    def _router(self) -> OperationRouter:
        """Operation router, created on first use because of its hundreds of operations."""
        return OperationRouter(self._handlers())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_for_aws(scope):
            await self._otherwise(scope, receive, send)
            return
        request, path = Request(scope, receive), raw_path_of(scope)
        asked = report_of(path) if request.method == "GET" and request.query_params.get("link") else None
        handle = self._handle if asked is None else partial(self._report, *asked)
        response = await self._answer(request, partial(self._file, path) if is_file(path) else handle)
        await response(scope, receive, send)

    async def _answer(self, request: Request, handle: Callable[[Request], Awaitable[Any]]) -> Response:
        try:
            value = await handle(request)
        except BirthmarkError as error:
            status, name = http_error(error)
            account = account_in_region(self._aws.account, request.headers.get("authorization", ""))
            body: dict[str, Any] = {"message": format_refusal(error)} | _existing(account, error)
            headers = {"x-amzn-ErrorType": name, "x-amzn-RequestId": self._record(error, request)}
            return Response(json.dumps(body), status, headers, "application/json")
        if isinstance(value, Response):
            return value
        headers = {"x-amzn-RequestId": new_uuid(self._entropy)}
        content = value if isinstance(value, bytes) else json.dumps({} if value is None else value)
        return Response(content, 200, headers, "application/json")

    async def _handle(self, request: Request) -> Any:
        body = await request.body()
        signed = signed_request_of(request.scope, body)
        if is_signed(request.headers.get("authorization", ""), signed.query):
            grant, actor, operation, handler, names = await self._authenticate_operator(request, signed)
        elif signed.method == "GET" and (found := CREDENTIALS.fullmatch(signed.path)) is not None:
            return await credentials(self._aws, unquote(found["alias"]), request)
        elif signed.method == "GET" and signed.path.startswith(_CONFIRM):  # the link is the credential
            await self._aws.rules.destinations.confirm(signed.path.removeprefix(_CONFIRM))
            return None
        else:
            grant, operation, handler, names = await self._authenticate_device(request, signed)
            actor = f"certificate:{grant.certificate_id}" if grant.authorized is None else grant.principal
        headers = {name: value for name, value in signed.headers if name.startswith("x-amz")}
        note = partial(self._note, request)
        account = account_in_region(self._aws.account, request.headers.get("authorization", ""))
        call = AwsRequest(operation, names, _query(signed.query), headers, body, actor, grant, note, account)
        try:
            self._check_rights(call)
            call.check_served()
            return await handler(call)
        except BirthmarkError as error:
            named = {"thing": names["thingName"][:_MAX_NAMED]} if "thingName" in names else {}
            error.add_facts(command=operation.form, **named)
            raise

    def _check_rights(self, request: AwsRequest) -> None:
        """Raise `KeyDeniedError` if a key may not perform the operation; data operations check their own resource."""
        if (
            request.grant.is_operator
            and request.grant.permissions is not None
            and request.operation.service not in {_DATA, _JOBS}
        ):
            for resource in resources_of(self._aws.account, request):
                self._aws.devices.check_resource(request.grant, f"iot:{request.operation.name}", resource)
            for action, resource in implied_actions(self._aws.account, request):
                self._aws.devices.check_every(request.grant, action, resource)

    async def _authenticate_operator(
        self, request: Request, signed: SignedRequest
    ) -> tuple[ConnectionGrant, str, AwsOperation, Handler, Mapping[str, str]]:
        """Authenticate an operator and select the operation.

        Raise `RightMissingError` if a user lacks the right.
        """
        keys, address = self._aws.keys, request.client.host if request.client else ""
        signature = parse_signature(signed)
        if (caller := keys.find_user(signed, signature, SERVICES, address)) is None:
            grant = await self._aws.signer(signed, signature, SERVICES, address)
            operation, handler, names = self._router.find(signed.method, signed.path, SERVICES[signature.service])
            actor = grant.principal if grant.session is not None else f"access_key:{grant.principal}"
            return grant, actor, operation, handler, names
        operation, handler, names = self._router.find(signed.method, signed.path, SERVICES[signature.service])
        require_right(caller, right_for(operation.name, _query(signed.query).get("newStatus", "")), PLACE)
        return ConnectionGrant(caller.actor, None, None, None, caller=caller), caller.actor, operation, handler, names

    async def _authenticate_device(
        self, request: Request, signed: SignedRequest
    ) -> tuple[ConnectionGrant, AwsOperation, Handler, Mapping[str, str]]:
        """Authenticate a device by certificate and select the operation.

        Raise `SignatureMissingError` for operations that devices cannot perform.
        """
        try:
            operation, handler, names = self._router.find(signed.method, signed.path, _DATA)
            if operation.title not in FOR_DEVICES:
                operation, handler, names = self._router.find(signed.method, signed.path, _JOBS)
        except OperationNotServedError as error:
            if request.scope["extensions"]["tls"].leaf is not None:  # a device's own, like AWS job requests
                raise
            raise SignatureMissingError from error
        if operation.title not in FOR_DEVICES | JOBS_FOR_DEVICES:
            raise SignatureMissingError
        return await self._devices.admit(request, signed.query), operation, handler, names

    async def _report(self, task_id: str, is_done: bool, request: Request) -> Response:  # noqa: FBT001 - a partial's
        return await report(self._aws, request, task_id, is_done=is_done)

    async def _file(self, path: str, request: Request) -> Response:
        return await file_of(self._aws.jobs.executions.files, request, path)

    def _note(self, request: Request, error: BirthmarkError) -> None:
        self._record(error, request)


def account_in_region(account: Account, authorization: str) -> Account:
    """Return the account in the region of the signature; for devices, the configured one."""
    found = _SCOPE.search(authorization)
    return account if found is None or found[1] == account.region else replace(account, region=found[1])


def _query(text: str) -> Mapping[str, str]:
    pairs: Sequence[tuple[str, str, str]] = [part.partition("=") for part in text.split("&") if part]
    return {unquote_plus(name): unquote_plus(value) for name, _, value in pairs}


def _existing(account: Account, error: BirthmarkError) -> dict[str, str]:
    if type(error) not in _EXISTING:
        return {}
    fact, kind = _EXISTING[type(error)]
    name = error.facts[fact]
    return {"resourceId": name, "resourceArn": account.arn(kind, name)}
