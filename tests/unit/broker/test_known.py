"""What is remembered of topics grows neither with topics nor with receivers beyond its bounds."""

import pytest

from birthmark.broker.rules import filter_shape_index
from birthmark.broker.rules.filter_shape_index import RouteCache


@pytest.fixture(autouse=True)
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_shape_index, "MAX_TOPICS", 3)
    monkeypatch.setattr(filter_shape_index, "MAX_RECEIVERS", 10)


def test_topics_that_lead_to_the_same_filters_share_what_they_lead_to() -> None:
    memory: RouteCache[list[str]] = RouteCache()
    first = memory.put("a/1", ("a/#",), ["c"], 8)
    assert memory.put("a/2", ("a/#",), ["c"], 8) is first
    assert memory.of["a/2"] is memory.find(("a/#",)) is first
    assert memory.receivers == 8


def test_beyond_so_many_receivers_the_oldest_topics_go() -> None:
    memory: RouteCache[str] = RouteCache()
    for topic in ("a", "b", "c"):
        memory.put(topic, topic, topic, 4)
    assert (list(memory.of), memory.receivers) == (["b", "c"], 8)


def test_beyond_so_many_topics_the_oldest_goes_and_what_others_share_stays() -> None:
    memory: RouteCache[str] = RouteCache()
    for topic in ("a", "b", "c", "d"):
        memory.put(topic, "all", "all", 4)
    assert (list(memory.of), memory.receivers) == (["b", "c", "d"], 4)


def test_what_is_larger_than_the_bound_is_kept_alone() -> None:
    memory: RouteCache[str] = RouteCache()
    memory.put("a", "a", "a", 4)
    memory.put("b", "b", "b", 1000)
    assert (list(memory.of), memory.receivers) == (["b"], 1000)
    memory.put("c", "c", "c", 4)
    assert (list(memory.of), memory.receivers) == (["c"], 4)


def test_a_topic_that_leads_elsewhere_now_is_no_more_what_it_was() -> None:
    memory: RouteCache[str] = RouteCache()
    memory.put("a", "first", "first", 4)
    memory.put("a", "second", "second", 1)
    assert (memory.of["a"], memory.find("first"), memory.receivers) == ("second", None, 1)
    memory.clear()
    assert (dict(memory.of), memory.find("second"), memory.receivers) == ({}, None, 0)
