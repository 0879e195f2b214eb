"""What every adapter of the links keeps, with keys in files and in tokens."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from birthmark.clock_and_entropy import SystemClock
from birthmark.device_transports.errors import (
    LinkAnswerError,
    LinkLostError,
    LinkUnreachableError,
    MqttRefusedError,
    MqttRejectedError,
    MqttUnavailableError,
    ServerUntrustedError,
    SubscriptionRefusedError,
)
from birthmark.device_transports.identity_and_trust import Identity, ServerTrust, TokenIdentity
from birthmark.device_transports.ports import Links, MqttClient, ReceivedMessage
from birthmark.device_transports.urls import UrlInvalidError
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.mqtt.packets import Connect
from conftest import free_port
from support.agent.swarm_links import links_of
from support.mqtt.links_peer import BAD_ID, GOOD, LATER, REFUSED, Peer, a_peer
from support.pki.pki_builders import a_ca

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def links_and_peer(identity: Identity | None) -> AsyncIterator[tuple[Links, Peer]]:
    async with a_peer() as peer, asyncio.timeout(20):
        yield links_of(identity, ServerTrust(peer.ca.certificate.pem())), peer


async def connected(links: Links, peer: Peer, client_id: str = GOOD) -> MqttClient:
    client = links.mqtt()
    connect = Connect(client_id, username="hub/device-1/?api-version=1", clean_start=False)
    await client.connect("localhost", peer.port, connect)
    return client


async def test_a_request_shows_the_certificate_and_gets_its_answer(identity: Identity) -> None:
    async with links_and_peer(identity) as (links, peer):
        answer = await links.https().request("POST", f"{peer.url}/who?a=b", headers={"X-Test": "one"}, body=b"hello")
        assert (answer.status, answer.headers["x-answer"]) == (418, "yes")
        told = json.loads(answer.body)
        assert told["name"] == identity.chain[0].subject_cn
        assert (told["method"], told["path"], told["body"]) == ("POST", "/who?a=b", "hello")
        assert told["headers"] == {"host": f"localhost:{peer.port}", "x-test": "one", "content-length": "5"}
        again = await links.https().request("GET", f"{peer.url}/who", headers={})
        assert json.loads(again.body)["method"] == "GET"


async def test_messages_go_out_acknowledged_and_come_in(identity: Identity) -> None:
    async with links_and_peer(identity) as (links, peer):
        client = links.mqtt()
        asked = Connect(GOOD, username="u/1", password=b"p", clean_start=False, keep_alive_s=77)
        had_session = await client.connect("localhost", peer.port, asked)
        assert had_session
        (connect,) = peer.connects
        assert (connect.client_id, connect.username, connect.password) == (GOOD, "u/1", b"p")
        assert (connect.clean_start, connect.keep_alive_s) == (False, 77)
        assert peer.seen == [identity.chain[0].subject_cn]
        await client.subscribe("echo/#")
        await client.publish("$dps/one", b"1")
        await client.publish("two", b"2", qos=0)
        assert await client.next_message() == ReceivedMessage("echo/$dps/one", b"1")
        assert await client.next_message() == ReceivedMessage("echo/two", b"2")
        await client.close()
        await client.close()


@pytest.mark.parametrize(
    ("client_id", "error"), [(REFUSED, MqttRefusedError), (LATER, MqttUnavailableError), (BAD_ID, MqttRejectedError)]
)
async def test_a_refusing_connack_is_told(identity: Identity, client_id: str, error: type[BirthmarkError]) -> None:
    async with links_and_peer(identity) as (links, peer):
        # awscrt keeps the code to itself.
        with pytest.raises(MqttRefusedError if isinstance(identity, TokenIdentity) else error):
            await connected(links, peer, client_id)


async def test_a_refused_subscription_is_told(identity: Identity) -> None:
    async with links_and_peer(identity) as (links, peer):
        client = await connected(links, peer)
        with pytest.raises(SubscriptionRefusedError):
            await client.subscribe("closed")
        await client.close()


async def test_a_lost_connection_is_told_to_everyone_who_waits(identity: Identity) -> None:
    async with links_and_peer(identity) as (links, peer):
        client = await connected(links, peer)
        waiting = [asyncio.create_task(client.next_message()), asyncio.create_task(client.wait_for_loss())]
        await asyncio.sleep(0)
        peer.sessions[0].link.close()
        reason = await waiting[1]
        assert isinstance(reason, LinkLostError)
        with pytest.raises(LinkLostError):
            await waiting[0]
        with pytest.raises(UnavailableError):
            await client.publish("late", b"")
        await client.close()


async def test_after_close_nothing_goes_out(identity: Identity) -> None:
    async with links_and_peer(identity) as (links, peer):
        client = await connected(links, peer)
        await client.close()
        with pytest.raises(LinkLostError, match="closed"):
            await client.publish("late", b"")
        with pytest.raises(LinkLostError, match="closed"):
            await client.next_message()


# Once per adapter: awscrt's TLS library waits up to 30 s before it tells; a look of our own does not.
@pytest.mark.parametrize("identity", ["file", "swarm", "token-ec"], indirect=True)
async def test_a_server_of_another_ca_or_name_is_not_believed(identity: Identity) -> None:
    async with a_peer() as peer:
        strange = ServerTrust(a_ca(now=SystemClock().now()).certificate.pem())
        unauthenticated = links_of(identity, strange)
        friend = links_of(identity, ServerTrust(peer.ca.certificate.pem()))
        began = time.monotonic()
        refusals = await asyncio.gather(
            unauthenticated.https().request("GET", f"{peer.url}/who", headers={}),
            connected(unauthenticated, peer),
            friend.https().request("GET", f"https://127.0.0.1:{peer.port}/who", headers={}),
            return_exceptions=True,
        )
        for refusal in refusals:
            assert isinstance(refusal, ServerUntrustedError), refusal
        assert time.monotonic() - began < 10
        assert not peer.connects


async def test_nobody_there_is_told(identity: Identity) -> None:
    async with links_and_peer(identity) as (links, _peer):
        port = free_port()
        with pytest.raises(LinkUnreachableError) as refusal:
            await links.https().request("GET", f"https://localhost:{port}/", headers={})
        assert f"localhost port {port}" in refusal.value.explain_cause()
        with pytest.raises(LinkUnreachableError):
            await links.mqtt().connect("localhost", port, Connect("x", username="x"))


async def test_an_endless_answer_is_cut(identity: Identity) -> None:
    async with links_and_peer(identity) as (links, peer):
        with pytest.raises(LinkAnswerError):
            await links.https().request("GET", f"{peer.url}/large", headers={})


@pytest.mark.parametrize("url", ["http://localhost/", "https://", "https://user:secret@host/", "https://a b/", "x" * 9])
async def test_only_plain_https_urls_are_taken(identity: Identity, url: str) -> None:
    async with links_and_peer(identity) as (links, _peer):
        with pytest.raises(UrlInvalidError, match="URL") as refusal:
            await links.https().request("GET", url, headers={})
        assert "secret" not in str(refusal.value)


async def test_without_an_identity_no_certificate_is_shown() -> None:
    async with links_and_peer(None) as (links, peer):
        answer = await links.https().request("GET", f"{peer.url}/who", headers={})
        assert json.loads(answer.body)["name"] is None


@pytest.mark.parametrize("trust", [ServerTrust.of([]), ServerTrust("\n")], ids=["no files", "nothing in them"])
async def test_who_trusts_nobody_trusts_no_system_root_either(identity: Identity, trust: ServerTrust) -> None:
    async with links_and_peer(identity) as (_links, peer):
        for shown in (identity, None):
            with pytest.raises(ServerUntrustedError):
                await links_of(shown, trust).https().request("GET", f"{peer.url}/who", headers={})


def test_trust_comes_from_files_or_the_environment(tmp_path: Path) -> None:
    pem = a_ca().certificate.pem()
    path = tmp_path / "ca.pem"
    path.write_text("words before\n" + pem)
    assert ServerTrust.of([path]).pem == pem
    assert pem in (ServerTrust.default({"SSL_CERT_FILE": str(path)}).pem or "")
    assert ServerTrust.default({}).pem is None
