"""Custom authorizers, and trying one out."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from birthmark.awsiot.http.request_router import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import Account, Authorizer
from birthmark.awsiot.rules.custom_authorizers import AuthorizerRequest
from birthmark.awsiot.service import AwsIot

_NOW = datetime.fromtimestamp(0, UTC)  # until it is made
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

    async def create_authorizer(self, call: AwsRequest) -> Any:
        made = Authorizer(
            call["authorizerName"],
            call["authorizerFunctionArn"],
            call.get("tokenKeyName"),
            call.part("tokenSigningPublicKeys", dict[str, str]) or {},
            (call.get("status") or _ACTIVE) == _ACTIVE,
            call.flag("signingDisabled"),
            call.flag("enableCachingForHttp"),
            _NOW,
            _NOW,
        )
        await self._authorizers.create(made, tags=tags_of(call, made.name), actor=call.actor)
        return _name_json(self._account, made)

    async def describe_authorizer(self, call: AwsRequest) -> Any:
        known = await self._authorizers.get(call["authorizerName"])
        return {"authorizerDescription": _authorizer_json(self._account, known)}

    async def list_authorizers(self, call: AwsRequest) -> Any:
        status = call.get("status")
        is_active = None if status is None else status == _ACTIVE
        ascending = call.flag("ascendingOrder", default=True)
        page = await self._authorizers.page(call.after, call.size, ascending=ascending, is_active=is_active)
        return call.paged("authorizers", [_name_json(self._account, one) for one in page.items], page)

    async def update_authorizer(self, call: AwsRequest) -> Any:
        status = call.get("status")
        made = await self._authorizers.change(
            call["authorizerName"],
            actor=call.actor,
            function_arn=call.get("authorizerFunctionArn"),
            token_key_name=call.get("tokenKeyName"),
            signing_keys=call.part("tokenSigningPublicKeys", dict[str, str]),
            is_active=None if status is None else status == _ACTIVE,
            caches_http=None if not call.carries("enableCachingForHttp") else call.flag("enableCachingForHttp"),
        )
        return _name_json(self._account, made)

    async def delete_authorizer(self, call: AwsRequest) -> None:
        await self._authorizers.delete(call["authorizerName"], actor=call.actor)

    async def set_default_authorizer(self, call: AwsRequest) -> Any:
        return _name_json(self._account, await self._authorizers.set_default(call["authorizerName"], actor=call.actor))

    async def describe_default_authorizer(self, _call: AwsRequest) -> Any:
        known = await self._authorizers.default()
        return {"authorizerDescription": _authorizer_json(self._account, known)}

    async def clear_default_authorizer(self, call: AwsRequest) -> None:
        await self._authorizers.clear_default(actor=call.actor)

    async def test_invoke_authorizer(self, call: AwsRequest) -> Any:
        http = call.part("httpContext", _HttpContext)
        mqtt = call.part("mqttContext", _MqttContext)
        tls = call.part("tlsContext", _TlsContext) or _TlsContext()
        presented = AuthorizerRequest("a trial", "", tls.server_name, is_mqtt=mqtt is not None)
        if http is not None:
            headers = {name.lower(): value for name, value in http.headers.items()}
            presented = replace(presented, headers=headers, query=http.query_string.removeprefix("?"))
        if mqtt is not None:
            presented = replace(presented, username=mqtt.username, password=mqtt.password, client_id=mqtt.client_id)
        token, signature = call.get("token"), call.get("tokenSignature")
        verdict = await self._authorizers.try_out(call["authorizerName"], presented, token, signature, actor=call.actor)
        if not verdict.is_authenticated:
            return {"isAuthenticated": False}
        return {
            "isAuthenticated": True,
            "principalId": verdict.principal,
            "policyDocuments": list(verdict.documents),
            "refreshAfterInSeconds": verdict.refresh_s,
            "disconnectAfterInSeconds": verdict.disconnect_s,
        }


def _name_json(account: Account, known: Authorizer) -> dict[str, Any]:
    return {"authorizerName": known.name, "authorizerArn": account.arn("authorizer", known.name)}


def _authorizer_json(account: Account, known: Authorizer) -> dict[str, Any]:
    return _name_json(account, known) | {
        "authorizerFunctionArn": known.function_arn,
        **({} if known.token_key_name is None else {"tokenKeyName": known.token_key_name}),
        "tokenSigningPublicKeys": known.signing_keys,
        "status": _ACTIVE if known.is_active else _INACTIVE,
        "creationDate": known.created_at.timestamp(),
        "lastModifiedDate": known.modified_at.timestamp(),
        "signingDisabled": known.signing_disabled,
        "enableCachingForHttp": known.caches_http,
    }
