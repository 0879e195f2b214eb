"""Our client against our server, without a socket between them."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from birthmark.device_transports.web_page_detection import WebPageError
from birthmark.est import wire
from birthmark.est.client import (
    EstClient,
    EstServerAnswerError,
    EstServerBusyError,
    EstServerForbiddenError,
    EstServerUnauthenticatedError,
    EstWrongCertificateError,
)
from birthmark.pki.path_validation import build_chain
from support.fakes import NOON
from support.pki.est_server import EstServer, an_est_server, shown
from support.pki.pki_builders import a_ca, a_csr, a_device, a_key
from support.server.asgi import Answer, FakePeer, request

URL = "https://localhost:8085/.well-known/est/"


class AppHttps:
    """Requests go straight into the application, as from `peer`."""

    def __init__(self, app: Any, peer: FakePeer | None = None) -> None:
        self._app = app
        self._peer = peer

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        return await request(self._app, method, url, headers=headers, body=body, peer=self._peer)


class CannedHttps:
    """Always gives the same answer."""

    def __init__(self, status: int, body: bytes = b"", **headers: str) -> None:
        self._answer = Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        return self._answer


@contextlib.asynccontextmanager
async def a_running_server(directory: Path) -> AsyncIterator[EstServer]:
    async with an_est_server(directory) as server:
        yield server


async def test_a_device_gets_a_certificate_and_renews_it(tmp_path: Path) -> None:
    async with a_running_server(tmp_path) as server:
        client = EstClient(URL, AppHttps(server.app), "factory", "secret")
        first = await client.enroll(a_csr("device-1"))
        assert first.anchors == server.ca.hierarchy.anchors
        assert build_chain(first.leaf, first.intermediates, first.anchors, NOON)[:-1] == first.chain
        holder = EstClient(URL, AppHttps(server.app, shown(*first.chain)))
        second = await holder.reenroll(a_csr("device-1"))
        assert second.leaf.subject_cn == "device-1"
        assert await holder.csr_attributes() == ()
        with pytest.raises(EstServerForbiddenError):
            await holder.reenroll(a_csr("device-2"))


async def test_a_wrong_password_is_said_as_such(tmp_path: Path) -> None:
    async with a_running_server(tmp_path) as server:
        client = EstClient(URL, AppHttps(server.app), "factory", "guess")
        with pytest.raises(EstServerUnauthenticatedError) as refusal:
            await client.enroll(a_csr("device-1"))
        assert "Reference:" in refusal.value.explain_cause()


async def test_a_certificate_for_another_key_is_not_taken() -> None:
    foreign = wire.render_certs_only([a_device(a_ca()).certificate])
    with pytest.raises(EstWrongCertificateError):
        await EstClient(URL, CannedHttps(200, foreign)).enroll(a_csr(key=a_key()))


@pytest.mark.parametrize(
    ("status", "retry_after", "seconds"),
    [(202, "120", 120), (429, "5", 5), (503, "Wed, 21 Oct 2026 07:28:00 GMT", None), (500, "99999999", None)],
)
async def test_a_busy_server_says_when_to_come_back(status: int, retry_after: str, seconds: int | None) -> None:
    client = EstClient(URL, CannedHttps(status, retry_after=retry_after))
    with pytest.raises(EstServerBusyError) as refusal:
        await client.enroll(a_csr())
    assert refusal.value.retry_after_s == seconds


async def test_another_kind_of_server_is_recognized() -> None:
    client = EstClient(URL, CannedHttps(404, b"No\x1b[31m such\npage"))
    with pytest.raises(EstServerAnswerError) as refusal:
        await client.cacerts()
    assert "404: No\\u001b[31m such page" in refusal.value.explain_cause()


@pytest.mark.parametrize("status", [200, 403, 503])
async def test_a_proxy_s_page_is_no_answer_of_an_est_server(status: int) -> None:
    client = EstClient(URL, CannedHttps(status, b"<html><title>Blocked by policy</title></html>"))
    with pytest.raises(WebPageError, match="A web page was returned") as refusal:
        await client.cacerts()
    assert "'Blocked by policy'" in refusal.value.explain_cause()


def test_a_password_is_not_in_the_repr() -> None:
    assert "secret" not in repr(EstClient(URL, CannedHttps(200), "factory", "secret"))


class NoCacerts(AppHttps):
    """The CAs cannot be had now."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.asked: list[str] = []

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> Answer:
        self.asked.append(url.rpartition("/")[2])
        if self.asked[-1] == "cacerts":
            return Answer(503, {}, b"later")
        return await super().request(method, url, headers=headers, body=body)


async def test_nothing_is_spent_while_the_cas_cannot_be_had(tmp_path: Path) -> None:
    async with a_running_server(tmp_path) as server:
        https = NoCacerts(server.app)
        with pytest.raises(EstServerBusyError):
            await EstClient(URL, https, "factory", "secret").enroll(a_csr("device-1"))
        assert https.asked == ["cacerts"]
