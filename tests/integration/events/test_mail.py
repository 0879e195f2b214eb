"""Mail by a real server: what it takes, what it never takes, and what it may take later."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from birthmark.outbound import smtp_client as module
from birthmark.outbound.http_client import NotAnsweredError, RefusedByReceiverError
from birthmark.outbound.mail_config import MailAddressError, Tls, address_of
from birthmark.outbound.smtp_client import Mailer, MailLoginError
from birthmark.outbound.ssrf_guard import AddressRefusedError
from support.pki.pki_builders import a_ca
from support.services.mail_server import LOOPBACK, MailServer

pytestmark = [pytest.mark.anyio, pytest.mark.integration]
MAIL = ("ops@plant.example", "s", "t", "one")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MailServer]:
    made = MailServer(tmp_path)
    yield made
    made.end()


@asynccontextmanager
async def speaking(*answers: bytes, pause_s: float = 0.0) -> AsyncIterator[tuple[Mailer, list[bytes]]]:
    """Answer each line with the next of these, a byte after the other; what came is in the list."""
    came: list[bytes] = []
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())  # type: ignore[arg-type] # it is one
        try:
            for answer in answers:
                for byte in answer:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(pause_s)
                came.append(await reader.readline())
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Mailer("127.0.0.1", port, Tls.STARTTLS, "birthmark@plant.example", allowed=LOOPBACK), came
    finally:
        server.close()


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
    assert refused.value.is_final
    assert "nobody@plant.example" in refused.value.explain_cause()
    assert "550" in refused.value.explain_cause()
    with pytest.raises(NotAnsweredError) as later:
        await server.mailer().send("later@plant.example", "s", "t", "one")
    assert not isinstance(later.value, RefusedByReceiverError)


async def test_a_wrong_password_is_said_and_is_not_what_the_letter_ends_by(
    server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    mailer = server.mailer("wrong-and-secret")
    with pytest.raises(MailLoginError) as refused:
        await mailer.send(*MAIL)
    assert not isinstance(refused.value, RefusedByReceiverError)
    assert "535" in refused.value.explain_cause()
    assert "birthmark" in refused.value.explain_cause()
    assert "secret" not in repr(mailer) + refused.value.explain_cause() + caplog.text


async def test_a_new_password_counts_for_the_next_mail(server: MailServer) -> None:
    mailer = server.mailer("old")
    with pytest.raises(MailLoginError):
        await mailer.send(*MAIL)
    server.let_password_be("right")
    await mailer.send(*MAIL)
    assert server.line()["secure"]


async def test_a_password_that_cannot_be_read_is_said(server: MailServer) -> None:
    mailer = replace(server.mailer(), password_file=Path("/nowhere/password"))
    with pytest.raises(MailLoginError) as refused:
        await mailer.send(*MAIL)
    assert "/nowhere/password" in refused.value.explain_cause()


async def test_of_a_password_that_is_not_utf_8_no_encoding_is_guessed(server: MailServer, tmp_path: Path) -> None:
    (file := tmp_path / "latin").write_bytes("Ger\u00e4t".encode("cp1252"))
    with pytest.raises(MailLoginError) as refused:
        await replace(server.mailer(), password_file=file).send(*MAIL)
    assert "Save it as UTF-8 in the editor that created it." in refused.value.explain_fix()


@pytest.mark.parametrize(("text", "why"), [("right\nRCPT", "more than one line"), ("\r\n", "is empty")])
async def test_a_password_of_several_lines_or_of_none_is_sent_to_nobody(
    server: MailServer, tmp_path: Path, text: str, why: str
) -> None:
    (file := tmp_path / "lines").write_text(text)
    with pytest.raises(MailLoginError) as refused:
        await replace(server.mailer(), password_file=file).send(*MAIL)
    assert why in refused.value.explain_cause()


async def test_a_certificate_of_another_host_gets_no_password(tmp_path: Path) -> None:
    server = MailServer(tmp_path, shows="127.99.99.99")
    with pytest.raises(NotAnsweredError) as refused:
        await server.mailer().send(*MAIL)
    assert "CERTIFICATE_VERIFY_FAILED" in refused.value.explain_cause()
    server.end()


@pytest.mark.parametrize("to", ["ops@plant.example", "nobody@plant.example"])
async def test_no_socket_is_open_when_a_mail_is_sent_or_refused(server: MailServer, to: str) -> None:
    before = open_sockets()
    with suppress(NotAnsweredError):
        await server.mailer().send(to, "s", "t", "one")
    assert open_sockets() == before


def open_sockets() -> int:
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(str(link).startswith("socket:") for link in links)


async def test_a_server_inside_is_not_called_unless_it_is_allowed(server: MailServer) -> None:
    with pytest.raises(AddressRefusedError):
        await replace(server.mailer(), allowed=()).send(*MAIL)


async def test_a_server_that_speaks_a_letter_at_a_time_keeps_nobody_and_no_thread_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 1.0)
    began = time.monotonic()
    async with speaking(b"220-" + b"slowly " * 1000, pause_s=0.05) as (mailer, _):
        tasks = [asyncio.create_task(mailer.send(*MAIL)) for _ in range(20)]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(0.4):  # there are few threads, and each is free
            await asyncio.to_thread(int)
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, NotAnsweredError) for one in found)
    assert time.monotonic() - began < 5


async def test_each_answer_in_time_and_all_of_them_too_late_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.7)
    plain, more = b"250-hello\r\n", b"250 yes\r\n"
    long = 4 * b"250-a part\r\n" + more  # which the time ends in the midst of
    async with speaking(b"220 hi\r\n", plain + more, long, more, more, pause_s=0.01) as (mailer, came):
        with pytest.raises(NotAnsweredError) as refused:
            await replace(mailer, tls=Tls.NONE).send(*MAIL)
    assert "0.7 s" in refused.value.explain_cause()
    assert came


async def test_a_server_without_tls_gets_no_mail_where_tls_is_wanted() -> None:
    async with speaking(b"220 hi\r\n", b"250 no extensions\r\n", b"250 yes\r\n") as (mailer, came):
        with pytest.raises(NotAnsweredError) as refused:
            await mailer.send(*MAIL)
    assert "STARTTLS" in refused.value.explain_cause()
    assert not [line for line in came if line.startswith(b"MAIL")]


async def test_a_server_that_does_not_want_the_sender_may_want_it_later() -> None:
    async with speaking(b"220 hi\r\n", b"250 no\r\n", b"550 not you\r\n", b"250 reset\r\n") as (mailer, _):
        with pytest.raises(NotAnsweredError) as refused:
            await replace(mailer, tls=Tls.NONE).send(*MAIL)
    assert not isinstance(refused.value, RefusedByReceiverError)
    assert "550 not you" in refused.value.explain_cause()


async def test_a_server_that_shows_another_certificate_gets_no_password(server: MailServer) -> None:
    other = server.mailer(ca=a_ca("Other", now=datetime.now(UTC)).certificate.pem())
    with pytest.raises(NotAnsweredError) as refused:
        await other.send("ops@plant.example", "s", "t", "one")
    assert "CERTIFICATE_VERIFY_FAILED" in refused.value.explain_cause()


async def test_a_password_is_not_sent_without_tls(server: MailServer) -> None:
    plain = replace(server.mailer(), tls=Tls.NONE)
    with pytest.raises(MailLoginError) as refused:
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
