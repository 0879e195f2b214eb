"""CA certificates and the registration code."""

from typing import Any

from birthmark.auth.permissions import Right
from birthmark.awsiot import wire
from birthmark.awsiot.http.request_router import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import CertificateMode, parse_certificate_id
from birthmark.awsiot.rules.permissions import PLACE
from birthmark.awsiot.rules.provisioning_templates import parse_template
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.iam.authorization import demand


class AuthorityOperations:
    """The operations on CA certificates."""

    def __init__(self, aws: AwsIot) -> None:
        self._authorities = aws.authorities

    async def get_registration_code(self, _call: AwsRequest) -> Any:
        return {"registrationCode": await self._authorities.registration_code()}

    async def delete_registration_code(self, call: AwsRequest) -> None:
        await self._authorities.delete_registration_code(actor=call.actor)

    async def register_ca_certificate(self, call: AwsRequest) -> Any:
        known = await self._authorities.register(
            call["caCertificate"],
            call.get("verificationCertificate"),
            CertificateMode(call.get("certificateMode") or CertificateMode.DEFAULT),
            is_active=call.flag("setAsActive"),
            auto_registration=call.flag("allowAutoRegistration"),
            registration=_registration(call),
            tags=tags_of(call, "the CA certificate"),
            actor=call.actor,
        )
        return wire.certificate_name_json(call.account, known)

    async def describe_ca_certificate(self, call: AwsRequest) -> Any:
        return wire.ca_json(call.account, await self._authorities.get(parse_certificate_id(call["certificateId"])))

    async def update_ca_certificate(self, call: AwsRequest) -> None:
        await self._authorities.update(
            parse_certificate_id(call["certificateId"]),
            is_active=_choice(call, "newStatus", "ACTIVE"),
            auto_registration=_choice(call, "newAutoRegistrationStatus", "ENABLE"),
            registration=_registration(call),
            remove_registration=call.flag("removeAutoRegistration"),
            actor=call.actor,
        )

    async def delete_ca_certificate(self, call: AwsRequest) -> None:
        await self._authorities.delete(parse_certificate_id(call["certificateId"]), actor=call.actor)

    async def list_ca_certificates(self, call: AwsRequest) -> Any:
        page = await self._authorities.page(call.after, call.size, ascending=call.flag("ascendingOrder", default=True))
        return call.paged("certificates", [wire.ca_entry_json(call.account, known) for known in page.items], page)


def _registration(call: AwsRequest) -> str | None:
    config = call.part("registrationConfig", wire.RegistrationConfig)
    if config is not None and config.template_body is not None:
        if config.template_name is not None:
            raise BodyInvalidError(detail="registrationConfig has a templateBody and a templateName")
        if call.grant.caller is not None:  # a template may hold a policy
            demand(call.grant.caller, Right.ADMINISTER, PLACE)
        parse_template(config.template_body)
    return wire.config_text(config)


def _choice(call: AwsRequest, name: str, yes: str) -> bool | None:
    text = call.get(name)
    return None if text is None else text == yes
