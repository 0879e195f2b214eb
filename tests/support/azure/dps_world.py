"""DPS with a hub behind it, on a real database and without a socket."""

import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from birthmark.auth.sas import derive_device_key
from birthmark.ca.cloud_device_issuance import CertificateOrders
from birthmark.dps.enrollment_document import (
    AttestationMechanism,
    CertificateEntry,
    CertificatePair,
    EnrollmentDocument,
    SymmetricKeys,
    X509Attestation,
)
from birthmark.dps.model import Claim, Instance, Registration
from birthmark.dps.service import Authorities, Enrollments, Instances, Registrations
from birthmark.dps.service.certificate_issuance import NO_ISSUER
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication, Hub
from birthmark.iothub.service import IotHub, Registry
from birthmark.late_reference import Ref
from birthmark.server.dps_hub_adapter import GrantsByEnrollment, HubsForDps
from birthmark.store import Database, open_database
from support.azure.sas_tokens import make_sas
from support.fakes import NOON, FakeClock, SeededEntropy
from support.pki.pki_builders import Holder

BY_HAND = DeviceAuthentication(AuthenticationType.SAS)
SOON_S = int(NOON.timestamp()) + 3600


@dataclass
class DpsWorld:
    database: Database
    clock: FakeClock
    instances: Instances
    enrollments: Enrollments
    authorities: Authorities
    registrations: Registrations
    registry: Registry
    instance: Instance
    hub: Hub
    iothub: IotHub

    async def group(self, name: str, ca: Holder) -> None:
        """Enroll everything that `ca` signs."""
        scope = self.instance.id_scope
        ca_name = ca.certificate.thumbprint.hex()
        await self.authorities.add(scope, ca_name, ca.certificate, is_verified=True, actor="test")
        pair = CertificatePair(CertificateEntry(ca.certificate.pem()))
        attestation = AttestationMechanism("x509", X509Attestation(signing_certificates=pair))
        await self.enrollments.put(
            self.instance, EnrollmentDocument(attestation=attestation, enrollment_group_id=name), None, actor="test"
        )

    async def key_group(self, name: str, key: bytes) -> None:
        """Enroll everything whose key is derived from `key`."""
        text = base64.b64encode(key).decode()
        attestation = AttestationMechanism("symmetricKey", symmetric_key=SymmetricKeys(text, text))
        await self.enrollments.put(
            self.instance, EnrollmentDocument(attestation=attestation, enrollment_group_id=name), None, actor="test"
        )

    async def individual(self, name: str, device: Holder, *, device_id: str | None = None) -> None:
        """Enroll one certificate."""
        await self.enrollments.put(self.instance, an_individual(name, device, device_id), None, actor="test")

    async def register(self, device: Holder, name: str | None = None) -> Registration:
        """Register with a certificate, under its common name unless told otherwise."""
        leaf = device.certificate
        claim = Claim(self.instance.id_scope, name or leaf.subject_cn or "", leaf, (), None)
        return await self.registrations.register(claim)

    async def register_by_key(self, name: str, group_key: bytes) -> Registration:
        resource = f"{self.instance.id_scope}/registrations/{name}"
        token = make_sas(resource, derive_device_key(group_key, name), SOON_S, "registration")
        return await self.registrations.register(Claim(self.instance.id_scope, name, None, (), token))


def an_individual(name: str, device: Holder, device_id: str | None = None) -> EnrollmentDocument:
    """Return the enrollment of one certificate."""
    pair = CertificatePair(CertificateEntry(device.certificate.pem()))
    attestation = AttestationMechanism("x509", X509Attestation(client_certificates=pair))
    return EnrollmentDocument(attestation=attestation, registration_id=name, device_id=device_id)


@contextlib.asynccontextmanager
async def a_dps(
    url: str, issuing: Callable[[Database, FakeClock], CertificateOrders | None] = lambda _database, _clock: None
) -> AsyncIterator[DpsWorld]:
    """Give a fresh service with one linked hub; `issuing` returns by whom devices are issued certificates."""
    clock, entropy = FakeClock(), SeededEntropy()
    database = await open_database(url, clock)
    try:
        issuer, instances = issuing(database, clock), Instances(database, clock, entropy)
        enrolled: Ref[Enrollments] = Ref()
        registered: Ref[Registrations] = Ref()
        grants = GrantsByEnrollment(instances, enrolled, registered)
        iothub = IotHub.of(database, clock, entropy, issuer=issuer, grants=grants)
        hub = await iothub.hubs.create("main", "hub.example", actor="test")
        await instances.create("main", "dps.example", actor="test")
        instance = await instances.link("main", hub.host, actor="test")
        hubs = HubsForDps(iothub.registry, iothub.credentials)
        orders = issuer or NO_ISSUER
        enrollments = enrolled.fill(Enrollments(database, clock, entropy, hubs, issuer=orders))
        registrations = registered.fill(
            Registrations(
                *(database, clock, entropy),
                instances=instances,
                enrollments=enrollments,
                hubs=hubs,
                issuer=orders,
            )
        )
        authorities = Authorities(database, clock, entropy)
        rooms = (instances, enrollments, authorities, registrations, iothub.registry)
        yield DpsWorld(database, clock, *rooms, instance, hub, iothub)
    finally:
        await database.close()
