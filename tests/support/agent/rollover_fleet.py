"""Devices of their own trust: each keeps the roots it was handed by those it knew, and renews by EST over TLS."""

import base64
import http.client
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from birthmark.est import wire
from birthmark.pki.certificates import Certificate, is_signed_by, parse_bundle
from support.pki.pki_builders import a_csr, a_key, key_pem
from support.server.servers import RunningServer


@dataclass
class Device:
    """What one device remembers."""

    name: str
    directory: Path
    anchors: tuple[Certificate, ...]
    leaf: Certificate | None = None
    failures: list[str] = field(default_factory=list)

    def renew(self, server: RunningServer, authorization: str | None = None) -> None:
        """Fetch the anchors and get another certificate; what fails is remembered."""
        try:
            connection = self._connected(server)
            headers = {} if authorization is None else {"Authorization": authorization}
            bag = wire.parse_certs_only(self._asked(connection, "GET", "cacerts", headers))
            key = a_key()
            csr = wire.render_csr(a_csr(self.name, key=key))
            sent = {**headers, "Content-Type": wire.PKCS10}
            (leaf,) = wire.parse_certs_only(self._asked(connection, "POST", "simpleenroll", sent, csr))
            connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.failures.append(f"{self.name}: {type(error).__name__}: {error}")
            return
        self.leaf = leaf
        chain = [leaf, *(one for one in bag if one.is_ca and not one.is_self_signed)]
        self._file.write_text(key_pem(key) + "".join(one.pem() for one in chain))
        self.anchors = self._followed(bag)

    def is_verified(self) -> bool:
        """Say whether its certificate leads to a root it knows."""
        assert self.leaf is not None
        chain = parse_bundle(self._file.read_text())
        return any(is_signed_by(one, anchor) for one in chain for anchor in self.anchors)

    def _followed(self, bag: Sequence[Certificate]) -> tuple[Certificate, ...]:
        """A root is taken over when a known one has certified its key; one that is handed out no more is forgotten."""
        roots = [one for one in bag if one.is_self_signed]
        links = [one for one in bag if one.is_self_signed is False and one.is_ca]
        known = [one for one in self.anchors if one in roots]
        led = [
            root
            for root in roots
            for link in links
            if link.spki_der == root.spki_der and any(is_signed_by(link, anchor) for anchor in self.anchors)
        ]
        return tuple(dict.fromkeys([*known, *led])) or self.anchors

    def _connected(self, server: RunningServer) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cadata="".join(one.pem() for one in self.anchors))
        if self.leaf is not None:
            context.load_cert_chain(self._file)
        return http.client.HTTPSConnection(server.address, 8085, context=context, timeout=30)

    def _asked(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        operation: str,
        headers: dict[str, str],
        body: bytes = b"",
    ) -> bytes:
        connection.request(method, f"{wire.BASE_PATH}/{operation}", body or None, headers)
        answer = connection.getresponse()
        told = answer.read()
        if answer.status != 200:
            raise ValueError(f"{operation}: {answer.status} {told[:200]!r}")
        return told

    @property
    def _file(self) -> Path:
        return self.directory / f"{self.name}.pem"


@dataclass
class Fleet:
    """Many of them at one server."""

    server: RunningServer
    devices: list[Device]
    at_once: int = 8

    @classmethod
    def enrolled(cls, server: RunningServer, directory: Path, count: int, at_once: int = 8) -> "Fleet":
        """Make devices that know the server's root, each with its first certificate."""
        directory.mkdir()
        anchors = parse_bundle(Path(server.endpoints["trust_bundle"]).read_text())
        devices = [Device(f"device-{n}", directory, anchors) for n in range(count)]
        made = server.rows("pki", "user", "create", "factory", "--any-name")[0]
        basic = base64.b64encode(f"factory:{made['password']}".encode()).decode()
        fleet = cls(server, devices, at_once)
        fleet.renew(devices, f"Basic {basic}")
        return fleet

    def renew(self, devices: Sequence[Device], authorization: str | None = None) -> None:
        """Have them renew, some at a time."""
        with ThreadPoolExecutor(self.at_once) as pool:
            list(pool.map(lambda device: device.renew(self.server, authorization), devices))

    @property
    def failures(self) -> list[str]:
        return [failure for device in self.devices for failure in device.failures]
