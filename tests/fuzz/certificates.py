"""What is done with a certificate or a request that a stranger showed: all of it, one thing after the other."""

import base64
import contextlib
from collections.abc import Sequence
from pathlib import Path
from random import Random

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.awsiot.rules.policy_variables import ConnectionContext, facts_of
from birthmark.ca.rules.certificate_name_policy import granted_subject
from birthmark.dps.wire import info_of
from birthmark.errors import BirthmarkError
from birthmark.est import wire as est
from birthmark.est.rules.reenrollment_and_channel_binding_checks import check_same_identity
from birthmark.keys.file_key import check_no_pkcs12, pem_of_key
from birthmark.pki import single_certificate_checks
from birthmark.pki.certificate_profiles import DEVICE, OCSP
from birthmark.pki.certificates import (
    Certificate,
    CertificateInvalidError,
    is_signed_by,
    parse_any,
    parse_bundle,
    parse_der,
    parse_pem,
    parse_with_library,
    pem_bundle,
)
from birthmark.pki.certs_only_cms import parse_certs_only
from birthmark.pki.csr import CertificateRequest, parse_csr
from birthmark.pki.der import element
from birthmark.pki.extension_parser import names_of
from birthmark.pki.fast_certificate_parser import P256_SPKI, parse_plain, text_of_plain
from birthmark.pki.hostname_verification import check_host
from birthmark.pki.issuance import LeafIssuer, issue
from birthmark.pki.names_and_registration_ids import common_name_of
from birthmark.pki.ocsp import OcspResponse, OcspStatus, build_answer, ids_of, parse_request
from birthmark.pki.path_validation import build_chain, check_dates
from birthmark.pki.pem_armor import unarmor
from fuzz import corpus
from fuzz.mutate import mutate_der, read_der, tlv
from support.fakes import NOON
from support.pki.crl_reader import check_crls, parse_crl
from support.pki.pki_builders import a_device

RESPONDER = a_device(profile=OCSP).as_issuer
OCSP_ANSWER = OcspResponse(b"", NOON, NOON)
ROOT, ISSUING, DEVICE_CERTIFICATE = (parse_der(one) for one in corpus.read("certificate")[:3])
_ECDSA_SHA256 = tlv(0x30, tlv(0x06, bytes.fromhex("2a8648ce3d040302")))

_ANYWHERE = 0.1
_REPEATED = 0.02
_POINT_BYTES, _POINT_AND_SIGNATURE_BYTES = 64, 64 + 68
_TAGS = (0, 1, 2, 3, 4, 6, 12, 19, 22, 23, 24, 30, 48, 49, 0x80, 0x85, 0xA0, 0xA3, 0xFF)


def use(certificate: Certificate) -> None:
    """Read all that a certificate promises, and ask every rule about it. Refusals of rules are answers."""
    _ = (certificate.subject_text, certificate.issuer_text, certificate.version, certificate.x5t_sha1)
    _ = (certificate.spki_der, certificate.is_self_signed, certificate.pem(), repr(certificate))
    assert parse_pem(certificate.pem()) == certificate
    info_of(certificate)
    facts_of(certificate, ConnectionContext(certificate, "d", "192.0.2.1", "x"))
    granted_subject(certificate.subject).public_bytes()
    with contextlib.suppress(ValueError, TypeError):  # documented; its callers refuse
        names_of(certificate.der)
    rules = (
        lambda: check_dates(certificate, NOON),
        lambda: single_certificate_checks.check_client(certificate),
        lambda: single_certificate_checks.check_ca(certificate),
        lambda: check_host(certificate, "d.example"),
        lambda: check_host(certificate, "192.0.2.1"),
        lambda: build_chain(certificate, (ISSUING,), (ROOT,), NOON),
        lambda: build_chain(DEVICE_CERTIFICATE, (certificate, ISSUING), (ROOT, certificate), NOON, allow_partial=True),
    )
    for rule in rules:
        with contextlib.suppress(BirthmarkError):
            rule()


def mutate_plain(random: Random, seeds: Sequence[bytes]) -> bytes:
    """Change some bytes of a plain certificate, mostly where it may stay plain: outside its key and signature."""
    if random.random() < _ANYWHERE:
        return mutate_der(random, seeds)
    if random.random() < _REPEATED:
        return _with_repeated_part(random, random.choice(seeds))
    changed = bytearray(random.choice(seeds))
    key = changed.index(P256_SPKI) + len(P256_SPKI)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(changed) - _POINT_AND_SIGNATURE_BYTES)
        changed[place if place < key else place + _POINT_BYTES] = random.choice((random.randrange(256), *_TAGS))
    return bytes(changed)


def _with_repeated_part(random: Random, der: bytes) -> bytes:
    """Repeat an RDN or an extension, up to several hundred times, with right lengths around it."""
    start, end = element(der, element(der, 0)[0])
    parts, at = [], start
    while at < end:
        parts.append(der[at : element(der, at)[1]])
        at += len(parts[-1])
    place = random.choice((3, 5, len(parts) - 1))  # issuer, subject, extensions
    outer = parts[place]
    if place == len(parts) - 1:
        outer = outer[element(outer, 0)[0] :]
    inside = outer[element(outer, 0)[0] :]
    first = inside[: element(inside, 0)[1]] if inside else b""
    grown = tlv(0x30, inside + first * random.choice((1, 2, 40, 300)))
    parts[place] = tlv(0xA3, grown) if place == len(parts) - 1 else grown
    return tlv(0x30, tlv(0x30, b"".join(parts)) + der[end:])


def plain(data: bytes) -> None:
    """Compare the parser of plain certificates with the library, which reads every field of them."""
    fields = parse_plain(data)
    if fields is None:
        raise CertificateInvalidError(detail="it is not plain")
    try:
        one = parse_with_library(data)
    except BirthmarkError as error:
        raise AssertionError("the library refuses what is plain") from error
    assert fields[:4] == (one.extensions, one.subject_der, one.issuer_der, one.spki_der)
    assert fields[4:] == (one.serial, one.not_before, one.not_after)
    assert one.version == one.parsed.version.value + 1
    assert text_of_plain(fields.subject) in {"", one.parsed.subject.rfc4514_string()}
    assert text_of_plain(fields.issuer) in {"", one.parsed.issuer.rfc4514_string()}
    assert one.subject_cn == common_name_of(one.parsed.subject)


def pkcs7(data: bytes) -> None:
    """Read the certificates of PKCS#7 as a file has them, and as roots that OpenSSL is to trust."""
    with contextlib.suppress(BirthmarkError):
        pem_bundle(data)
    for found in parse_bundle(data)[:4]:
        use(found)


def key_text(data: bytes) -> None:
    assert pem_of_key(pem_of_key(data)) == pem_of_key(data)
    check_no_pkcs12(Path("key"), data)


def ocsp_request(data: bytes) -> None:
    """Read what is asked, and answer it."""
    request = parse_request(data)
    known = dict.fromkeys(ids_of(ISSUING))
    found = [(one, OcspStatus(is_known=False)) for one in request.asked if one.issuer in known]
    if found:
        build_answer(RESPONDER, found, OCSP_ANSWER, nonce=request.nonce)


def certificate(data: bytes) -> None:
    use(parse_der(data))


def certificate_text(data: bytes) -> None:
    for parse in (unarmor, parse_any):
        with contextlib.suppress(BirthmarkError):
            parse(data)
    for found in parse_bundle(data)[:4]:
        use(found)


def signed(tbs: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return `tbs` with a good signature: what is wrong with it is found only by who reads it."""
    signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return tlv(0x30, tbs + _ECDSA_SHA256 + tlv(0x03, b"\0" + signature))


def first_of(der: bytes) -> bytes:
    """Return the first value in a SEQUENCE, as it stands: what is signed."""
    try:
        (_, content), *_ = read_der(der)
        tag, value = content[0]
    except (ValueError, TypeError, IndexError):
        return der
    return tlv(tag, value)


def chain(data: bytes) -> None:
    """Leaf, issuer and root in one SEQUENCE; each signed anew by who should sign it."""
    keys: Sequence[ec.EllipticCurvePrivateKey] = (corpus.ISSUING_KEY, corpus.ROOT_KEY, corpus.ROOT_KEY)
    try:
        (_, parts), *_ = read_der(data)
        tbs = [first_of(tlv(*part)) for part in parts]
    except (ValueError, TypeError):
        return
    found = [parse_der(signed(one, key)) for one, key in zip(tbs, keys, strict=False)]
    if not found:
        return
    for anchors, partial in ((found[2:] or [ROOT], False), ([ROOT, *found[1:]], True)):
        with contextlib.suppress(BirthmarkError):
            proven = build_chain(
                found[0], found[1:2], anchors, NOON, allow_partial=partial, purpose="1.3.6.1.5.5.7.3.2"
            )
            use(proven[0])
    build_chain(found[0], (), (ISSUING,), NOON, allow_partial=True)


def request(data: bytes) -> None:
    use_request(parse_csr(data))


def signed_request(data: bytes) -> None:
    use_request(parse_csr(signed(first_of(data), corpus.DEVICE_KEY)))


def use_request(asked: CertificateRequest) -> None:
    _ = (asked.subject_cn, asked.subject_text, asked.challenge_password, repr(asked))
    with contextlib.suppress(BirthmarkError):
        check_same_identity(asked, DEVICE_CERTIFICATE)
    subject = granted_subject(asked.subject, {"O": "Plant"})
    above = LeafIssuer(ISSUING, corpus.ISSUING_KEY)
    made = issue(DEVICE, subject, asked.public_key, issuer=above, serial=77, now=NOON, lifetime=DEVICE.lifetime)
    assert is_signed_by(made, ISSUING)


def cms(data: bytes) -> None:
    for found in parse_certs_only(data)[:4]:
        use(found)


def crl(data: bytes) -> None:
    """As it came, and signed anew by the CA it names."""
    for der in (data, signed(first_of(data), corpus.ISSUING_KEY)):
        with contextlib.suppress(BirthmarkError):
            listed = parse_crl(der)
            check_crls((DEVICE_CERTIFICATE, ISSUING), (listed,), NOON)
            check_crls((DEVICE_CERTIFICATE, DEVICE_CERTIFICATE), (listed,), NOON)


def est_body(data: bytes) -> None:
    for parse in (est.parse_certs_only, est.parse_csr_attributes, est.parse_csr):
        with contextlib.suppress(BirthmarkError):
            parse(data)


def csr_attributes(data: bytes) -> None:
    for attribute in est.parse_csr_attributes(data):
        assert attribute.oid
    est.parse_csr_attributes(base64.b64encode(data))


def basic(data: bytes) -> None:
    text = data.decode("latin-1")
    with contextlib.suppress(BirthmarkError):
        est.check_media_type(text)
    est.parse_basic(text)
