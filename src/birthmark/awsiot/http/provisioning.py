"""Provisioning templates with their versions, claims of trusted users, and what a template makes of one device."""

from typing import Any

import msgspec

from birthmark.awsiot import wire
from birthmark.awsiot.http.authorization_resources import template_of
from birthmark.awsiot.http.request_router import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import TemplateType
from birthmark.awsiot.rules.provisioning_templates import parse_template
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.provisioning_templates import UnknownTemplateError
from birthmark.awsiot.wire import provisioning
from birthmark.untrusted_text import whole_number


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

    async def create_provisioning_template(self, call: AwsRequest) -> Any:
        made = await self._templates.create(
            call["templateName"],
            template_of(call),
            TemplateType(call.get("type") or TemplateType.FLEET_PROVISIONING),
            description=call.get("description") or "",
            is_enabled=call.flag("enabled"),
            role_arn=call["provisioningRoleArn"],
            hook=_hook(call),
            tags=tags_of(call, call["templateName"]),
            actor=call.actor,
        )
        return {
            "templateArn": self._account.arn("provisioningtemplate", made.name),
            "templateName": made.name,
            "defaultVersionId": made.default_version,
        }

    async def describe_provisioning_template(self, call: AwsRequest) -> Any:
        return provisioning.template_json(self._account, *await self._templates.version(call["templateName"]))

    async def list_provisioning_templates(self, call: AwsRequest) -> Any:
        page = await self._templates.page(call.after, call.size)
        return call.paged(
            "templates", [provisioning.template_entry_json(self._account, one) for one in page.items], page
        )

    async def update_provisioning_template(self, call: AwsRequest) -> None:
        await self._templates.update(
            call["templateName"],
            description=call.get("description"),
            is_enabled=None if call.get("enabled") is None else call.flag("enabled"),
            default_version=call.number("defaultVersionId"),
            role_arn=call.get("provisioningRoleArn"),
            hook=_hook(call),
            removes_hook=call.flag("removePreProvisioningHook"),
            actor=call.actor,
        )

    async def delete_provisioning_template(self, call: AwsRequest) -> None:
        await self._templates.delete(call["templateName"], actor=call.actor)

    async def create_provisioning_template_version(self, call: AwsRequest) -> Any:
        as_default = call.flag("setAsDefault")
        made = await self._templates.add_version(
            call["templateName"], template_of(call), as_default=as_default, actor=call.actor
        )
        return {
            "templateArn": self._account.arn("provisioningtemplate", made.template),
            "templateName": made.template,
            "versionId": made.version,
            "isDefaultVersion": as_default,
        }

    async def describe_provisioning_template_version(self, call: AwsRequest) -> Any:
        template, version = await self._templates.version(call["templateName"], _version(call))
        return provisioning.template_version_json(template, version) | {"templateBody": version.body}

    async def list_provisioning_template_versions(self, call: AwsRequest) -> Any:
        template, versions = await self._templates.versions(call["templateName"])
        _ = call.after, call.size  # five at most: one page
        return {"versions": [provisioning.template_version_json(template, one) for one in versions]}

    async def delete_provisioning_template_version(self, call: AwsRequest) -> None:
        await self._templates.delete_version(call["templateName"], _version(call), actor=call.actor)

    async def create_provisioning_claim(self, call: AwsRequest) -> Any:
        made, key, until = await self._claims.claim_for(call["templateName"], actor=call.actor)
        return {
            "certificateId": made.id,
            "certificatePem": made.certificate.pem(),
            "keyPair": wire.key_pair_json(key),
            "expiration": wire.seconds(until),
        }

    async def register_thing(self, call: AwsRequest) -> Any:
        plan = parse_template(template_of(call)).plan(call.part("parameters", dict[str, str]) or {})
        made = await self._provisioning.register(plan, actor=call.actor)
        return made.told(self._account)


def _hook(call: AwsRequest) -> str | None:
    given = call.part("preProvisioningHook", ProvisioningHook)
    return None if given is None else msgspec.json.encode(given).decode()


def _version(call: AwsRequest) -> int:
    if (number := whole_number(call["versionId"])) is None:
        raise UnknownTemplateError(template=call["templateName"][:36], version=call["versionId"][:20])
    return number
