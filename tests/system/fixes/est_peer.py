"""An EST server of somebody else: it issues for the name it chose, whatever is asked."""

import ssl
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from fixes.scene import Scene

from birthmark.est import wire
from birthmark.pki import certificate_profiles
from birthmark.pki.issuance import issue, new_serial
from birthmark.pki.names_and_registration_ids import name_of
from support.fakes import SeededEntropy
from support.pki.pki_builders import Holder, a_ca, a_device


def issuing_for(scene: Scene, name: str, config: Path) -> None:
    """Have a configuration ask such a server, whose CA the Birthmark server trusts."""
    url = an_est_server_for(scene, name)
    scene.must(f"birthmark dps ca create of-{name} other.pem --verified")
    scene.must(f"birthmark device enroll-group of-{name} --ca-name of-{name}")
    scene.must(
        f'sed -i \'s|^default = .*|default = "{url}"|; '
        f's|^trusted_certs = .*|trusted_certs = ["file://{scene.directory}/other.pem"]|\' {config}'
    )


def an_est_server_for(scene: Scene, name: str) -> str:
    """Return the URL of such a server, whose CA is in `other.pem`."""
    now = datetime.now(UTC)
    ca, entropy = a_ca(f"Other EST of {name}", now=now), SeededEntropy(3)
    (scene.directory / "other.pem").write_text(ca.certificate.pem())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = wire.parse_csr(self.rfile.read(int(self.headers["Content-Length"])))
            made = issue(
                certificate_profiles.DEVICE,
                name_of(name),
                request.public_key,
                issuer=ca.as_issuer,
                serial=new_serial(entropy),
                now=datetime.now(UTC),
            )
            self.answer(wire.render_certs_only([made]))

        def do_GET(self) -> None:
            self.answer(wire.render_certs_only([ca.certificate]))

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/pkcs7-mime; smime-type=certs-only")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = _context(scene, ca, now).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    scene.closing.callback(server.server_close)
    scene.closing.callback(server.shutdown)
    return f"https://127.0.0.1:{server.server_port}/.well-known/est"


def _context(scene: Scene, ca: Holder, now: datetime) -> ssl.SSLContext:
    here = (x509.IPAddress(IPv4Address("127.0.0.1")),)
    own = a_device(ca, "est", profile=certificate_profiles.SERVER, now=now, san=here)
    pair = scene.directory / "other-server.pem"
    pair.write_text(own.key_pem + own.certificate.pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    return context
