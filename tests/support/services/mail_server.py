"""A real mail server (nodemailer's smtp-server) with a certificate, and the mailer that may use it."""

import json
import ssl
import subprocess
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography.x509 import IPAddress

from birthmark.outbound.mail_config import Tls
from birthmark.outbound.smtp_client import Mailer
from birthmark.outbound.ssrf_guard import networks_of
from birthmark.pki.certificate_profiles import SERVER
from support.pki.pki_builders import a_ca, a_device
from support.server.servers import free_address

CA = a_ca("Mail", now=datetime.now(UTC))
LOOPBACK = networks_of(["127.0.0.0/8"])


class MailServer:
    def __init__(self, directory: Path, shows: str = "") -> None:
        self.address, self.directory = free_address(), directory
        here = (IPAddress(IPv4Address(shows or self.address)),)
        held = a_device(CA, "mail", profile=SERVER, san=here, now=datetime.now(UTC))
        (directory / "key.pem").write_text(held.key_pem)
        (directory / "cert.pem").write_text(held.certificate.pem())
        script = Path(__file__).with_name("node_smtp.js")
        words = ["node", str(script), self.address, str(directory / "key.pem"), str(directory / "cert.pem")]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.port = int(self.line()["port"])

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def mailer(self, password: str = "right", *, ca: str | None = None) -> Mailer:
        context = ssl.create_default_context(cadata=CA.certificate.pem() if ca is None else ca)
        self.let_password_be(password)
        file, sender = self.directory / "password", "Birthmark <birthmark@plant.example>"
        return Mailer(self.address, self.port, Tls.STARTTLS, sender, "birthmark", file, context, LOOPBACK)

    def let_password_be(self, password: str) -> None:
        (self.directory / "password").write_text(f"{password}\n")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
