"""Events of the certificate authority."""

from birthmark.store import Event


class CertificateIssued(Event, frozen=True, tag="ca.certificate_issued"):
    """A certificate was issued."""

    is_remembered = False
    device_id: str
    thumbprint: bytes
    profile: str

    @property
    def entity(self) -> str:
        return self.thumbprint.hex()


class RolloverMoved(Event, frozen=True, tag="ca.rollover_moved"):
    """A root rollover took a step, or ended."""

    root: str

    @property
    def entity(self) -> str:
        return self.root


class CertificateRevoked(Event, frozen=True, tag="ca.certificate_revoked"):
    """A certificate, a key (its digest) or both were revoked; `is_ca` if the certificate is a CA."""

    device_id: str
    thumbprint: bytes = b""
    key: bytes = b""
    is_ca: bool = False

    @property
    def entity(self) -> str:
        return f"{self.thumbprint.hex()}/{self.key.hex()}"
