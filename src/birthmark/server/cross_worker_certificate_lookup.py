"""Presented certificates of refusals, from the worker to which they were presented."""

from birthmark.broker import Broker
from birthmark.pki.certificates import Certificate, Thumbprint, parse_der
from birthmark.refusals.ledger import PresentedRequest, PresentedThere
from birthmark.refusals.presented_certificates import CertificateNotKeptError, Find, PresentedCertificates


def create_cluster_lookup(presented: PresentedCertificates, broker: Broker) -> Find:
    """Return a lookup that searches this worker and then queries the other workers."""

    async def find(thumbprint: Thumbprint) -> Certificate:
        try:
            return presented.get(thumbprint)
        except CertificateNotKeptError:
            for answer in await broker.ask_others(PresentedRequest(thumbprint)):
                if answer.der:
                    return parse_der(answer.der)
            raise

    return find


async def presented_here(presented: PresentedCertificates, request: PresentedRequest) -> PresentedThere:
    """Return a presented certificate to another worker; empty if it is not stored."""
    try:
        return PresentedThere(presented.get(Thumbprint(request.thumbprint)).der)
    except CertificateNotKeptError:
        return PresentedThere(b"")
