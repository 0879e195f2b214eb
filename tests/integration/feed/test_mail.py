"""Mail by a real server: what it takes, what it never takes, and what it may take later."""

import json
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import IPAddress

from birthmark.outbound.mail import MailAddressError, Mailer, Tls, address_of
from birthmark.outbound.sender import NotAnsweredError, RefusedByReceiverError
from birthmark.pki.profiles import SERVER
from pki_builders import a_ca, a_device
from servers import free_address

pytestmark = [pytest.mark.anyio, pytest.mark.integration]
CA = a_ca("Mail", now=datetime.now(UTC))


class MailServer:
    def __init__(self, directory: Path) -> None:
        self.address = free_address()
        here = (IPAddress(IPv4Address(self.address)),)
        held = a_device(CA, "mail", profile=SERVER, san=here, now=datetime.now(UTC))
        (directory / "key.pem").write_text(held.key_pem)
        (directory / "cert.pem").write_text(held.certificate.pem())
        script = Path(__file__).parents[2] / "node_smtp.js"
        words = ["node", str(script), self.address, str(directory / "key.pem"), str(directory / "cert.pem")]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.port = int(self.line()["port"])

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def mailer(self, password: str = "right", *, ca: str | None = None) -> Mailer:
        context = ssl.create_default_context(cadata=CA.certificate.pem() if ca is None else ca)
        sender = "birthmark@plant.example"
        return Mailer(self.address, self.port, Tls.STARTTLS, sender, "birthmark", password, context)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MailServer]:
    made = MailServer(tmp_path)
    yield made
    made.process.kill()
    made.process.communicate()


async def test_a_mail_goes_by_tls_in_the_name_of_a_user(server: MailServer) -> None:
    await server.mailer().send("ops@plant.example", "CRITICAL: disk", "full\nénd\n.\n", "one")
    got = server.line()
    assert (got["from"], [one["address"] for one in got["to"]], got["secure"]) == (
        "birthmark@plant.example",
        ["ops@plant.example"],
        True,
    )
    assert "Subject: CRITICAL: disk" in got["text"]
    assert "Auto-Submitted: auto-generated" in got["text"]
    assert "Message-ID: <one@plant.example>" in got["text"]


async def test_a_long_subject_stays_in_its_line(server: MailServer) -> None:
    subject = "WARNING: " + "x" * 100
    await server.mailer().send("ops@plant.example", subject, "text", "one")
    assert f"Subject: {subject}\r\n" in server.line()["text"]


async def test_a_subject_cannot_add_a_header(server: MailServer) -> None:
    with pytest.raises(ValueError, match="may not contain"):
        await server.mailer().send("ops@plant.example", "one\r\nBcc: all@plant.example", "text", "one")


async def test_what_it_never_takes_is_told_from_what_it_may_take_later(server: MailServer) -> None:
    with pytest.raises(RefusedByReceiverError) as refused:
        await server.mailer().send("nobody@plant.example", "s", "t", "one")
    assert "550" in refused.value.explain_cause()
    with pytest.raises(NotAnsweredError) as later:
        await server.mailer().send("later@plant.example", "s", "t", "one")
    assert not isinstance(later.value, RefusedByReceiverError)


async def test_a_wrong_password_is_said(server: MailServer) -> None:
    with pytest.raises(RefusedByReceiverError) as refused:
        await server.mailer("wrong").send("ops@plant.example", "s", "t", "one")
    assert "535" in refused.value.explain_cause()
    assert "wrong" not in repr(server.mailer("wrong"))


async def test_a_server_that_shows_another_certificate_gets_no_password(server: MailServer) -> None:
    other = server.mailer(ca=a_ca("Other", now=datetime.now(UTC)).certificate.pem())
    with pytest.raises(NotAnsweredError) as refused:
        await other.send("ops@plant.example", "s", "t", "one")
    assert "CERTIFICATE_VERIFY_FAILED" in refused.value.explain_cause()


async def test_a_password_is_not_sent_without_tls(server: MailServer) -> None:
    plain = replace(server.mailer(), tls=Tls.NONE)
    with pytest.raises(RefusedByReceiverError) as refused:
        await plain.send("ops@plant.example", "s", "t", "one")
    assert "530" in refused.value.explain_cause()


async def test_a_server_that_is_away_is_waited_for(server: MailServer) -> None:
    server.process.kill()
    server.process.wait()
    with pytest.raises(NotAnsweredError):
        await server.mailer().send("ops@plant.example", "s", "t", "one")


@pytest.mark.parametrize("text", ["", "ops", "a@b\r\nc", "a b@c.d", "Ops <a@b.c>", "a@b.c,d@e.f", "a@b.c\n"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(MailAddressError):
        address_of(f"mailto:{text}")
