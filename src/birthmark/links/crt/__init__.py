"""Links by awscrt: the private key stays in a PKCS#11 token, any library's.

awscrt speaks TLS 1.2 with keys in tokens, finds the key by its label alone, and logs in with a PIN that must not be
empty; tokens that need none take any. It opens a session of its own for each context and connection.
"""

from dataclasses import dataclass

from birthmark.links.crt.https import CrtHttps
from birthmark.links.crt.mqtt import CrtMqtt
from birthmark.links.identity import TokenIdentity, Trust


@dataclass(frozen=True, slots=True)
class CrtLinks:
    """Makes connections; the identity's token must stay open here, or its login ends."""

    identity: TokenIdentity
    trust: Trust

    def https(self) -> CrtHttps:
        return CrtHttps(self.identity, self.trust)

    def mqtt(self) -> CrtMqtt:
        return CrtMqtt(self.identity, self.trust)


__all__ = ["CrtHttps", "CrtLinks", "CrtMqtt"]
