"""Webhooks against receivers that are there, away, slow, endless, or say no; on both databases."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import birthmark.server.all_tables  # noqa: F401 - all tables
from birthmark.alerts.model import AlertFinding
from birthmark.alerts.service import Alerts
from birthmark.audit.signed_heads import AuditKey
from birthmark.clock_and_entropy import SystemClock
from birthmark.errors import BirthmarkError
from birthmark.events import webhooks as module
from birthmark.events.webhooks import TypesInvalidError, WebhookExistsError, WebhookMissingError, Webhooks
from birthmark.outbound.http_client import HttpSender, NotAnsweredError, UrlInvalidError
from birthmark.outbound.ssrf_guard import AddressRefusedError, networks_of
from birthmark.outbound.webhook_signature import key_of
from birthmark.store import Changes, Database, open_database
from birthmark.store.core_tables import audit
from birthmark.store.table_statements import find
from support.fakes import FakeClock, SeededEntropy
from support.services.mail_server import MailServer

pytestmark = pytest.mark.integration
ME: Any = {"actor": "operator"}
ALL_AUDIT = find(audit, audit.c.seq >= 0, order=audit.c.seq)
LOOPBACK = networks_of(["127.0.0.0/8"])


@pytest.fixture(autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", timedelta(milliseconds=20))
    monkeypatch.setattr(module, "_LONGEST_PAUSE", timedelta(milliseconds=100))
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.05)


@dataclass
class Receiver:
    """Takes what it is sent, and answers as it is told to."""

    answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n"
    pause_s: float = 0.0
    taken: list[dict[str, Any]] = field(default_factory=list)
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def subjects(self) -> list[str]:
        return [one["subject"] for one in self.taken]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = await reader.readexactly(int(headers["content-length"]))
            self.calls.append((headers, body))
            await asyncio.sleep(self.pause_s)
            if self.answer.startswith(b"HTTP/1.1 2"):
                self.taken += json.loads(body)
            writer.write(self.answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def a_receiver(receiver: Receiver) -> AsyncIterator[Receiver]:
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", receiver.port)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


@dataclass
class World:
    database: Database
    webhooks: Webhooks

    async def happen(self, *subjects: str, action: str = "dps.register") -> None:
        for subject in subjects:
            await self.database.commit(Changes().audit("device", action, subject))

    async def told(self, name: str, receiver: Receiver, *types: str) -> str:
        hook = await self.webhooks.create(name, f"http://127.0.0.1:{receiver.port}/hook", types, **ME)
        return hook.secret


@asynccontextmanager
async def a_world(url: str, me: str = "main", *, is_telling: bool = True) -> AsyncIterator[World]:
    database = await open_database(url, SystemClock(), worker=me, signer=AuditKey("seed"))
    webhooks = Webhooks(database, SystemClock(), SeededEntropy(), HttpSender(LOOPBACK), "birthmark://test", me)
    telling = asyncio.create_task(webhooks.run_delivery_loop()) if is_telling else None
    try:
        yield World(database, webhooks)
    finally:
        if telling is not None:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        await database.close()


async def until(is_so: Callable[[], bool | Awaitable[bool]], patience_s: float = 15.0) -> None:
    async with asyncio.timeout(patience_s):
        while True:
            found = is_so()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.02)


async def test_a_receiver_is_told_in_order_what_happens_and_can_check_who_told(database_url: str) -> None:
    async with a_receiver(Receiver()) as receiver, a_world(database_url) as world:
        await world.happen("before")
        secret = await world.told("plant", receiver)
        await world.happen(*(f"pump-{number}" for number in range(20)))
        await until(lambda: len(receiver.taken) >= 20)
        assert receiver.subjects == [f"pump-{number}" for number in range(20)]
        for headers, body in receiver.calls:
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            made = base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()
            # Header values were lowered above.
            assert headers["webhook-signature"] == f"v1,{made}".lower()


async def test_a_receiver_that_was_away_gets_all_of_it_and_types_are_picked(database_url: str) -> None:
    receiver = Receiver(answer=b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")
    async with a_receiver(receiver), a_world(database_url) as world:
        await world.told("plant", receiver, "birthmark.device.*")
        await world.happen("a", "b")
        await world.happen("else", action="people.user_create")
        await until(lambda: len(receiver.calls) >= 3)

        async def is_failing() -> bool:
            hook = await world.webhooks.get("plant")
            return "500" in hook.problem and hook.failed_since is not None

        await until(is_failing)
        receiver.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        await world.happen("c")
        await until(lambda: receiver.subjects[-1:] == ["c"])
        assert receiver.subjects == ["a", "b", "c"]

        async def is_well() -> bool:
            return (await world.webhooks.get("plant")).problem == ""

        await until(is_well)


async def test_what_is_refused_again_and_again_is_put_aside_and_can_be_sent_once_more(database_url: str) -> None:
    receiver = Receiver(answer=b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n")
    async with a_receiver(receiver), a_world(database_url) as world:
        await world.told("plant", receiver)
        await world.happen("poison")

        async def is_aside() -> bool:
            return bool(await world.webhooks.dead("plant"))

        await until(is_aside)
        assert len(receiver.calls) == 5
        receiver.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        await world.happen("next")
        await until(lambda: receiver.subjects == ["next"])
        assert await world.webhooks.replay("plant", **ME) == 1
        assert receiver.subjects == ["next", "poison"]
        assert await world.webhooks.dead("plant") == []


async def test_everything_that_was_put_aside_is_sent_once_more_a_few_at_a_time(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REPLAYED_AT_ONCE", 2)
    receiver = Receiver(answer=b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n")
    async with a_receiver(receiver), a_world(database_url) as world:
        await world.told("plant", receiver)
        for number in range(5):
            await world.happen(f"pump-{number}")

            async def is_aside(count: int = number + 1) -> bool:
                return len(await world.webhooks.dead("plant")) == count

            await until(is_aside)
        receiver.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        assert await world.webhooks.replay("plant", **ME) == 5
        assert receiver.subjects == [f"pump-{number}" for number in range(5)]


async def test_a_mail_to_nobody_is_put_aside_at_once_and_one_by_a_wrong_password_waits_for_the_right_one(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mails = MailServer(tmp_path)
    try:
        async with a_world(database_url) as world:
            world.webhooks.mailer = mails.mailer("wrong-and-secret")
            await world.webhooks.create("ops", "mailto:ops@plant.example", [], **ME)
            await world.happen("a")

            async def has_tried(name: str, times: int) -> bool:
                return (await world.webhooks.get(name)).tries >= times

            await until(partial(has_tried, "ops", 7))  # more than of what is refused for what it is
            assert "rejected the login of birthmark: 535" in (await world.webhooks.get("ops")).problem
            assert await world.webhooks.dead("ops") == []
            mails.let_password_be("right")
            await until(partial(asyncio.to_thread, lambda: "device.registered a" in mails.line()["text"]))
            await world.webhooks.create("gone", "mailto:nobody@plant.example", [], **ME)
            await world.happen("b")
            await until(partial(asyncio.to_thread, lambda: "device.registered b" in mails.line()["text"]))

            async def is_aside() -> bool:
                return bool(await world.webhooks.dead("gone"))

            await until(is_aside)
        said = [
            (one.__dict__["webhook"], one.__dict__["code"]) for one in caplog.records if one.msg == "webhook.not_taken"
        ]
        assert sorted(set(said)) == [("gone", "feed.refused_by_receiver"), ("ops", "outbound.mail_login")]
        assert len(said) == 2
        assert "secret" not in caplog.text
    finally:
        mails.end()


async def test_what_one_judgement_changes_comes_by_one_call_and_in_one_mail(database_url: str, tmp_path: Path) -> None:
    mails = MailServer(tmp_path)
    try:
        async with a_receiver(Receiver()) as receiver, a_world(database_url) as world:
            world.webhooks.mailer = mails.mailer()
            await world.told("plant", receiver, "birthmark.alert.*")
            await world.webhooks.create("ops", "mailto:ops@plant.example", ["birthmark.alert.*"], **ME)
            alerts = Alerts(world.database, clock := FakeClock())
            ends = [AlertFinding("ca-ends", f"ca-{number}", f"ca-{number} ends") for number in range(3)]
            await alerts.judge([*ends, AlertFinding("outbox-behind", "workers", "events wait")])
            await until(lambda: len(receiver.taken) == 4)
            letter = (await asyncio.to_thread(mails.line))["text"]
            assert "Subject: CRITICAL: ca-0 ends (and 3 more)" in letter
            assert all(one.detail in letter for one in ends)
            for _ in range(2):
                await alerts.judge([])
                clock.move(timedelta(minutes=3))
            await until(lambda: len(receiver.taken) == 8)
            assert "Subject: Resolved: ca-0 ends (and 3 more)" in (await asyncio.to_thread(mails.line))["text"]
            assert len(receiver.calls) == 2
    finally:
        mails.end()


async def test_one_that_is_slow_delays_no_other(database_url: str) -> None:
    slow, quick = Receiver(pause_s=30.0), Receiver()
    async with a_receiver(slow), a_receiver(quick), a_world(database_url) as world:
        await world.told("slow", slow)
        await world.told("quick", quick)
        await world.happen("a", "b", "c")
        await until(lambda: quick.subjects == ["a", "b", "c"], 5.0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nshort",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
async def test_what_is_no_good_answer_is_sent_again(tmp_path: Any, answer: bytes) -> None:
    receiver = Receiver(answer=answer)
    async with a_receiver(receiver), a_world(f"sqlite:///{tmp_path / 'x.db'}") as world:
        await world.told("plant", receiver)
        await world.happen("a")
        await until(lambda: len(receiver.calls) >= 2)


async def test_an_answer_that_never_ends_is_read_no_further(tmp_path: Any) -> None:
    receiver = Receiver(answer=b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n" + b"x" * 5_000_000)
    async with a_receiver(receiver), a_world(f"sqlite:///{tmp_path / 'x.db'}") as world:
        await world.told("plant", receiver)
        await world.happen("a", "b")
        await until(lambda: "b" in receiver.subjects)


async def test_two_workers_tell_a_receiver_once_and_the_second_goes_on_for_the_first(database_url: str) -> None:
    async with a_receiver(Receiver()) as receiver, a_world(database_url, "w2", is_telling=False) as second:
        async with a_world(database_url, "w1") as first:
            await first.told("plant", receiver)
            await first.happen("a")
            await until(lambda: receiver.subjects == ["a"])
            await second.happen("b")
            await until(lambda: receiver.subjects == ["a", "b"])
            assert not await second.webhooks._claim("plant")
            await first.webhooks.release_leases()
        telling = asyncio.create_task(second.webhooks.run_delivery_loop())
        await second.happen("c")
        await until(lambda: receiver.subjects == ["a", "b", "c"])
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


async def test_while_a_secret_is_exchanged_both_sign_and_a_paused_one_is_told_later(database_url: str) -> None:
    async with a_receiver(Receiver()) as receiver, a_world(database_url) as world:
        await world.told("plant", receiver)
        assert await world.webhooks.rotate("plant", **ME) != ""
        await world.webhooks.pause("plant", is_paused=True, **ME)
        await asyncio.sleep(0.3)
        await world.happen("a")
        await asyncio.sleep(0.3)
        assert receiver.subjects == []
        await world.webhooks.pause("plant", is_paused=False, **ME)
        await until(lambda: receiver.subjects == ["a"])
        assert len(receiver.calls[-1][0]["webhook-signature"].split()) == 2


async def test_a_name_that_leads_inside_is_not_called_wherever_it_led_before(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_receiver(Receiver()) as receiver:
        port = receiver.port

        def leads_inside(host: str, port: int, **_: Any) -> list[Any]:
            return [(2, 1, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(socket, "getaddrinfo", leads_inside)
        with pytest.raises(AddressRefusedError):
            await HttpSender(()).post(f"https://hooks.example:{port}/", {}, b"[]")
        assert receiver.calls == []


async def test_what_cannot_be_made_says_why(tmp_path: Any) -> None:
    async with a_world(f"sqlite:///{tmp_path / 'x.db'}", is_telling=False) as world:
        await world.webhooks.create("plant", "https://hooks.example/", [], **ME)
        long = f"birthmark.{'*' * 128}"
        refused: list[tuple[type[BirthmarkError], Any]] = [
            (WebhookExistsError, world.webhooks.create("plant", "https://hooks.example/", [], **ME)),
            (TypesInvalidError, world.webhooks.create("other", "https://hooks.example/", ["birthmark.nothing"], **ME)),
            (
                TypesInvalidError,
                world.webhooks.create("other", "https://hooks.example/", [long], **ME),
            ),
            (UrlInvalidError, world.webhooks.create("other", "file:///etc/passwd", [], **ME)),
            (AddressRefusedError, world.webhooks.create("other", "https://169.254.169.254/", [], **ME)),
            (WebhookMissingError, world.webhooks.remove("other", **ME)),
            (WebhookMissingError, world.webhooks.rotate("other", **ME)),
            (NotAnsweredError, HttpSender(LOOPBACK).post("http://127.0.0.1:1/", {}, b"")),
        ]
        for kind, doing in refused:
            with pytest.raises(kind):
                await doing


async def test_what_is_secret_of_a_url_stands_in_no_audit_and_in_nothing_that_went_wrong(database_url: str) -> None:
    page = b"<p>Cannot POST /hook/5ecret-of-ours?key=an0ther-one</p>"
    head = b"HTTP/1.1 400 No\r\ncontent-length: " + str(len(page)).encode() + b"\r\n\r\n"
    async with a_receiver(Receiver(answer=head + page)) as receiver, a_world(database_url) as world:
        url = f"http://127.0.0.1:{receiver.port}/hook/5ecret-of-ours?key=an0ther-one"
        await world.webhooks.create("plant", url, (), **ME)
        await world.happen("poison")

        async def is_aside() -> bool:
            return bool(await world.webhooks.dead("plant"))

        await until(is_aside)
        (dead,) = await world.webhooks.dead("plant")
        told = [row["detail"] for row in await world.database.all(ALL_AUDIT)]
        assert "Cannot POST" in dead.problem
        assert f"http://127.0.0.1:{receiver.port}/" in "".join(told)
        for secret in ("5ecret-of-ours", "an0ther-one"):
            assert secret not in dead.problem
            assert not any(secret in one for one in told)
