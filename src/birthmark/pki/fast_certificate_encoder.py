"""Templates for fast certificate encoding: shared parts are cut from a certificate built by the library.

Building each certificate with the library's objects costs four times its signature. A template is built by the same
builder as every other certificate, with a temporary key. The result is therefore identical to a built certificate.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from birthmark.pki.certificates import Certificate, thumbprint_of
from birthmark.pki.der import BIT_STRING, EXPLICIT_0, SEQUENCE, element, positive, time, wrap
from birthmark.pki.extension_parser import Extensions

_VERSION_3 = bytes.fromhex("a003020102")
_EXPLICIT_3 = 0xA3
_ONE_SERIAL = 1


@dataclass(frozen=True, slots=True)
class CertificateTemplate:
    """Shared parts of certificates of one issuer and profile.

    The subject key identifier is inserted between two parts.
    """

    algorithm: bytes
    issuer_der: bytes
    above_key_id: bytes
    below_key_id: bytes
    says: Mapping[str, Any]
    """Content of `Extensions`, except for the key."""

    def build_certificate(
        self,
        subject_der: bytes,
        spki_der: bytes,
        *,
        serial: int,
        not_before: datetime,
        not_after: datetime,
        sign: Callable[[bytes], bytes],
    ) -> Certificate:
        """Return a certificate signed by `sign`; times in UTC with whole seconds."""
        key_id = key_id_of(spki_der)
        signed = wrap(
            SEQUENCE,
            _VERSION_3,
            positive(serial),
            self.algorithm,
            self.issuer_der,
            wrap(SEQUENCE, time(not_before), time(not_after)),
            subject_der,
            spki_der,
            self.above_key_id,
            key_id,
            self.below_key_id,
        )
        der = wrap(SEQUENCE, signed, self.algorithm, wrap(BIT_STRING, b"\0", sign(signed)))
        says = Extensions(**self.says, subject_key_id=key_id)
        return Certificate(
            der, thumbprint_of(der), says, subject_der, self.issuer_der, spki_der, serial, not_before, not_after
        )


def create_template(model: Certificate) -> CertificateTemplate:
    """Return the template of certificates that differ from `model` in serial number, dates, subject and key."""
    der = model.der
    at, _ = element(der, element(der, 0)[0])
    assert der[at] == EXPLICIT_0  # noqa: S101 - extensions imply a version
    ends = [element(der, at)[1]]
    while der[ends[-1]] != _EXPLICIT_3:
        ends.append(element(der, ends[-1])[1])
    serial_end, algorithm_end = ends[_ONE_SERIAL], ends[_ONE_SERIAL + 1]
    extensions = der[ends[-1] : element(der, ends[-1])[1]]
    above, _, below = extensions.partition(key_id_of(model.spki_der))
    says = {one.name: getattr(model.extensions, one.name) for one in fields(Extensions)}
    del says["subject_key_id"]
    return CertificateTemplate(der[serial_end:algorithm_end], model.issuer_der, above, below, says)


def key_id_of(spki_der: bytes) -> bytes:
    """Return the key identifier by method 1 of RFC 5280 section 4.2.1.2."""
    inside, _ = element(spki_der, 0)
    bits, end = element(spki_der, element(spki_der, inside)[1])
    return hashlib.sha1(spki_der[bits + 1 : end], usedforsecurity=False).digest()
