"""CA certificates and the registration code."""

from typing import Any

from birthmark.auth.permission_statements import Right
from birthmark.awsiot import wire
from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import CertificateMode, parse_certificate_id
from birthmark.awsiot.rules.operation_rights import PLACE
from birthmark.awsiot.rules.provisioning_templates import parse_template
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.iam.missing_right_errors import require_right


class CaCertificateOperations:
    """The operations on CA certificates."""

    def __init__(self, aws: AwsIot) -> None:
        self._authorities = aws.authorities

    async def get_registration_code(self, _call: AwsRequest) -> Any:
        return {"registrationCode": await self._authorities.registration_code()}

    async def delete_registration_code(self, request: AwsRequest) -> None:
        await self._authorities.delete_registration_code(actor=request.actor)

    async def register_ca_certificate(self, request: AwsRequest) -> Any:
        known = await self._authorities.register(
            request["caCertificate"],
            request.get("verificationCertificate"),
            CertificateMode(request.get("certificateMode") or CertificateMode.DEFAULT),
            is_active=request.flag("setAsActive"),
            auto_registration=request.flag("allowAutoRegistration"),
            registration=_registration(request),
            tags=tags_of(request, "the CA certificate"),
            actor=request.actor,
        )
        return wire.certificate_name_json(request.account, known)

    async def describe_ca_certificate(self, request: AwsRequest) -> Any:
        return wire.ca_json(
            request.account, await self._authorities.get(parse_certificate_id(request["certificateId"]))
        )

    async def update_ca_certificate(self, request: AwsRequest) -> None:
        await self._authorities.update(
            parse_certificate_id(request["certificateId"]),
            is_active=_choice(request, "newStatus", "ACTIVE"),
            auto_registration=_choice(request, "newAutoRegistrationStatus", "ENABLE"),
            registration=_registration(request),
            remove_registration=request.flag("removeAutoRegistration"),
            actor=request.actor,
        )

    async def delete_ca_certificate(self, request: AwsRequest) -> None:
        await self._authorities.delete(parse_certificate_id(request["certificateId"]), actor=request.actor)

    async def list_ca_certificates(self, request: AwsRequest) -> Any:
        page = await self._authorities.page(
            request.after, request.size, ascending=request.flag("ascendingOrder", default=True)
        )
        return request.paged("certificates", [wire.ca_entry_json(request.account, known) for known in page.items], page)


def _registration(request: AwsRequest) -> str | None:
    config = request.part("registrationConfig", wire.RegistrationConfig)
    if config is not None and config.template_body is not None:
        if config.template_name is not None:
            raise BodyInvalidError(detail="registrationConfig has a templateBody and a templateName")
        if request.grant.caller is not None:  # a template may hold a policy
            require_right(request.grant.caller, Right.ADMINISTER, PLACE)
        parse_template(config.template_body)
    return wire.config_text(config)


def _choice(request: AwsRequest, name: str, yes: str) -> bool | None:
    text = request.get(name)
    return None if text is None else text == yes
