"""The addresses in certificates, as caches and odd clients ask for them."""

import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.x509 import ocsp
from starlette.applications import Starlette

from birthmark.ca.http import LIST, MAX_AGE_S, REQUEST, RESPONSE, routes
from birthmark.ca.ocsp_responder import OcspResponder
from birthmark.errors import BirthmarkError
from birthmark.pki.csr import parse_csr
from birthmark.pki.ocsp import UnsignedStatus
from birthmark.pki.revocation_urls import DistributionPoints, name_of_key
from support.pki.ca_world import OPERATOR, an_authority
from support.pki.ocsp_requests import a_request
from support.pki.pki_builders import a_csr
from support.server.asgi import Answer, request


class Site:
    def __init__(self, answers: OcspResponder) -> None:
        self.answers = answers
        self.refused: list[str] = []
        self._app = Starlette(routes=routes(answers, self._refuse))

    def _refuse(self, error: BirthmarkError, _address: str) -> None:
        self.refused.append(error.code)

    async def get(self, path: str, **headers: str) -> Answer:
        return await request(self._app, "GET", f"http://pki.example{path}", headers=headers)

    async def post(self, body: bytes, media_type: str = REQUEST) -> Answer:
        headers = {"Content-Type": media_type} if media_type else {}
        return await request(self._app, "POST", "http://pki.example/ocsp", headers=headers, body=body)

    async def a_question(self) -> bytes:
        leaf, issuer, _ = await self.answers.ca.issue(parse_csr(a_csr()), OPERATOR)
        return a_request(leaf, issuer)


@contextlib.asynccontextmanager
async def a_site(path: Path) -> AsyncIterator[Site]:
    async with an_authority(path) as ca:
        yield Site(OcspResponder(ca, lambda _: True))


async def test_get_and_post_say_the_same(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        asked = await site.a_question()
        posted = await site.post(asked)
        assert posted.headers["content-type"] == RESPONSE
        assert ocsp.load_der_ocsp_response(posted.body).certificate_status is ocsp.OCSPCertStatus.GOOD
        plain = base64.b64encode(asked).decode()
        urlsafe = base64.urlsafe_b64encode(asked).decode().rstrip("=")
        for text in (plain, urlsafe):
            got = await site.get(f"/ocsp/{text}")
            assert (got.status, got.body) == (200, posted.body)


async def test_rfc5019_6_caches_are_told_how_long(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        path = f"/ocsp/{quote(base64.b64encode(await site.a_question()).decode(), safe='/+=')}"
        for one in (path, "/crl/issuing.crl", "/crl/root.crl", "/ca/issuing.cer"):
            got = await site.get(one)
            assert got.headers["cache-control"] == f"max-age={MAX_AGE_S}, public, no-transform, must-revalidate"
            assert got.headers["expires"].endswith("GMT")
            assert got.headers["last-modified"].endswith("GMT")
            again = await site.get(one, **{"If-None-Match": got.headers["etag"]})
            assert (again.status, again.body) == (304, b"")


async def test_a_list_is_found_by_its_purpose_and_by_its_key(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        issuing = site.answers.ca.hierarchy.issuing.certificate
        by_name, by_key = [await site.get(f"/crl/{name}.crl") for name in ("issuing", name_of_key(issuing))]
        assert by_name.body == by_key.body
        assert by_name.headers["content-type"] == LIST
        assert DistributionPoints("http://pki.example").crl(issuing).endswith(f"/crl/{name_of_key(issuing)}.crl")
        for path in ("/crl/nobody.crl", "/ca/..%2Froot.cer", "/ca/est.cer"):
            assert (await site.get(path)).status == 404


@pytest.mark.parametrize("text", ["", "!!!", "AAAA", "A" * 6000, "%00"])
async def test_what_is_no_request_is_malformed_and_kept_for_why(tmp_path: Path, text: str) -> None:
    async with a_site(tmp_path) as site:
        got = await site.get(f"/ocsp/{text}")
        assert (got.status, got.body) == (200, UnsignedStatus.MALFORMED.der)
        assert got.headers["cache-control"] == "no-store"
        assert site.refused == ["pki.ocsp_malformed"]


async def test_another_media_type_is_told_which_it_should_be(tmp_path: Path) -> None:
    async with a_site(tmp_path) as site:
        for media_type in ("", "application/json"):
            answer = await site.post(b"x", media_type)
            assert answer.status == 415
            assert REQUEST in answer.text
