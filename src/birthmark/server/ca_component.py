"""The certificate authority as a component of a server."""

from collections import Counter
from collections.abc import Iterable, Sequence

from birthmark import metric_catalog
from birthmark.ca.domain_events import CertificateIssued, CertificateRevoked
from birthmark.devices.certificate_records import CertificateRecords
from birthmark.metric_catalog import Sample
from birthmark.protocol_component import Component
from birthmark.store.database import Heard


class CaComponent(Component):
    """Certificate authority component, with counts of the certificates that this worker issued and revoked."""

    def __init__(self, devices: CertificateRecords) -> None:
        self.devices = devices
        self._authority = devices.authority
        self._issued: Counter[str] = Counter()
        self._revoked = 0
        devices.authority.database.on_events(self._count)

    def _count(self, events: Sequence[Heard], is_sure: bool) -> None:  # store signature
        for number, event in events if is_sure else ():
            if not number:
                continue  # counted by another worker
            if isinstance(event, CertificateIssued):
                self._issued[event.profile] += 1
            elif isinstance(event, CertificateRevoked):
                self._revoked += 1

    def samples(self) -> Iterable[Sample]:
        for profile, count in sorted(self._issued.items()):
            yield Sample(metric_catalog.ISSUED, (profile,), count)
        yield Sample(metric_catalog.REVOKED, (), self._revoked)
        hierarchy = self._authority.hierarchy
        ends = {"root": hierarchy.anchor} | {str(of): one.certificate for of, one in hierarchy.issuers.items()}
        for of, certificate in sorted(ends.items()):
            yield Sample(metric_catalog.CERTIFICATE_ENDS, (of,), certificate.not_after.timestamp())
