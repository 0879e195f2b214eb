"""Role aliases, and the endpoint where devices get short-lived access keys by them."""

import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from birthmark.awsiot.http.request_router import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import Account, RoleAlias
from birthmark.awsiot.rules.policy_variables import ConnectionContext
from birthmark.awsiot.service import AwsIot
from birthmark.net.tls import TlsPeer

CREDENTIALS = re.compile(r"/role-aliases/(?P<alias>[^/]{1,128})/credentials")
"""Of the endpoint that `iot:CredentialProvider` names."""


_MAX_THING = 128


class RoleAliasOperations:
    """The operations on role aliases."""

    def __init__(self, aws: AwsIot) -> None:
        self._account = aws.account
        self._roles = aws.roles

    async def create_role_alias(self, call: AwsRequest) -> Any:
        duration_s = call.number("credentialDurationSeconds")
        made = await self._roles.create(
            call["roleAlias"], call["roleArn"], duration_s, tags=tags_of(call, call["roleAlias"]), actor=call.actor
        )
        return _name_json(self._account, made)

    async def describe_role_alias(self, call: AwsRequest) -> Any:
        known = await self._roles.get(call["roleAlias"])
        told = _name_json(self._account, known) | {
            "roleArn": known.role_arn,
            "owner": self._account.account_id,
            "credentialDurationSeconds": known.duration_s,
            "creationDate": known.created_at.timestamp(),
            "lastModifiedDate": known.modified_at.timestamp(),
        }
        return {"roleAliasDescription": told}

    async def list_role_aliases(self, call: AwsRequest) -> Any:
        ascending = call.flag("ascendingOrder", default=True)
        page = await self._roles.page(call.after, call.size, ascending=ascending)
        return call.paged("roleAliases", [one.name for one in page.items], page)

    async def update_role_alias(self, call: AwsRequest) -> Any:
        role_arn, duration_s = call.get("roleArn"), call.number("credentialDurationSeconds")
        made = await self._roles.change(call["roleAlias"], role_arn, duration_s, actor=call.actor)
        return _name_json(self._account, made)

    async def delete_role_alias(self, call: AwsRequest) -> None:
        await self._roles.delete(call["roleAlias"], actor=call.actor)


async def credentials(aws: AwsIot, alias: str, request: Request) -> Mapping[str, Any]:
    """Return a short-lived key for who asks with its certificate. Raise why it gets none."""
    peer: TlsPeer = request.scope["extensions"]["tls"]
    address = request.client.host if request.client else ""
    thing = (request.headers.get("x-amzn-iot-thingname") or "")[:_MAX_THING] or None
    made = await aws.roles.issue(alias, ConnectionContext(peer.leaf, thing, address, peer.sni, chain=peer.chain))
    return {
        "credentials": {
            "accessKeyId": made.access_key_id,
            "secretAccessKey": made.secret,
            "sessionToken": made.token,
            "expiration": f"{made.expires_at:%Y-%m-%dT%H:%M:%SZ}",
        }
    }


def _name_json(account: Account, known: RoleAlias) -> dict[str, Any]:
    return {"roleAlias": known.name, "roleAliasArn": account.arn("rolealias", known.name)}
