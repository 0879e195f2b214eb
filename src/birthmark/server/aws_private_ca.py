"""Issuance by AWS Private CA for this server (API reference of `acm-pca`, 2017-08-22).

The server identifies the device and determines its subject and alternative names; AWS receives the CSR with that
subject. Credentials and region come from the default chain of the AWS SDK; the region is that of the ARN.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from birthmark import supervised_tasks
from birthmark.ca.external_ca_port import PendingSignatures, UpstreamAnswerError, check_answer
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import UnavailableError
from birthmark.pki.certificate_profiles import CertificateProfile
from birthmark.pki.certificates import Certificate, parse_bundle
from birthmark.pki.csr import CertificateRequest

log = logging.getLogger(__name__)
_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Poll intervals: AWS issues within about 1 s and reports progress until then."""
_IN_PROGRESS = "RequestInProgressException"


class PrivateCaError(UnavailableError):
    """AWS Private CA did not sign."""

    code = "ca.private_ca"
    cause = "AWS Private CA {arn}, which signs for this server, failed at {operation}: {reason}."
    fix = (
        "Check that this server's AWS credentials allow it to describe the CA, get the CA's certificate, and issue "
        "and get certificates. Then check that the CA is ACTIVE: `aws acm-pca describe-certificate-authority "
        "--certificate-authority-arn {arn}`"
    )
    arn: str
    device_id: str = ""
    operation: str
    reason: str


@dataclass(slots=True)
class PrivateCa:
    """Implements `ca.external_ca.Upstream`.

    `client` is boto3's `acm-pca` client; its blocking calls run in threads.
    """

    url: str
    """The ARN of the certificate authority."""
    client: Any = field(repr=False)
    clock: Clock = field(repr=False)
    entropy: Entropy = field(repr=False)
    keep: Callable[[tuple[Certificate, ...]], Awaitable[None]] = field(repr=False)
    known: tuple[Certificate, ...] = ()
    _algorithm: str | None = None
    _asking: PendingSignatures = field(default_factory=PendingSignatures, init=False, repr=False)
    _is_kept: bool = field(default=True, init=False)
    """Whether the certificates are stored; if False, the next check stores them again."""

    def certificates(self) -> tuple[Certificate, ...]:
        """Return the CA's certificate and its issuers. Raise `PrivateCaError` before they are known."""
        if not self.known:
            raise self._problem(
                "GetCertificateAuthorityCertificate", ("it has not responded since this server started")
            )
        return self.known

    async def refresh(self) -> None:
        """Fetch the CA's certificates and signature algorithm. Raise `PrivateCaError`."""
        described = await self._call("describe_certificate_authority")
        configuration = described["CertificateAuthority"]["CertificateAuthorityConfiguration"]
        self._algorithm = configuration["SigningAlgorithm"]
        answer = await self._call("get_certificate_authority_certificate")
        found = parse_bundle(f"{answer['Certificate']}\n{answer.get('CertificateChain') or ''}")
        if found != self.known or not self._is_kept:
            self.known, self._is_kept = found, False
            await self.keep(found)
            self._is_kept = True

    async def issue(
        self, request: CertificateRequest, subject: x509.Name, profile: CertificateProfile, lifetime: timedelta
    ) -> Certificate:
        """Issue a certificate with that subject. Raise `PrivateCaError`, `UpstreamAnswerError`."""
        try:
            with self._asking.turn(subject) as is_next:
                if not is_next:
                    raise self._problem("IssueCertificate", "it is busy with earlier requests")
                return await self._issue(request, subject, profile, lifetime)
        except PrivateCaError as error:
            error.add_facts(device_id=request.subject_cn or "")
            raise

    async def _issue(
        self, request: CertificateRequest, subject: x509.Name, profile: CertificateProfile, lifetime: timedelta
    ) -> Certificate:
        if self._algorithm is None:
            await self.refresh()
        made = await self._call(
            "issue_certificate",
            Csr=x509.load_der_x509_csr(request.der).public_bytes(Encoding.PEM),
            SigningAlgorithm=self._algorithm,
            TemplateArn=template_for(profile),
            ApiPassthrough={"Subject": {"CustomAttributes": _attributes(subject)}},
            Validity={"Type": "ABSOLUTE", "Value": int((self.clock.now() + lifetime).timestamp())},
            IdempotencyToken=self.entropy.token(16).hex(),  # for boto3 retries
        )
        answer = await self._issued(made["CertificateArn"])
        (issued,) = parse_bundle(answer["Certificate"])
        asked = "".join(str(one.value) for one in subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME))
        if (wrong := check_answer(issued, request, asked, self.certificates())) is not None:
            raise UpstreamAnswerError(url=self.url, asked=asked, detail=wrong)
        return issued

    async def _issued(self, arn: str) -> dict[str, Any]:
        for pause in _PAUSES_S:
            try:
                return await self._call("get_certificate", CertificateArn=arn)
            except PrivateCaError as error:
                if not error.reason.startswith(_IN_PROGRESS):
                    raise
            await asyncio.sleep(pause)
        return await self._call("get_certificate", CertificateArn=arn)

    async def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        call = getattr(self.client, operation)
        try:
            return dict(await supervised_tasks.waiting(partial(call, CertificateAuthorityArn=self.url, **parameters)))
        except ClientError as error:
            told = error.response.get("Error", {})
            raise self._problem(operation, f"{told.get('Code')}: {told.get('Message')}") from error
        except BotoCoreError as error:
            raise self._problem(operation, str(error)) from error

    def _problem(self, operation: str, reason: str) -> PrivateCaError:
        called = "".join(part.title() for part in operation.split("_")) if "_" in operation else operation
        return PrivateCaError(arn=self.url, operation=called, reason=reason.rstrip("."))


def private_ca_of(
    arn: str,
    region: str,
    clock: Clock,
    entropy: Entropy,
    *,
    keep: Callable[[tuple[Certificate, ...]], Awaitable[None]],
    certificates: tuple[Certificate, ...],
) -> PrivateCa:
    """Return the certificate authority with that ARN, through boto3 as the environment configures it."""
    import boto3
    from botocore.config import Config

    logging.getLogger("botocore").setLevel(logging.WARNING)  # it logs every call
    config = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "max_attempts": 3})
    client = boto3.Session(region_name=region).client("acm-pca", config=config)
    return PrivateCa(arn, client, clock, entropy, keep, certificates)


def template_for(profile: CertificateProfile) -> str:
    """Return the ARN of the best matching template.

    Subjects come from this server, extensions from the template.
    """
    if profile.is_ca:
        kind = f"SubordinateCACertificate_PathLen{profile.path_length or 0}_APIPassthrough"
    elif profile.extended_key_usage == (ExtendedKeyUsageOID.CLIENT_AUTH,):
        kind = "EndEntityClientAuthCertificate_APIPassthrough"
    else:
        kind = "EndEntityCertificate_APIPassthrough"
    return f"arn:aws:acm-pca:::template/{kind}/V1"


def _attributes(subject: x509.Name) -> list[dict[str, str]]:
    return [{"ObjectIdentifier": one.oid.dotted_string, "Value": str(one.value)} for one in subject]
