"""A provider that is away, slow, or answers without end; and what is asked of it, and how often."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

import birthmark.server.all_tables  # noqa: F401 - all tables
from birthmark.errors import UnauthenticatedError, UnavailableError
from birthmark.iam.browser_sessions import BrowserSessions
from birthmark.iam.model import UserRole
from birthmark.iam.oidc import Providers
from birthmark.iam.oidc_model import PendingOidcLogin, Provider, ProviderAwayError, UserNotRegisteredError
from birthmark.iam.password_policy_and_hashes import Passwords
from birthmark.iam.password_sign_in import SignIn
from birthmark.iam.service import People
from birthmark.iam.sign_in_model import Browser
from birthmark.outbound.http_client import HttpSender, NotAnsweredError
from birthmark.outbound.ssrf_guard import networks_of
from birthmark.store import open_database
from support.fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.integration
ISSUER, BACK = "https://id.example.com", "https://cloud.example:9443/signin/with/plant/callback"
HERE = Browser("192.0.2.7", "a browser")


@dataclass
class Outside:
    """A provider, as what calls out sees it."""

    clock: FakeClock
    key: Any = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "1"}))
    asked: list[str] = field(default_factory=list)
    is_away: bool = False
    slow: asyncio.Event | None = None
    nonce: str = ""
    claims: dict[str, Any] = field(default_factory=lambda: {"sub": "1", "preferred_username": "anna"})
    more: dict[str, Any] | None = None
    forms: list[dict[str, list[str]]] = field(default_factory=list)

    async def fetch(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, most: int
    ) -> tuple[int, bytes]:
        self.asked.append(urlsplit(url).path)
        if self.is_away:
            raise UnavailableError
        if url.endswith("openid-configuration"):
            ends = {"authorization_endpoint": "/auth", "token_endpoint": "/token", "jwks_uri": "/jwks"}
            ends |= {} if self.more is None else {"userinfo_endpoint": "/me"}
            said = {"issuer": ISSUER, **{name: ISSUER + path for name, path in ends.items()}}
            return 200, json.dumps(said).encode()
        if url.endswith("/jwks"):
            return 200, json.dumps({"keys": [self.key.as_dict(private=False)]}).encode()
        if url.endswith("/me"):
            return 200, json.dumps(self.more).encode()
        if self.slow is not None:
            await self.slow.wait()
        self.forms.append(parse_qs(body.decode()))
        at = int(self.clock.now().timestamp())
        claims = {"iss": ISSUER, "aud": "birthmark", "exp": at + 60, "iat": at, "nonce": self.nonce, **self.claims}
        return 200, json.dumps(
            {"id_token": jwt.encode({"alg": "ES256", "kid": self.key.kid}, claims, self.key), "access_token": "t"}
        ).encode()


@dataclass
class World:
    providers: Providers
    outside: Outside
    clock: FakeClock
    people: People

    async def begin(self) -> tuple[str, PendingOidcLogin]:
        url, kept = await self.providers.begin("plant", BACK, "/", "")
        self.outside.nonce = kept.nonce
        return url, kept

    async def sign_in(self) -> str:
        _, kept = await self.begin()
        given = {"state": kept.state, "code": "c"}
        return await self.providers.finish("plant", given, kept, BACK, HERE)


@asynccontextmanager
async def house(url: str) -> AsyncIterator[World]:
    clock, entropy = FakeClock(), SeededEntropy()
    database = await open_database(url, clock)
    people, outside = People(database, clock, entropy), Outside(clock)
    sign_in = SignIn(people, BrowserSessions(people), Passwords(entropy))
    plant = Provider("plant", "Plant", ISSUER, "birthmark", None, ("openid",), "preferred_username", (), "groups", {})
    await people.load()
    await people.create("anna", UserRole.VIEWER, "*", actor="operator")
    try:
        yield World(Providers(sign_in, entropy, outside, [plant]), outside, clock, people)
    finally:
        await people.stop()
        await database.close()


async def test_who_is_known_there_is_signed_in_and_linked_once_on_both_databases(database_url: str) -> None:
    async with house(database_url) as world:
        for _ in range(2):
            text = await world.sign_in()
        caller = world.providers.sign_in.sessions.caller(text, HERE.address)
        assert (caller.user, caller.let_in_by) == ("anna", "oidc:plant")
        world.outside.claims = {"sub": "2", "preferred_username": "anna"}  # another account of the same name
        with pytest.raises(UserNotRegisteredError):
            await world.sign_in()


async def test_a_stranger_who_comes_back_again_and_again_takes_no_place_from_others(tmp_path: Path) -> None:
    """What a browser keeps meanwhile is its own: anybody may say that he comes from there."""
    async with house(f"sqlite:///{tmp_path / 'people.db'}") as world:
        _, kept = await world.begin()
        given, unauthenticated = {"state": kept.state, "code": "made up"}, Browser("198.51.100.9", "")
        world.outside.slow = asyncio.Event()
        coming = [
            asyncio.create_task(world.providers.finish("plant", given, kept, BACK, unauthenticated)) for _ in range(20)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        mine = asyncio.create_task(world.sign_in())
        await asyncio.sleep(0.05)
        world.outside.slow.set()
        assert await mine
        refused = await asyncio.gather(*coming, return_exceptions=True)
        assert sum(isinstance(one, ProviderAwayError) for one in refused) >= 16
        assert await world.sign_in()


async def test_what_is_sent_binds_the_answer_to_this_sign_in(tmp_path: Path) -> None:
    async with house(f"sqlite:///{tmp_path / 'people.db'}") as world:
        url, kept = await world.begin()
        sent = {name: one for name, (one,) in parse_qs(urlsplit(url).query).items()}
        assert (sent["response_type"], sent["code_challenge_method"], sent["state"]) == ("code", "S256", kept.state)
        assert kept.verifier not in url
        given = {"state": kept.state, "code": "c"}
        await world.providers.finish("plant", given, kept, BACK, HERE)
        (form,) = world.outside.forms
        assert form["code_verifier"] == [kept.verifier]
        _, other = await world.begin()
        assert {kept.state, kept.nonce, kept.verifier}.isdisjoint({other.state, other.nonce, other.verifier})


async def test_a_provider_is_asked_for_its_keys_once_and_again_when_it_signs_by_another(tmp_path: Path) -> None:
    async with house(f"sqlite:///{tmp_path / 'people.db'}") as world:
        for _ in range(3):
            await world.sign_in()
        assert world.outside.asked.count("/jwks") == 1
        world.outside.key = ECKey.generate_key("P-256", {"kid": "2"})
        world.clock.move(timedelta(minutes=1))
        await world.sign_in()
        assert world.outside.asked.count("/jwks") == 2


async def test_a_provider_that_is_away_is_told_as_that_and_left_in_peace(tmp_path: Path) -> None:
    async with house(f"sqlite:///{tmp_path / 'people.db'}") as world:
        world.outside.is_away = True
        for _ in range(20):
            with pytest.raises(ProviderAwayError):
                await world.begin()
        assert len(world.outside.asked) == 1


async def test_claims_that_are_said_to_who_asks_alone_count_for_the_same_person(tmp_path: Path) -> None:
    async with house(f"sqlite:///{tmp_path / 'people.db'}") as world:
        world.outside.claims, world.outside.more = {"sub": "1"}, {"sub": "1", "preferred_username": "anna"}
        assert await world.sign_in()
        world.outside.claims = {"sub": "3"}
        with pytest.raises(UnauthenticatedError):
            await world.sign_in()


ANSWERS = {
    "huge": b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n" + b"x" * 400_000,
    "endless": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b"x" * 0x10000 + b"\r\n",
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
    "nonsense": b"SSH-2.0-OpenSSH\r\n",
    "nothing": b"",
}


@asynccontextmanager
async def a_receiver(answer: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(64 if b"chunked" in answer else 1):
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.mark.parametrize("kind", ["huge", "endless", "nonsense", "nothing"])
async def test_an_answer_without_end_or_sense_is_none(kind: str) -> None:
    async with a_receiver(ANSWERS[kind]) as url:
        with pytest.raises(NotAnsweredError):
            await HttpSender(networks_of(["127.0.0.1"])).fetch("GET", url, {}, b"", 4096)


async def test_no_redirect_is_followed() -> None:
    async with a_receiver(ANSWERS["redirect"]) as url:
        assert (await HttpSender(networks_of(["127.0.0.1"])).fetch("GET", url, {}, b"", 4096))[0] == 302


async def test_a_provider_that_is_slow_is_waited_for_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birthmark.outbound.http_client.PATIENCE_S", 0.2)
    begun: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: begun.append(writer), "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(NotAnsweredError):
            await HttpSender(networks_of(["127.0.0.1"])).fetch("GET", url, {}, b"", 4096)
        for writer in begun:
            writer.close()
