"""What is done at a server by its operators and its devices, for `interleaved`: each operation on what `fill` made."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.awsiot.model import CertificateMode, CertificateStatus, PrincipalType, ThingName, target_of_group
from birthmark.awsiot.rules.policy_variables import ConnectionContext
from birthmark.awsiot.wire.shadows import ShadowRequest
from birthmark.devices.revocation import DeviceRevoker
from birthmark.dps.enrollment_document import (
    AttestationMechanism,
    CaReferences,
    CertificateEntry,
    CertificatePair,
    EnrollmentDocument,
    X509Attestation,
)
from birthmark.dps.model import Claim, Instance
from birthmark.est.model import EstCaller
from birthmark.est.wire import render_basic
from birthmark.iothub.model import AuthenticationType, C2dMessage, DeviceAuthentication, Hub
from birthmark.iothub.wire import DeviceBody, HubUser
from birthmark.net.tls import TlsPeer
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.server.composition_root import ServerServices
from support.kills.interleaved import Operation
from support.pki.pki_builders import Holder, a_ca, a_csr, a_device

MAKER, OTHER, UNUSED, CHIPS = (a_ca(name) for name in ("Maker", "Other", "Unused", "Chips"))
OWN, THING, DEVICE, FRESH = (a_device(None, name) for name in ("own", "thing-1", "device-1", "fresh"))
OF_GROUP, BY_CA, CHIP = a_device(MAKER, "of-group"), a_device(OTHER, "by-ca"), a_device(CHIPS, "chip-1")
REQUESTS = {name: base64.b64encode(a_csr(name)) for name in ("bound", "chip-1")}
OPERATOR = Principal(PrincipalKind.OPERATOR, "test")
ME: dict[str, Any] = {"actor": "test"}
ALLOWED, DENIED = (
    json.dumps({"Version": "2012-10-17", "Statement": {"Effect": effect, "Action": "iot:*", "Resource": "*"}})
    for effect in ("Allow", "Deny")
)


def instance(rooms: ServerServices, name: str = "main") -> Instance:
    return rooms.instances.by_name(name)


def hub(rooms: ServerServices) -> Hub:
    return rooms.iothub.hubs.by_name("hub")


def individual(name: str, holder: Holder, status: str = "enabled") -> EnrollmentDocument:
    pair = CertificatePair(CertificateEntry(holder.certificate.pem()))
    attestation = AttestationMechanism("x509", X509Attestation(client_certificates=pair))
    return EnrollmentDocument(attestation, registration_id=name, provisioning_status=status)


def group(name: str, ca: str, status: str = "enabled") -> EnrollmentDocument:
    attestation = AttestationMechanism("x509", X509Attestation(ca_references=CaReferences(ca)))
    return EnrollmentDocument(attestation, enrollment_group_id=name, provisioning_status=status)


def claim(rooms: ServerServices, holder: Holder) -> Claim:
    leaf = holder.certificate
    return Claim(instance(rooms).id_scope, leaf.subject_cn or "", leaf, (), None)


def by(holder: Holder) -> DeviceAuthentication:
    return DeviceAuthentication(AuthenticationType.SELF_SIGNED, holder.certificate.thumbprint)


def peer(holder: Holder | None) -> TlsPeer:
    return TlsPeer(None if holder is None else holder.certificate, (), b"", "", "TLSv1.3")


def with_password(name: str) -> EstCaller:
    return EstCaller(peer(None), render_basic(name, "right"), "192.0.2.1")


def id_of(holder: Holder) -> str:
    return holder.certificate.thumbprint.hex()


async def fill(rooms: ServerServices) -> None:
    """Put something on record everywhere."""
    await rooms.iothub.hubs.create("hub", "hub.example", **ME)
    for name, host in (("main", "dps.example"), ("spare", "spare.example")):
        await rooms.instances.create(name, host, **ME)
    await rooms.instances.link("main", "hub.example", **ME)
    scope = instance(rooms).id_scope
    for name, ca in (("maker", MAKER), ("unused", UNUSED)):
        await rooms.authorities.add(scope, name, ca.certificate, is_verified=True, **ME)
    await rooms.enrollments.put(instance(rooms), individual("own", OWN), None, **ME)
    await rooms.enrollments.put(instance(rooms), group("group", "maker"), None, **ME)
    await rooms.registrations.register(claim(rooms, OF_GROUP))
    await rooms.iothub.registry.put(hub(rooms), "device-1", DeviceBody("device-1"), by(DEVICE), None, **ME)
    aws = rooms.aws
    await aws.things.create(ThingName("thing-1"), {}, None, None, **ME)
    await aws.certificates.register(THING.certificate.pem(), CertificateStatus.ACTIVE, **ME)
    for name in ("policy", "other"):
        await aws.policies.create(name, ALLOWED, **ME)
    await aws.policies.attach("policy", id_of(THING), **ME)
    await aws.thing_groups.create(ThingName("things"), None, None, None, **ME)
    await aws.things.types.create(ThingName("type"), {}, **ME)
    pem = OTHER.certificate.pem()
    given: dict[str, Any] = {"is_active": True, "auto_registration": False, "registration": None}
    await aws.authorities.register(pem, None, CertificateMode.SNI_ONLY, **given, **ME)
    await rooms.authority.note_issuers()
    await rooms.credentials.add_user("bound", "right", device_id="bound", **ME)
    await rooms.credentials.accept_ca(CHIPS.certificate, any_name=False, **ME)


async def report(rooms: ServerServices) -> None:
    device = await rooms.iothub.registry.device(hub(rooms), "device-1")
    await rooms.iothub.twins.report(hub(rooms), device, {"b": 1}, None)


def lose(name: str) -> Operation:
    return lambda r: DeviceRevoker(r.devices).revoke(name, OPERATOR, RevocationReason.UNSPECIFIED, block=True)


MAIL: dict[str, Any] = {"message_id": "m", "feedback": "full", "expiry": None}
SHADOW = ShadowRequest({"state": {"desired": {"a": 1}}})
OPERATIONS: Mapping[str, Operation] = {
    "register own": lambda r: r.registrations.register(claim(r, OWN)),
    "register of-group": lambda r: r.registrations.register(claim(r, OF_GROUP)),
    "enroll own, disabled": lambda r: r.enrollments.put(instance(r), individual("own", OWN, "disabled"), None, **ME),
    "enroll of-group, disabled": lambda r: r.enrollments.put(
        instance(r), individual("of-group", FRESH, "disabled"), None, **ME
    ),
    "enroll at spare": lambda r: r.enrollments.create(instance(r, "spare"), individual("fresh", FRESH), **ME),
    "a group of an unused CA": lambda r: r.enrollments.put(instance(r), group("another", "unused"), None, **ME),
    "disable the group": lambda r: r.enrollments.put(instance(r), group("group", "maker", "disabled"), None, **ME),
    "remove own": lambda r: r.enrollments.delete(instance(r).id_scope, "own", None, is_group=False, **ME),
    "remove the group": lambda r: r.enrollments.delete(instance(r).id_scope, "group", None, is_group=True, **ME),
    "take own back": lambda r: r.enrollments.revoke_device(instance(r), "own", "lost", **ME),
    "take of-group back": lambda r: r.enrollments.revoke_device(instance(r), "of-group", "lost", **ME),
    "remove the unused CA": lambda r: r.authorities.remove(instance(r).id_scope, "unused", **ME),
    "remove the maker's CA": lambda r: r.authorities.remove(instance(r).id_scope, "maker", **ME),
    "a CA at spare": lambda r: r.authorities.add(
        instance(r, "spare").id_scope, "ca", MAKER.certificate, is_verified=True, **ME
    ),
    "remove spare": lambda r: r.instances.delete("spare", **ME),
    "release of-group": lambda r: r.registrations.release(instance(r), "of-group", **ME),
    "remove the hub": lambda r: r.iothub.hubs.delete("hub", **ME),
    "a new device": lambda r: r.iothub.registry.put(hub(r), "fresh", DeviceBody("fresh"), by(FRESH), None, **ME),
    "another certificate": lambda r: r.iothub.registry.put(
        hub(r), "device-1", DeviceBody("device-1"), by(FRESH), "*", **ME
    ),
    "disable the device": lambda r: r.iothub.registry.set_enabled(hub(r), "device-1", is_enabled=False, **ME),
    "remove the device": lambda r: r.iothub.registry.remove(hub(r), "device-1", None, **ME),
    "take the device back": lambda r: r.iothub.registry.revoke(hub(r), "device-1", "lost", **ME),
    "report": report,
    "desire": lambda r: r.iothub.twins.desire(
        hub(r), "device-1", {"properties": {"desired": {"a": 2}}}, None, replaces=False, **ME
    ),
    "a message": lambda r: r.iothub.c2d.send(hub(r), "device-1", C2dMessage(b"m", {}, {}), **MAIL, **ME),
    "a thing of the type": lambda r: r.aws.things.create(ThingName("fresh"), {}, "type", None, **ME),
    "deprecate the type": lambda r: r.aws.things.types.deprecate("type", undo=False, **ME),
    "remove the thing": lambda r: r.aws.things.delete("thing-1", None, **ME),
    "into the group": lambda r: r.aws.thing_groups.add("things", "thing-1", **ME),
    "remove the things' group": lambda r: r.aws.thing_groups.delete("things", None, **ME),
    "tag the group": lambda r: r.aws.tags.add("thinggroup", "things", {"site": "7"}, **ME),
    "a group below": lambda r: r.aws.thing_groups.create(ThingName("below"), None, None, "things", **ME),
    "a policy on the group": lambda r: r.aws.policies.attach("other", target_of_group("things"), **ME),
    "index things": lambda r: r.aws.index.configure({"thingIndexingMode": "REGISTRY"}, None, **ME),
    "attach": lambda r: r.aws.attachments.attach("thing-1", id_of(THING), PrincipalType.EXCLUSIVE, **ME),
    "attach the other policy": lambda r: r.aws.policies.attach("other", id_of(THING), **ME),
    "detach the policy": lambda r: r.aws.policies.detach("policy", id_of(THING), **ME),
    "remove the other policy": lambda r: r.aws.policies.delete("other", **ME),
    "another version": lambda r: r.aws.policies.add_version("policy", DENIED, as_default=True, **ME),
    "activate": lambda r: r.aws.certificates.set_status(id_of(THING), CertificateStatus.ACTIVE, **ME),
    "revoke at AWS": lambda r: r.aws.certificates.set_status(id_of(THING), CertificateStatus.REVOKED, **ME),
    "by the CA": lambda r: r.aws.certificates.register_by_ca(
        BY_CA.certificate.pem(), None, CertificateStatus.ACTIVE, **ME
    ),
    "disable the CA": lambda r: r.aws.authorities.update(
        id_of(OTHER), is_active=False, auto_registration=None, registration=None, remove_registration=False, **ME
    ),
    "a shadow": lambda r: r.aws.shadows.update(ThingName("thing-1"), "", SHADOW),
    "issue by password": lambda r: r.est.enroll(REQUESTS["bound"], with_password("bound")),
    "issue by the maker's": lambda r: r.est.enroll(REQUESTS["chip-1"], EstCaller(peer(CHIP), None, "192.0.2.1")),
    "remove the user": lambda r: r.credentials.remove_user("bound", **ME),
    "remove the maker": lambda r: r.credentials.remove_ca(CHIPS.certificate.thumbprint, **ME),
    **{f"lose {name}": lose(name) for name in ("own", "of-group", "device-1", "thing-1", "bound", "chip-1")},
}
AFTERWARDS: Mapping[str, Operation] = {
    "own registers": lambda r: r.registrations.attester.attest(claim(r, OWN)),
    "of-group registers": lambda r: r.registrations.attester.attest(claim(r, OF_GROUP)),
    **{
        f"{name} connects": lambda r, name=name, holder=holder: r.iothub.registry.authenticate(  # type: ignore[misc]
            HubUser("hub.example", name, None, ""), peer(holder), None
        )
        for name, holder in (("device-1", DEVICE), ("own", OWN), ("of-group", OF_GROUP))
    },
    "thing-1 connects": lambda r: r.aws.devices.admit(
        ConnectionContext(THING.certificate, "thing-1", "192.0.2.1", "localhost")
    ),
    "bound is known": lambda r: r.est.callers.proofs(with_password("bound")),
    "chip-1 is known": lambda r: r.est.callers.proofs(EstCaller(peer(CHIP), None, "192.0.2.1")),
}
