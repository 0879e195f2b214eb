"""Renewal of the server certificate in a running server: reissue before expiry, or reload, without a restart."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from OpenSSL import SSL

from birthmark.errors import BirthmarkError
from birthmark.net.tls import server_context
from birthmark.pki.certificates import Certificate
from birthmark.pki.hostname_verification import check_host, hosts_of
from birthmark.pki.issuance import SigningKey
from birthmark.pki.single_certificate_checks import ChainError
from birthmark.supervised_tasks import cancel_and_wait, start_supervised

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 3600.0
_AGAIN_S = 10.0  # after a failure


class FreshContext:
    """The TLS context for new connections; open connections keep theirs.

    `load` returns chain and key, and new ones when the old ones expire soon. With `stamp`, it is called only after that
    value changes. With `now`, it is also called soon after the current certificate expires, or if that one is not yet
    valid.
    """

    def __init__(
        self,
        load: Callable[[], tuple[Sequence[Certificate], SigningKey]],
        look_every_s: float = _LOOK_EVERY_S,
        stamp: Callable[[], object] | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._now = now
        self._load = load
        self._look_every_s = look_every_s
        self._stamp = stamp
        self._seen = stamp() if stamp is not None else None  # load time of the served files
        self._told: tuple[object, str] | None = None  # last failed change and its reason
        chain, key = load()
        self._chain, self._leaf = list(chain), chain[0]
        self._context, self._for_people = _contexts(chain, key)
        self._task: asyncio.Task[None] | None = None

    def __call__(self) -> SSL.Context:
        return self._context

    def for_people(self) -> SSL.Context:
        """Return the TLS context for clients without a certificate, which requests none."""
        return self._for_people

    @property
    def leaf(self) -> Certificate:
        """The certificate that new connections get."""
        return self._leaf

    @property
    def certificate_error(self) -> str:
        """Why the current files were not loaded; empty if they are in use."""
        return "" if self._told is None else self._told[1]

    def is_good(self, now: datetime) -> bool:
        """Return whether the served certificate is within its validity period."""
        return self._leaf.not_before <= now <= self._leaf.not_after

    def covers(self, host: str) -> bool:
        """Return whether the certificate is valid for the host name `host`."""
        try:
            check_host(self._leaf, host)
        except ChainError:
            return False
        return True

    def hosts(self) -> Sequence[str]:
        """Return the names and addresses by which clients may call the server."""
        return hosts_of(self._leaf)

    def start(self) -> None:
        """Start the periodic check of the certificate."""
        self._task = start_supervised("the server's certificate", self._keep_fresh)

    async def stop(self) -> None:
        await cancel_and_wait(self._task)

    def refresh(self) -> None:
        """Load a new certificate if there is one; after a failure the old one remains until the next check."""
        self._told = None
        self._take_over()

    def refresh_if_changed(self) -> None:
        """Reload if the files changed since the last load; log a repeated failure once."""
        if self._stamp is None or self._stamp() != self._seen:
            self._take_over()

    def _take_over(self) -> None:
        seen = self._stamp() if self._stamp is not None else None
        try:
            chain, key = self._load()
        except BirthmarkError as error:
            reason = error.explain_cause()
            if (seen, reason) != self._told:
                self._told = seen, reason
                log.warning("server.certificate_not_renewed", extra={"reason": reason})
            return
        if list(chain) != self._chain:
            self._context, self._for_people = _contexts(chain, key)
            self._chain, self._leaf = list(chain), chain[0]
            log.info("server.certificate_renewed", extra={"not_after": self._leaf.not_after.isoformat()})
        self._seen, self._told = seen, None

    async def _keep_fresh(self) -> None:
        pause_s, waited_s = min(self._look_every_s, _AGAIN_S), 0.0
        while True:
            await asyncio.sleep(pause_s)
            waited_s += pause_s
            is_over = self._now is not None and not self.is_good(self._now())  # the clock may change
            if self._told or is_over or waited_s >= self._look_every_s:  # an event-driven check may have failed
                waited_s = 0.0
                self.refresh_if_changed()


def _contexts(chain: Sequence[Certificate], key: SigningKey) -> tuple[SSL.Context, SSL.Context]:
    parsed = [one.parsed for one in chain]
    return server_context(parsed, key), server_context(parsed, key, asks=False)
