"""Device certificates, and the endpoint."""

from functools import partial
from typing import Any

from birthmark.auth.permissions import Right
from birthmark.awsiot import wire
from birthmark.awsiot.http.request_router import AwsRequest
from birthmark.awsiot.model import CertificateStatus, parse_certificate_id
from birthmark.awsiot.rules.permissions import PLACE
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.certificates import EndpointRetiredError, PendingActivationError
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.iam.authorization import demand

_ENDPOINTS = frozenset({"iot:Data-ATS", "iot:Data-Beta", "iot:CredentialProvider"})
_RETIRED = {
    "iot:Data": "iot:Data is not supported. Please use iot:Data-ATS instead.",
    "iot:Jobs": "IoT Jobs and Commands APIs are now available through iot:Data-ATS endpoints.",
}
"""What AWS answers for the endpoint types that it retired (measured 2026-09)."""


class CertificateOperations:
    """The operations on device certificates."""

    def __init__(self, aws: AwsIot) -> None:
        self._certificates = aws.certificates

    async def register_certificate(self, call: AwsRequest) -> Any:
        known = await self._certificates.register_by_ca(
            call["certificatePem"], call.get("caCertificatePem"), _registered_status(call), actor=call.actor
        )
        return wire.certificate_name_json(call.account, known)

    async def register_certificate_without_ca(self, call: AwsRequest) -> Any:
        known = await self._certificates.register(call["certificatePem"], _registered_status(call), actor=call.actor)
        return wire.certificate_name_json(call.account, known)

    async def create_certificate_from_csr(self, call: AwsRequest) -> Any:
        csr = call["certificateSigningRequest"]
        return wire.made_json(
            call.account, await self._certificates.create_from_csr(csr, _status(call), actor=call.actor)
        )

    async def create_keys_and_certificate(self, call: AwsRequest) -> Any:
        known, private_key = await self._certificates.create_with_keys(_status(call), actor=call.actor)
        return wire.made_json(call.account, known) | {"keyPair": wire.key_pair_json(private_key)}

    async def describe_certificate(self, call: AwsRequest) -> Any:
        known = await self._certificates.get(parse_certificate_id(call["certificateId"]))
        return {"certificateDescription": wire.certificate_json(call.account, known)}

    async def update_certificate(self, call: AwsRequest) -> None:
        status = CertificateStatus(call["newStatus"])
        may = partial(_may_bring_back, call)
        certificate_id = parse_certificate_id(call["certificateId"])
        await self._certificates.set_status(certificate_id, status, actor=call.actor, may_bring_back=may)

    async def delete_certificate(self, call: AwsRequest) -> None:
        certificate_id = parse_certificate_id(call["certificateId"])
        await self._certificates.delete(certificate_id, force=call.flag("forceDelete"), actor=call.actor)

    async def list_certificates(self, call: AwsRequest) -> Any:
        ca_id = parse_certificate_id(call["caCertificateId"]) if call.get("caCertificateId") else None
        ascending = call.flag("ascendingOrder")
        page = await self._certificates.page(call.after, call.size, ascending=ascending, ca_id=ca_id)
        return call.paged(
            "certificates", [wire.certificate_entry_json(call.account, known) for known in page.items], page
        )

    list_certificates_by_ca = list_certificates

    async def describe_endpoint(self, call: AwsRequest) -> Any:
        kind = call.get("endpointType") or "iot:Data-ATS"
        if kind in _RETIRED:
            raise EndpointRetiredError(answer=_RETIRED[kind])
        if kind not in _ENDPOINTS:
            raise BodyInvalidError(detail=f"the endpointType {kind[:60]!r}")
        return {"endpointAddress": call.account.data_host}


def _may_bring_back(call: AwsRequest) -> None:
    """Raise `RightMissingError` where a person asks who may revoke nothing."""
    if call.grant.caller is not None:
        demand(call.grant.caller, Right.REVOKE, PLACE)


def _registered_status(call: AwsRequest) -> CertificateStatus:
    """Return the status of a certificate that an operator registers. Raise `PendingActivationError`."""
    if (status := _status(call)) is CertificateStatus.PENDING_ACTIVATION:
        raise PendingActivationError
    return status


def _status(call: AwsRequest) -> CertificateStatus:
    """What a new certificate is, by the status asked for or by the older flag."""
    if (text := call.get("status")) is not None:
        return CertificateStatus(text)
    return CertificateStatus.ACTIVE if call.flag("setAsActive") else CertificateStatus.INACTIVE
