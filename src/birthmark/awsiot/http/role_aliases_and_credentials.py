"""Role aliases and the credential provider endpoint for devices."""

import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import Account, RoleAlias
from birthmark.awsiot.rules.policy_variables import ConnectionContext
from birthmark.awsiot.service import AwsIot
from birthmark.net.tls import TlsPeer

CREDENTIALS = re.compile(r"/role-aliases/(?P<alias>[^/]{1,128})/credentials")
"""Path of the endpoint that `iot:CredentialProvider` names."""


_MAX_THING = 128


class RoleAliasOperations:
    """The operations on role aliases."""

    def __init__(self, aws: AwsIot) -> None:
        self._account = aws.account
        self._roles = aws.roles

    async def create_role_alias(self, request: AwsRequest) -> Any:
        duration_s = request.number("credentialDurationSeconds")
        made = await self._roles.create(
            request["roleAlias"],
            request["roleArn"],
            duration_s,
            tags=tags_of(request, request["roleAlias"]),
            actor=request.actor,
        )
        return _name_json(self._account, made)

    async def describe_role_alias(self, request: AwsRequest) -> Any:
        known = await self._roles.get(request["roleAlias"])
        told = _name_json(self._account, known) | {
            "roleArn": known.role_arn,
            "owner": self._account.account_id,
            "credentialDurationSeconds": known.duration_s,
            "creationDate": known.created_at.timestamp(),
            "lastModifiedDate": known.modified_at.timestamp(),
        }
        return {"roleAliasDescription": told}

    async def list_role_aliases(self, request: AwsRequest) -> Any:
        ascending = request.flag("ascendingOrder", default=True)
        page = await self._roles.page(request.after, request.size, ascending=ascending)
        return request.paged("roleAliases", [one.name for one in page.items], page)

    async def update_role_alias(self, request: AwsRequest) -> Any:
        role_arn, duration_s = request.get("roleArn"), request.number("credentialDurationSeconds")
        made = await self._roles.change(request["roleAlias"], role_arn, duration_s, actor=request.actor)
        return _name_json(self._account, made)

    async def delete_role_alias(self, request: AwsRequest) -> None:
        await self._roles.delete(request["roleAlias"], actor=request.actor)


async def credentials(aws: AwsIot, alias: str, request: Request) -> Mapping[str, Any]:
    """Return temporary credentials for a client certificate. Raise why they are refused."""
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


def _name_json(account: Account, alias: RoleAlias) -> dict[str, Any]:
    return {"roleAlias": alias.name, "roleAliasArn": account.arn("rolealias", alias.name)}
