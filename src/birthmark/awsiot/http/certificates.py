"""Device certificates, and the endpoint."""

from functools import partial
from typing import Any

from birthmark.auth.permission_statements import Right
from birthmark.awsiot import wire
from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.model import CertificateStatus, parse_certificate_id
from birthmark.awsiot.rules.operation_rights import PLACE
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.certificates import EndpointRetiredError, PendingActivationError
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.iam.missing_right_errors import require_right

_ENDPOINTS = frozenset({"iot:Data-ATS", "iot:Data-Beta", "iot:CredentialProvider"})
_RETIRED = {
    "iot:Data": "iot:Data is not supported. Please use iot:Data-ATS instead.",
    "iot:Jobs": "IoT Jobs and Commands APIs are now available through iot:Data-ATS endpoints.",
}
"""AWS's responses for retired endpoint types (measured 2026-09)."""


class CertificateOperations:
    """The operations on device certificates."""

    def __init__(self, aws: AwsIot) -> None:
        self._certificates = aws.certificates

    async def register_certificate(self, request: AwsRequest) -> Any:
        known = await self._certificates.register_by_ca(
            request["certificatePem"], request.get("caCertificatePem"), _registered_status(request), actor=request.actor
        )
        return wire.certificate_name_json(request.account, known)

    async def register_certificate_without_ca(self, request: AwsRequest) -> Any:
        known = await self._certificates.register(
            request["certificatePem"], _registered_status(request), actor=request.actor
        )
        return wire.certificate_name_json(request.account, known)

    async def create_certificate_from_csr(self, request: AwsRequest) -> Any:
        csr = request["certificateSigningRequest"]
        return wire.created_certificate_json(
            request.account, await self._certificates.create_from_csr(csr, _status(request), actor=request.actor)
        )

    async def create_keys_and_certificate(self, request: AwsRequest) -> Any:
        known, private_key = await self._certificates.create_with_keys(_status(request), actor=request.actor)
        return wire.created_certificate_json(request.account, known) | {"keyPair": wire.key_pair_json(private_key)}

    async def describe_certificate(self, request: AwsRequest) -> Any:
        known = await self._certificates.get(parse_certificate_id(request["certificateId"]))
        return {"certificateDescription": wire.certificate_json(request.account, known)}

    async def update_certificate(self, request: AwsRequest) -> None:
        status = CertificateStatus(request["newStatus"])
        may = partial(_check_may_reactivate, request)
        certificate_id = parse_certificate_id(request["certificateId"])
        await self._certificates.set_status(certificate_id, status, actor=request.actor, may_bring_back=may)

    async def delete_certificate(self, request: AwsRequest) -> None:
        certificate_id = parse_certificate_id(request["certificateId"])
        await self._certificates.delete(certificate_id, force=request.flag("forceDelete"), actor=request.actor)

    async def list_certificates(self, request: AwsRequest) -> Any:
        ca_id = parse_certificate_id(request["caCertificateId"]) if request.get("caCertificateId") else None
        ascending = request.flag("ascendingOrder")
        page = await self._certificates.page(request.after, request.size, ascending=ascending, ca_id=ca_id)
        return request.paged(
            "certificates", [wire.certificate_entry_json(request.account, known) for known in page.items], page
        )

    list_certificates_by_ca = list_certificates

    async def describe_endpoint(self, request: AwsRequest) -> Any:
        kind = request.get("endpointType") or "iot:Data-ATS"
        if kind in _RETIRED:
            raise EndpointRetiredError(answer=_RETIRED[kind])
        if kind not in _ENDPOINTS:
            raise BodyInvalidError(detail=f"the endpointType {kind[:60]!r}")
        return {"endpointAddress": request.account.data_host}


def _check_may_reactivate(request: AwsRequest) -> None:
    """Raise `RightMissingError` if the caller is a user without the right to revoke."""
    if request.grant.caller is not None:
        require_right(request.grant.caller, Right.REVOKE, PLACE)


def _registered_status(request: AwsRequest) -> CertificateStatus:
    """Return the requested status of a certificate to register. Raise `PendingActivationError`."""
    if (status := _status(request)) is CertificateStatus.PENDING_ACTIVATION:
        raise PendingActivationError
    return status


def _status(request: AwsRequest) -> CertificateStatus:
    """Return the status of a new certificate from the requested status or the older flag."""
    if (text := request.get("status")) is not None:
        return CertificateStatus(text)
    return CertificateStatus.ACTIVE if request.flag("setAsActive") else CertificateStatus.INACTIVE
