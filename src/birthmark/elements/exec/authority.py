"""A CA for the proxy's own door: made when it starts, known to the one program, gone when it ends."""

import ssl
from datetime import timedelta
from ipaddress import ip_address

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import DNSName, GeneralName, IPAddress

from birthmark.clock import SystemClock, SystemEntropy
from birthmark.elements.exec.markers import in_memory
from birthmark.pki.issue import Issuer, issue, new_serial, self_signed
from birthmark.pki.names import name_of
from birthmark.pki.profiles import ROOT, SERVER

_LIFETIME = timedelta(days=30)


class Authority:
    """Certificates for the names of servers that the program means to talk to. The keys are in memory alone."""

    def __init__(self) -> None:
        self._entropy, self._now = SystemEntropy(), SystemClock().now()
        root_key, self._key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        name, serial = name_of("birthmark chip exec"), new_serial(self._entropy)
        root = self_signed(ROOT, name, root_key, serial=serial, now=self._now, lifetime=_LIFETIME)
        self._issuer = Issuer(root, root_key)
        self._contexts: dict[str, ssl.SSLContext] = {}

    @property
    def pem(self) -> str:
        return self._issuer.certificate.pem()

    def context_for(self, host: str) -> ssl.SSLContext:
        """Return the context that shows a certificate for `host`, and for the loopback address it is reached by."""
        if host not in self._contexts:
            self._contexts[host] = self._made(host)
        return self._contexts[host]

    def _made(self, host: str) -> ssl.SSLContext:
        names: list[GeneralName] = [_named(host), DNSName("localhost"), IPAddress(ip_address("127.0.0.1"))]
        certificate = issue(
            SERVER,
            name_of("birthmark chip exec"),
            self._key.public_key(),
            issuer=self._issuer,
            serial=new_serial(self._entropy),
            now=self._now,
            lifetime=_LIFETIME,
            san=list(dict.fromkeys(names)),
        )
        key = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(in_memory(key + certificate.pem().encode(), "proxy-door"))
        return context


def _named(host: str) -> GeneralName:
    try:
        return IPAddress(ip_address(host))
    except ValueError:
        return DNSName(host)
