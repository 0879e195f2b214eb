"""Certificates that were presented in refusals, found at whichever worker they were presented to."""

from birthmark.broker import Broker
from birthmark.pki.certificates import Certificate, Thumbprint, parse_der
from birthmark.refusals.ledger import PresentedRequest, PresentedThere
from birthmark.refusals.presented_certificates import CertificateNotKeptError, Find, PresentedCertificates


def presented_anywhere(presented: PresentedCertificates, broker: Broker) -> Find:
    """Return what looks here, and then asks the others."""

    async def find(thumbprint: Thumbprint) -> Certificate:
        try:
            return presented.get(thumbprint)
        except CertificateNotKeptError:
            for answer in await broker.ask_others(PresentedRequest(thumbprint)):
                if answer.der:
                    return parse_der(answer.der)
            raise

    return find


async def presented_here(presented: PresentedCertificates, asked: PresentedRequest) -> PresentedThere:
    """Answer another worker."""
    try:
        return PresentedThere(presented.get(Thumbprint(asked.thumbprint)).der)
    except CertificateNotKeptError:
        return PresentedThere(b"")
