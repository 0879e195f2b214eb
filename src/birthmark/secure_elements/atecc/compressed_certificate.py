"""Compressed certificate: the device-specific fields in the 72 bytes of a slot.

    0-63   signature: r, s
    64-66  year - 2000 (5 bits), month (4), day (5), hour (5), validity in years (5); 0 years: no end
    67-68  signer id
    69     template id, chain id
    70     source of the serial number, format version
    71     reserved

All other fields are taken from a template that both sides know (`certificate_rebuild`). Format 0; newer formats are
rejected. Source: Microchip's cryptoauthlib (atcacert) and application note AN_8974.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from birthmark.pki.certificates import CertificateInvalidError

COMPRESSED_BYTES = 72
SIGNATURE_BYTES = 64
NO_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
FROM_KEY_AND_DATES = 0xA
"""Source of the serial number, the only one in use: a digest of public key and dates."""
_FIRST_YEAR, _LAST_YEAR, _MAX_YEARS = 2000, 2031, 31


@dataclass(frozen=True, slots=True)
class CompressedCertificate:
    """Content of the slot."""

    signature: bytes
    issued: datetime
    years: int
    signer_id: bytes
    template: int
    chain: int
    serial_source: int = FROM_KEY_AND_DATES

    @property
    def ends(self) -> datetime:
        """The end of validity: the same day and hour, years later."""
        if self.years == 0:
            return NO_END
        return self.issued.replace(year=self.issued.year + self.years)

    @property
    def dates(self) -> bytes:
        """The three bytes of the dates, also an input of the serial number."""
        when = self.issued
        number = when.year - _FIRST_YEAR
        for value, bits in ((when.month, 4), (when.day, 5), (when.hour, 5), (self.years, 5)):
            number = number << bits | value
        return number.to_bytes(3, "big")

    def render(self) -> bytes:
        """Return the 72 bytes."""
        tail = bytes((self.template << 4 | self.chain, self.serial_source << 4, 0))
        return self.signature + self.dates + self.signer_id + tail


def parse_compressed(raw: bytes) -> CompressedCertificate:
    """Parse the bytes. Raise `CertificateInvalidError`."""
    if len(raw) != COMPRESSED_BYTES:
        raise CertificateInvalidError(detail=f"a compressed one has {COMPRESSED_BYTES} bytes, not {len(raw)}")
    if not any(raw) or set(raw) == {0xFF}:
        raise CertificateInvalidError(detail="the slot is blank")
    version = raw[70] & 0x0F
    if version != 0 or raw[71] != 0:
        raise CertificateInvalidError(detail=f"its format is {version}")
    number = int.from_bytes(raw[64:67], "big")
    years, hour, day, month = number & 31, number >> 5 & 31, number >> 10 & 31, number >> 15 & 15
    try:
        issued = datetime(_FIRST_YEAR + (number >> 19), month, day, hour, tzinfo=UTC)
        parsed = CompressedCertificate(raw[:64], issued, years, raw[67:69], raw[69] >> 4, raw[69] & 15, raw[70] >> 4)
        _ = parsed.ends  # February 29 has no anniversary in most years
    except ValueError as error:
        raise CertificateInvalidError(detail=f"its dates are not valid: {error}") from error
    return parsed


def build_compressed(
    signature: bytes, issued: datetime, years: int, signer_id: bytes, *, template: int, chain: int
) -> CompressedCertificate:
    """Return a validated compressed certificate to write.

    Raise `CertificateInvalidError` for values that do not fit.
    """
    is_whole = issued == issued.replace(minute=0, second=0, microsecond=0)
    if issued.tzinfo is None or not _FIRST_YEAR <= issued.year <= _LAST_YEAR or not is_whole:
        raise CertificateInvalidError(detail=f"{issued} is not a full hour of the years {_FIRST_YEAR} to {_LAST_YEAR}")
    made = CompressedCertificate(signature, issued, years, signer_id, template, chain)
    if not 0 <= years <= _MAX_YEARS or len(signature) != SIGNATURE_BYTES or len(signer_id) != 2:  # noqa: PLR2004
        raise CertificateInvalidError(detail="a field is too long")
    return parse_compressed(made.render())
