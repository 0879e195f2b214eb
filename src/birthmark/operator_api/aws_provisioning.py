"""The operator interface of AWS IoT's provisioning templates and claim certificates."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.awsiot.model import ProvisioningTemplate, TemplateType, parse_certificate_id
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.provisioning_templates import hook_arn
from birthmark.operator_api.api_router import ApiRequest, Endpoint, PageQuery, Rows
from birthmark.pki.certificates import parse_pem


class NewTemplate(msgspec.Struct):
    """A provisioning template; `body` is its JSON as text, `type` FLEET_PROVISIONING or JITP."""

    name: str
    body: str
    type: TemplateType = TemplateType.FLEET_PROVISIONING
    hook: str | None = None
    description: str = ""


class ClaimBody(msgspec.Struct):
    """Whether a certificate is a claim certificate."""

    claim: bool


class Successor(msgspec.Struct):
    """Successor certificate, in PEM."""

    certificate: str


def endpoints(aws: AwsIot) -> Sequence[Endpoint]:
    """Return the routes of `birthmark aws template` and `birthmark aws certificate claim`."""

    async def templates(request: ApiRequest) -> Rows:
        page = await aws.templates.page(request.query.after, request.query.limit)
        return Rows([_template_view(one) for one in page.items], page.last)

    async def template(request: ApiRequest) -> Any:
        known, version = await aws.templates.version(request["name"])
        return _template_view(known) | {"body": json.loads(version.body)}

    async def add_template(request: ApiRequest) -> Any:
        given: NewTemplate = request.body
        hook = None if given.hook is None else json.dumps({"targetArn": given.hook})
        role = f"arn:aws:iam::{aws.account.account_id}:role/provisioning"
        made = await aws.templates.create(
            *(given.name, given.body, given.type),
            description=given.description,
            is_enabled=True,
            role_arn=role,
            hook=hook,
            actor=request.actor,
        )
        return _template_view(made)

    async def remove_template(request: ApiRequest) -> None:
        await aws.templates.delete(request["name"], actor=request.actor)

    async def set_claim(request: ApiRequest) -> None:
        certificate_id = parse_certificate_id(request["id"])
        if request.body.claim:  # this locks out the device that has it
            request.require_permission(Right.REVOKE, "aws")
        await aws.claims.set_claim(certificate_id, is_claim=request.body.claim, actor=request.actor)

    async def renew(request: ApiRequest) -> Any:
        certificate_id = parse_certificate_id(request["id"])
        request.require_permission(Right.REVOKE, "aws")  # it replaces the old certificate
        made = await aws.renewals.carry(certificate_id, parse_pem(request.body.certificate), actor=request.actor)
        return {"certificate": made.id, "replaces": certificate_id, "status": made.status.value}

    one, change = "/aws/templates/{name}", Right.ADMINISTER
    return [
        Endpoint("GET", "/aws/templates", Right.READ, "List provisioning templates.", templates, query=PageQuery),
        Endpoint("GET", one, Right.READ, "Return a provisioning template.", template),
        Endpoint(
            "POST", "/aws/templates", change, "Create a provisioning template.", add_template, NewTemplate, status=201
        ),
        Endpoint("DELETE", one, change, "Delete a provisioning template.", remove_template, status=204),
        Endpoint(
            *("POST", "/aws/certificates/{id}/renew", Right.ENROLL),
            *("Register a successor certificate that takes over the attachments of another.", renew, Successor),
            status=201,
        ),
        Endpoint(
            *("PUT", "/aws/certificates/{id}/claim", Right.ENROLL),
            *("Mark a certificate as a claim certificate, or unmark it.", set_claim, ClaimBody),
            status=204,
        ),
    ]


def _template_view(template: ProvisioningTemplate) -> dict[str, Any]:
    return {
        "template": template.name,
        "type": template.kind.value,
        "enabled": template.is_enabled,
        "version": template.default_version,
        "hook": hook_arn(template.hook),
        "description": template.description,
        "created": template.created_at.isoformat(),
    }
