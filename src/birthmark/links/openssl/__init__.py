"""Links by the standard library's OpenSSL: keys in files, or no key at all."""

from dataclasses import dataclass

from birthmark.clock import Clock
from birthmark.links.identity import FileIdentity, Trust
from birthmark.links.openssl.https import OpensslHttps
from birthmark.links.openssl.mqtt import OpensslMqtt


@dataclass(frozen=True, slots=True)
class OpensslLinks:
    """Makes connections; each reads key and certificate anew, so nothing secret is kept."""

    identity: FileIdentity | None
    trust: Trust
    clock: Clock

    def https(self) -> OpensslHttps:
        return OpensslHttps(self.identity, self.trust)

    def mqtt(self) -> OpensslMqtt:
        return OpensslMqtt(self.identity, self.trust, self.clock)


__all__ = ["OpensslHttps", "OpensslLinks", "OpensslMqtt"]
