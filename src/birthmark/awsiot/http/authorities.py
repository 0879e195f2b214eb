"""CA certificates and the registration code."""

from collections.abc import Mapping
from typing import Any

from birthmark.awsiot import wire
from birthmark.awsiot.http.routing import Call, Handler, paged
from birthmark.awsiot.model import parse_certificate_id
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import parse_body


def handlers(aws: AwsIot) -> Mapping[str, Handler]:
    """Return who serves the operations on CA certificates."""
    account, authorities = aws.account, aws.authorities

    async def code(_call: Call) -> Any:
        return {"registrationCode": await authorities.registration_code()}

    async def delete_code(call: Call) -> None:
        await authorities.delete_registration_code(actor=call.actor)

    async def register(call: Call) -> Any:
        asked = parse_body(call.body, wire.RegisterCa)
        known = await authorities.register(
            asked.ca_certificate,
            asked.verification_certificate,
            asked.certificate_mode,
            is_active=call.flag("setAsActive"),
            auto_registration=call.flag("allowAutoRegistration"),
            registration=wire.config_text(asked.registration_config),
            actor=call.actor,
        )
        return wire.ca_name_json(account, known)

    async def describe(call: Call) -> Any:
        return wire.ca_json(account, await authorities.get(parse_certificate_id(call["certificateId"])))

    async def update(call: Call) -> None:
        asked = parse_body(call.body, wire.UpdateCa)
        await authorities.update(
            parse_certificate_id(call["certificateId"]),
            is_active=_choice(call, "newStatus", "ACTIVE"),
            auto_registration=_choice(call, "newAutoRegistrationStatus", "ENABLE"),
            registration=wire.config_text(asked.registration_config),
            remove_registration=asked.remove_auto_registration,
            actor=call.actor,
        )

    async def delete(call: Call) -> None:
        await authorities.delete(parse_certificate_id(call["certificateId"]), actor=call.actor)

    async def listing(call: Call) -> Any:
        ascending = call.flag("ascendingOrder", default=True)
        page = await authorities.page(call.after, call.size, ascending=ascending)
        return paged("certificates", [wire.ca_entry_json(account, known) for known in page.items], page)

    return {
        "GetRegistrationCode": code,
        "DeleteRegistrationCode": delete_code,
        "RegisterCACertificate": register,
        "DescribeCACertificate": describe,
        "UpdateCACertificate": update,
        "DeleteCACertificate": delete,
        "ListCACertificates": listing,
    }


def _choice(call: Call, name: str, yes: str) -> bool | None:
    text = call.get(name)
    return None if text is None else text == yes
