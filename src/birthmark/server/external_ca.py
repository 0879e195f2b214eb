"""External CAs (an EST server or AWS Private CA): connections to them, and their CA certificates across a restart.

Their client code is loaded only if one is configured: most servers sign certificates themselves.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from birthmark.ca.external_ca_port import ExternalCa
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import BirthmarkError, about
from birthmark.est.client import Https
from birthmark.keys.file_key import FileKey
from birthmark.keys.pin import Pin
from birthmark.pki.certificates import MAX_BUNDLE_BYTES, Certificate, parse_bundle
from birthmark.server.data_dir import DataDirectory
from birthmark.server.est_settings import UpstreamTable
from birthmark.server.settings import Settings

log = logging.getLogger(__name__)
_FILE = "upstream.pem"
_AGAIN_S, _EVERY_S = 10.0, 900.0


class KeptUpstream(ExternalCa, Protocol):
    """An external CA whose CA certificates are refreshed periodically."""

    url: str

    async def refresh(self) -> None: ...


def upstream_of(settings: Settings, data: DataDirectory, clock: Clock, entropy: Entropy) -> KeptUpstream | None:
    """Return the external CA with the state from before the last stop; None if the server signs certificates itself.

    Raise the error of an invalid configuration file.
    """

    async def keep(certificates: tuple[Certificate, ...]) -> None:
        data.write(_FILE, "".join(one.pem() for one in certificates).encode(), is_secret=False)

    known: tuple[Certificate, ...] = ()
    with suppress(OSError, BirthmarkError):
        known = parse_bundle((data.path / _FILE).read_bytes()[:MAX_BUNDLE_BYTES])
    if (private := settings.ca.private_ca) is not None:
        from birthmark.server.aws_private_ca import private_ca_of

        return private_ca_of(private.arn, private.region, clock, entropy, keep=keep, certificates=known)
    if (table := settings.est.upstream) is None:
        return None
    from birthmark.est.upstream import EstUpstream

    password = None
    if table.password_file is not None:
        given = Pin.from_file(Path(table.password_file).expanduser())
        given.check_blanks()
        password = given.reveal()
    return EstUpstream(table.url, _links_of(table, clock), table.username, password, table.labels, keep, known)


def _links_of(table: UpstreamTable, clock: Clock) -> Callable[[], Https]:
    from birthmark.device_transports.identity_and_trust import ServerTrust, identity_of
    from birthmark.device_transports.transport_selection import open_links

    files = [Path(one).expanduser() for one in table.trusted_certs]

    def links() -> Https:
        trust = ServerTrust.of(files) if files else ServerTrust()
        identity = None
        if table.certificate is not None and table.key is not None:
            file = Path(table.certificate).expanduser()
            with about(file):
                chain = parse_bundle(file.read_bytes())
            identity = identity_of(FileKey.load(Path(table.key).expanduser()), chain)
        return open_links(identity, trust, clock).https()

    links()  # report file errors at start
    return links


async def run_ca_refresh_loop(upstream: KeptUpstream) -> None:
    """Refresh the CA certificates of the external CA periodically; never returns."""
    while True:
        pause = _EVERY_S
        try:
            await upstream.refresh()
        except (BirthmarkError, OSError) as error:
            reason = error.explain_cause() if isinstance(error, BirthmarkError) else str(error)
            log.warning("est.upstream_away", extra={"url": upstream.url, "reason": reason})
            pause = _AGAIN_S
        await asyncio.sleep(pause)
