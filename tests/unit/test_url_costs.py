"""Foreign URLs cost what their first characters do: the standard library composes a host that is not ASCII."""

import time
from collections.abc import Callable

import pytest

from birthmark.awsiot.rules.topic_rule_evaluation import is_same_origin
from birthmark.dps.enrollment_document import host_of
from birthmark.errors import BirthmarkError
from birthmark.message_routing.delivery_model import Delivery
from birthmark.message_routing.sinks.http import host_of_letter
from birthmark.outbound.http_client import check_url
from birthmark.untrusted_json_and_text import split_url

_MARKS = "\u0300\u0316"


def cost(read: Callable[[str], object], marks: int) -> float:
    url = f"https://a{_MARKS * marks}/"
    began = time.thread_time()
    try:
        read(url)
    except (ValueError, BirthmarkError):
        pass
    return time.thread_time() - began


@pytest.mark.parametrize(
    "read",
    [
        split_url,
        host_of,
        lambda url: is_same_origin(url, "https://a/"),
        lambda url: check_url(url, allows_plain=True),
        lambda url: host_of_letter(Delivery("lane", "http", {"url": url}, b"", {})),
    ],
)
def test_a_url_of_many_marks_costs_no_more_than_one_of_few(read: Callable[[str], object]) -> None:
    few, many = (min(cost(read, marks) for _ in range(5)) for marks in (500, 16_000))
    assert many < few + 0.005
