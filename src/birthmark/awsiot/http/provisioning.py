"""Provisioning templates with versions, claims of trusted users, and RegisterThing."""

from typing import Any

import msgspec

from birthmark.awsiot import wire
from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.http.policy_resources import template_of
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import TemplateType
from birthmark.awsiot.rules.provisioning_templates import parse_template
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.provisioning_templates import UnknownTemplateError
from birthmark.awsiot.wire import provisioning
from birthmark.untrusted_json_and_text import whole_number


class ProvisioningHook(msgspec.Struct, rename="camel", omit_defaults=True):
    """A preProvisioningHook."""

    target_arn: str
    payload_version: str | None = None


class ProvisioningOperations:
    """The operations of provisioning templates."""

    def __init__(self, aws: AwsIot) -> None:
        self._account = aws.account
        self._templates = aws.templates
        self._provisioning = aws.provisioning
        self._claims = aws.claims

    async def create_provisioning_template(self, request: AwsRequest) -> Any:
        made = await self._templates.create(
            request["templateName"],
            template_of(request),
            TemplateType(request.get("type") or TemplateType.FLEET_PROVISIONING),
            description=request.get("description") or "",
            is_enabled=request.flag("enabled"),
            role_arn=request["provisioningRoleArn"],
            hook=_hook(request),
            tags=tags_of(request, request["templateName"]),
            actor=request.actor,
        )
        return {
            "templateArn": self._account.arn("provisioningtemplate", made.name),
            "templateName": made.name,
            "defaultVersionId": made.default_version,
        }

    async def describe_provisioning_template(self, request: AwsRequest) -> Any:
        return provisioning.template_json(self._account, *await self._templates.version(request["templateName"]))

    async def list_provisioning_templates(self, request: AwsRequest) -> Any:
        page = await self._templates.page(request.after, request.size)
        return request.paged(
            "templates", [provisioning.template_entry_json(self._account, one) for one in page.items], page
        )

    async def update_provisioning_template(self, request: AwsRequest) -> None:
        await self._templates.update(
            request["templateName"],
            description=request.get("description"),
            is_enabled=None if request.get("enabled") is None else request.flag("enabled"),
            default_version=request.number("defaultVersionId"),
            role_arn=request.get("provisioningRoleArn"),
            hook=_hook(request),
            removes_hook=request.flag("removePreProvisioningHook"),
            actor=request.actor,
        )

    async def delete_provisioning_template(self, request: AwsRequest) -> None:
        await self._templates.delete(request["templateName"], actor=request.actor)

    async def create_provisioning_template_version(self, request: AwsRequest) -> Any:
        as_default = request.flag("setAsDefault")
        made = await self._templates.add_version(
            request["templateName"], template_of(request), as_default=as_default, actor=request.actor
        )
        return {
            "templateArn": self._account.arn("provisioningtemplate", made.template),
            "templateName": made.template,
            "versionId": made.version,
            "isDefaultVersion": as_default,
        }

    async def describe_provisioning_template_version(self, request: AwsRequest) -> Any:
        template, version = await self._templates.version(request["templateName"], _version(request))
        return provisioning.template_version_json(template, version) | {"templateBody": version.body}

    async def list_provisioning_template_versions(self, request: AwsRequest) -> Any:
        template, versions = await self._templates.versions(request["templateName"])
        _ = request.after, request.size  # at most five: one page
        return {"versions": [provisioning.template_version_json(template, one) for one in versions]}

    async def delete_provisioning_template_version(self, request: AwsRequest) -> None:
        await self._templates.delete_version(request["templateName"], _version(request), actor=request.actor)

    async def create_provisioning_claim(self, request: AwsRequest) -> Any:
        made, key, until = await self._claims.claim_for(request["templateName"], actor=request.actor)
        return {
            "certificateId": made.id,
            "certificatePem": made.certificate.pem(),
            "keyPair": wire.key_pair_json(key),
            "expiration": wire.seconds(until),
        }

    async def register_thing(self, request: AwsRequest) -> Any:
        plan = parse_template(template_of(request)).plan(request.part("parameters", dict[str, str]) or {})
        made = await self._provisioning.register(plan, actor=request.actor)
        return made.to_response(self._account)


def _hook(request: AwsRequest) -> str | None:
    given = request.part("preProvisioningHook", ProvisioningHook)
    return None if given is None else msgspec.json.encode(given).decode()


def _version(request: AwsRequest) -> int:
    if (number := whole_number(request["versionId"])) is None:
        raise UnknownTemplateError(template=request["templateName"][:36], version=request["versionId"][:20])
    return number
