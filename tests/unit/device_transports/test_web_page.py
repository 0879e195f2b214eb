"""Who answers is judged by what is said, not by its status."""

import pytest

from birthmark.device_transports.ports import HttpResponse
from birthmark.device_transports.web_page_detection import WebPageError, check_answer

URL, SERVICE = "https://dps.test:443/0ne/registrations/d", "the provisioning service"
HTML = {"content-type": "text/html; charset=utf-8"}


@pytest.mark.parametrize("status", [200, 202, 302, 401, 403, 404, 429, 503, 511])
def test_a_page_is_told_with_its_title_whatever_its_status(status: int) -> None:
    page = b"<!DOCTYPE html>\n<html><head><title>\n Blocked &amp; logged</title></head>"
    with pytest.raises(WebPageError) as refused:
        check_answer(HttpResponse(status, {}, page), URL, SERVICE)
    assert "'Blocked & logged'" in refused.value.explain_cause()
    assert f"dps.test:443 returned {status}" in refused.value.explain_cause()


@pytest.mark.parametrize("body", [b"Sign in", b"<HTML>", b"<!-- a --><html>", b" <head>"])
def test_a_page_without_a_title_is_one(body: bytes) -> None:
    with pytest.raises(WebPageError, match="web page"):
        check_answer(HttpResponse(200, HTML if body == b"Sign in" else {}, body), URL, SERVICE)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"message": "<html>"}', b"MIIB", b"Reference: a <b>", b"\0\xff"])
@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}, {"content-type": "text/plain"}])
def test_what_services_answer_is_no_page(body: bytes, headers: dict[str, str]) -> None:
    answer = HttpResponse(403, headers, body)
    assert check_answer(answer, URL, SERVICE) is answer


def test_an_empty_body_is_no_page_whatever_it_is_called() -> None:
    assert check_answer(HttpResponse(404, HTML, b""), URL, SERVICE).status == 404
