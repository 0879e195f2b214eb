"""Device certificates, and the endpoint."""

from collections.abc import Mapping
from typing import Any

from birthmark.awsiot import wire
from birthmark.awsiot.http.routing import Call, Handler, paged
from birthmark.awsiot.model import CertificateStatus, parse_certificate_id
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import BodyInvalidError, parse_body

_ENDPOINTS = frozenset({"iot:Data-ATS", "iot:Data", "iot:Data-Beta", "iot:CredentialProvider", "iot:Jobs"})
_ACTIVE, _INACTIVE = CertificateStatus.ACTIVE, CertificateStatus.INACTIVE


def handlers(aws: AwsIot) -> Mapping[str, Handler]:
    """Return who serves the operations on device certificates."""
    account, certificates = aws.account, aws.certificates

    def set_as_active(call: Call) -> CertificateStatus:
        return _ACTIVE if call.flag("setAsActive") else _INACTIVE

    async def register(call: Call) -> Any:
        asked = parse_body(call.body, wire.RegisterCertificate)
        status = asked.status or set_as_active(call)
        known = await certificates.register_by_ca(
            asked.certificate_pem, asked.ca_certificate_pem, status, actor=call.actor
        )
        return wire.certificate_name_json(account, known)

    async def register_without_ca(call: Call) -> Any:
        asked = parse_body(call.body, wire.RegisterCertificate)
        known = await certificates.register(asked.certificate_pem, asked.status or _INACTIVE, actor=call.actor)
        return wire.certificate_name_json(account, known)

    async def from_csr(call: Call) -> Any:
        asked = parse_body(call.body, wire.CreateFromCsr)
        made = await certificates.create_from_csr(
            asked.certificate_signing_request, set_as_active(call), actor=call.actor
        )
        return wire.certificate_name_json(account, made.known) | {"certificatePem": made.known.certificate.pem()}

    async def with_keys(call: Call) -> Any:
        made = await certificates.create_with_keys(set_as_active(call), actor=call.actor)
        answer = wire.certificate_name_json(account, made.known) | {"certificatePem": made.known.certificate.pem()}
        return answer | ({} if made.private_key is None else {"keyPair": wire.key_pair_json(made.private_key)})

    async def describe(call: Call) -> Any:
        known = await certificates.get(parse_certificate_id(call["certificateId"]))
        return {"certificateDescription": wire.certificate_json(account, known)}

    async def update(call: Call) -> None:
        status = CertificateStatus(call["newStatus"])
        await certificates.set_status(parse_certificate_id(call["certificateId"]), status, actor=call.actor)

    async def delete(call: Call) -> None:
        certificate_id = parse_certificate_id(call["certificateId"])
        await certificates.delete(certificate_id, force=call.flag("forceDelete"), actor=call.actor)

    async def listing(call: Call) -> Any:
        ca_id = parse_certificate_id(call["caCertificateId"]) if call.get("caCertificateId") else None
        page = await certificates.page(call.after, call.size, ascending=call.is_ascending, ca_id=ca_id)
        return paged("certificates", [wire.certificate_entry_json(account, known) for known in page.items], page)

    async def endpoint(call: Call) -> Any:
        kind = call.get("endpointType") or "iot:Data"
        if kind not in _ENDPOINTS:
            raise BodyInvalidError(detail=f"the endpointType {kind[:60]!r}")
        return {"endpointAddress": account.data_host}

    return {
        "RegisterCertificate": register,
        "RegisterCertificateWithoutCA": register_without_ca,
        "CreateCertificateFromCsr": from_csr,
        "CreateKeysAndCertificate": with_keys,
        "DescribeCertificate": describe,
        "UpdateCertificate": update,
        "DeleteCertificate": delete,
        "ListCertificates": listing,
        "ListCertificatesByCA": listing,
        "DescribeEndpoint": endpoint,
    }
