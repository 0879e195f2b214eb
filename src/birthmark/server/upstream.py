"""The EST server that signs for this one: connections to it, as the configuration says, and its CAs over a restart."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

from birthmark.clock import Clock
from birthmark.errors import BirthmarkError
from birthmark.est.client import Https
from birthmark.est.upstream import EstUpstream
from birthmark.keys.file_key import FileKey
from birthmark.keys.pin import Pin
from birthmark.links.choose import open_links
from birthmark.links.identity import Trust, identity_of
from birthmark.pki.certificates import MAX_BUNDLE_BYTES, Certificate, parse_bundle
from birthmark.server.data_dir import DataDirectory
from birthmark.server.est_settings import UpstreamTable

log = logging.getLogger(__name__)
_FILE = "upstream.pem"
_AGAIN_S, _EVERY_S = 10.0, 900.0


def upstream_of(table: UpstreamTable, data: DataDirectory, clock: Clock) -> EstUpstream:
    """Return the upstream, with what it told before the last stop. Raise what its files are refused for."""
    files = [Path(one).expanduser() for one in table.trusted_certs]

    def links() -> Https:
        trust = Trust.of(files) if files else Trust()
        identity = None
        if table.certificate is not None and table.key is not None:
            chain = parse_bundle(Path(table.certificate).expanduser().read_bytes())
            identity = identity_of(FileKey.load(Path(table.key).expanduser()), chain)
        return open_links(identity, trust, clock).https()

    async def keep(found: tuple[Certificate, ...]) -> None:
        data.write(_FILE, "".join(one.pem() for one in found).encode(), is_secret=False)

    links()  # what is wrong with the files is said at the start
    password = None if table.password_file is None else Pin.from_file(Path(table.password_file).expanduser()).reveal()
    known: tuple[Certificate, ...] = ()
    with suppress(OSError, BirthmarkError):
        known = parse_bundle((data.path / _FILE).read_bytes()[:MAX_BUNDLE_BYTES])
    return EstUpstream(table.url, links, table.username, password, table.labels, keep, known)


async def keep_known(upstream: EstUpstream) -> None:
    """Ask for the CAs of the upstream, now and then again. Never ends by itself."""
    while True:
        pause = _EVERY_S
        try:
            await upstream.refresh()
        except (BirthmarkError, OSError) as error:
            reason = error.explain_cause() if isinstance(error, BirthmarkError) else str(error)
            log.warning("est.upstream_away", extra={"url": upstream.url, "reason": reason})
            pause = _AGAIN_S
        await asyncio.sleep(pause)
