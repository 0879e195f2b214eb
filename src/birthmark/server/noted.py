"""The server's own certificates in the inventory: each that is served is asked for its revocation as any other."""

import asyncio
import logging

from birthmark.ca.service import CertificateAuthority
from birthmark.errors import BirthmarkError
from birthmark.pki.profiles import SERVER
from birthmark.server.certificate import FreshContext

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 30.0


async def keep_noted(authority: CertificateAuthority, context: FreshContext) -> None:
    """Put the server's certificate and CAs on record, and each that comes in their place. Never ends by itself."""
    noted = None
    while True:
        if (leaf := context.leaf) != noted:
            try:
                await authority.note_issuers()
                await authority.note(SERVER, leaf)
                noted = leaf
            except BirthmarkError as error:
                log.warning("server.certificate_not_noted", extra={"reason": error.explain_cause()})
        await asyncio.sleep(_LOOK_EVERY_S)
