"""Custom authorizers and TestInvokeAuthorizer."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import Account, Authorizer
from birthmark.awsiot.rules.custom_authorizers import AuthorizerRequest
from birthmark.awsiot.service import AwsIot

_NOW = datetime.fromtimestamp(0, UTC)  # until created
_ACTIVE, _INACTIVE = "ACTIVE", "INACTIVE"


class _HttpContext(msgspec.Struct, rename="camel"):
    headers: dict[str, str] = {}
    query_string: str = ""


class _MqttContext(msgspec.Struct, rename="camel"):
    username: str | None = None
    password: bytes | None = None
    client_id: str | None = None


class _TlsContext(msgspec.Struct, rename="camel"):
    server_name: str = ""


class AuthorizerOperations:
    """The operations on custom authorizers."""

    def __init__(self, aws: AwsIot) -> None:
        self._account = aws.account
        self._authorizers = aws.authorizers

    async def create_authorizer(self, request: AwsRequest) -> Any:
        made = Authorizer(
            request["authorizerName"],
            request["authorizerFunctionArn"],
            request.get("tokenKeyName"),
            request.part("tokenSigningPublicKeys", dict[str, str]) or {},
            (request.get("status") or _ACTIVE) == _ACTIVE,
            request.flag("signingDisabled"),
            request.flag("enableCachingForHttp"),
            _NOW,
            _NOW,
        )
        await self._authorizers.create(made, tags=tags_of(request, made.name), actor=request.actor)
        return _name_json(self._account, made)

    async def describe_authorizer(self, request: AwsRequest) -> Any:
        known = await self._authorizers.get(request["authorizerName"])
        return {"authorizerDescription": _authorizer_json(self._account, known)}

    async def list_authorizers(self, request: AwsRequest) -> Any:
        status = request.get("status")
        is_active = None if status is None else status == _ACTIVE
        ascending = request.flag("ascendingOrder", default=True)
        page = await self._authorizers.page(request.after, request.size, ascending=ascending, is_active=is_active)
        return request.paged("authorizers", [_name_json(self._account, one) for one in page.items], page)

    async def update_authorizer(self, request: AwsRequest) -> Any:
        status = request.get("status")
        made = await self._authorizers.change(
            request["authorizerName"],
            actor=request.actor,
            function_arn=request.get("authorizerFunctionArn"),
            token_key_name=request.get("tokenKeyName"),
            signing_keys=request.part("tokenSigningPublicKeys", dict[str, str]),
            is_active=None if status is None else status == _ACTIVE,
            caches_http=None
            if not request.has_member("enableCachingForHttp")
            else request.flag("enableCachingForHttp"),
        )
        return _name_json(self._account, made)

    async def delete_authorizer(self, request: AwsRequest) -> None:
        await self._authorizers.delete(request["authorizerName"], actor=request.actor)

    async def set_default_authorizer(self, request: AwsRequest) -> Any:
        return _name_json(
            self._account, await self._authorizers.set_default(request["authorizerName"], actor=request.actor)
        )

    async def describe_default_authorizer(self, _call: AwsRequest) -> Any:
        known = await self._authorizers.default()
        return {"authorizerDescription": _authorizer_json(self._account, known)}

    async def clear_default_authorizer(self, request: AwsRequest) -> None:
        await self._authorizers.clear_default(actor=request.actor)

    async def test_invoke_authorizer(self, request: AwsRequest) -> Any:
        http = request.part("httpContext", _HttpContext)
        mqtt = request.part("mqttContext", _MqttContext)
        tls = request.part("tlsContext", _TlsContext) or _TlsContext()
        presented = AuthorizerRequest("a trial", "", tls.server_name, is_mqtt=mqtt is not None)
        if http is not None:
            headers = {name.lower(): value for name, value in http.headers.items()}
            presented = replace(presented, headers=headers, query=http.query_string.removeprefix("?"))
        if mqtt is not None:
            presented = replace(presented, username=mqtt.username, password=mqtt.password, client_id=mqtt.client_id)
        token, signature = request.get("token"), request.get("tokenSignature")
        verdict = await self._authorizers.try_out(
            request["authorizerName"], presented, token, signature, actor=request.actor
        )
        if not verdict.is_authenticated:
            return {"isAuthenticated": False}
        return {
            "isAuthenticated": True,
            "principalId": verdict.principal,
            "policyDocuments": list(verdict.documents),
            "refreshAfterInSeconds": verdict.refresh_s,
            "disconnectAfterInSeconds": verdict.disconnect_s,
        }


def _name_json(account: Account, authorizer: Authorizer) -> dict[str, Any]:
    return {"authorizerName": authorizer.name, "authorizerArn": account.arn("authorizer", authorizer.name)}


def _authorizer_json(account: Account, authorizer: Authorizer) -> dict[str, Any]:
    return _name_json(account, authorizer) | {
        "authorizerFunctionArn": authorizer.function_arn,
        **({} if authorizer.token_key_name is None else {"tokenKeyName": authorizer.token_key_name}),
        "tokenSigningPublicKeys": authorizer.signing_keys,
        "status": _ACTIVE if authorizer.is_active else _INACTIVE,
        "creationDate": authorizer.created_at.timestamp(),
        "lastModifiedDate": authorizer.modified_at.timestamp(),
        "signingDisabled": authorizer.signing_disabled,
        "enableCachingForHttp": authorizer.caches_http,
    }
