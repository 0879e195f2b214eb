"""Who gets a message: every subscription that matches, found by the shapes of filters alone."""

from collections import Counter
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.broker.connected_session import ConnectedSession
from birthmark.broker.model import NO_LOCAL, RETAIN_AS_PUBLISHED, BrokerMessage, Subscription, subscription_of
from birthmark.broker.rules import filter_shape_index as remembering
from birthmark.broker.rules.filter_shape_index import Shapes, shape_of
from birthmark.broker.topic_router import TopicRoute, TopicRouter, weight_of
from birthmark.mqtt.topics import is_valid_filter, matches

level_names = st.lists(st.sampled_from(["", "a", "b", "$a"]), min_size=1, max_size=4).map("/".join).filter(bool)
level_filters = (
    st.lists(st.sampled_from(["", "a", "b", "$a", "+", "#"]), min_size=1, max_size=5)
    .map("/".join)
    .filter(is_valid_filter)
)


@dataclass(frozen=True)
class Somebody:
    client: str


def somebody(client: str) -> ConnectedSession:
    return cast("ConnectedSession", Somebody(client))


def routed(router: TopicRouter, topic: str) -> dict[str, int]:
    route = router.find(topic)
    assert route is not None
    return {attached.client: qos for attached, qos, _ in route.live}


@given(st.sets(level_filters, max_size=12), level_names, st.booleans())
def test_the_candidates_that_are_there_are_the_filters_that_match(
    filters: set[str], topic: str, hash_matches_parent: bool
) -> None:
    shapes = Shapes(hash_matches_parent=hash_matches_parent)
    for one in filters:
        shapes.add(shape_of(one))
    found = shapes.candidates(topic)
    assert len(found) == len(set(found))
    assert set(found) & filters == {
        one for one in filters if matches(one, topic, hash_matches_parent=hash_matches_parent)
    }
    for one in filters:
        shapes.discard(shape_of(one))
    assert (len(shapes), shapes.candidates(topic)) == (0, [])


@given(
    st.lists(st.tuples(level_filters, st.sampled_from("xyz"), st.integers(0, 1), st.booleans()), max_size=12),
    level_names,
)
def test_routes_follow_every_change(steps: list[tuple[str, str, int, bool]], topic: str) -> None:
    router = TopicRouter(hash_matches_parent=True)
    people = {name: somebody(name) for name in "xyz"}
    there: dict[tuple[str, str], int] = {}
    for topic_filter, name, qos, comes in steps:
        one = Subscription(topic_filter, qos)
        if comes:
            router.add(people[name], one)
            there[topic_filter, name] = qos
        else:
            router.remove(people[name], one)
            there.pop((topic_filter, name), None)
        expected: dict[str, int] = {}
        for (known, who), granted in there.items():
            if matches(known, topic):
                expected[who] = max(granted, expected.get(who, 0))
        assert routed(router, topic) == expected


def test_what_is_stored_has_to_be_looked_up_and_is_remembered_until_it_changes() -> None:
    router = TopicRouter(hash_matches_parent=True)
    assert router.find("t") is not None
    router.stored_shapes.add(".")
    router.stored_changed()
    assert router.find("t") is None
    seen = router.changes
    route = router.build_route("t", [("c", Subscription("t", 1))], seen)
    assert route.stored == (("c", 1, 0),)
    assert router.find("t") is route
    router.stored_changed()
    assert router.find("t") is None
    router.build_route("t", [], seen)  # what was read before the change is of this one message only
    assert router.find("t") is None


def test_what_several_workers_have_is_remembered_with_the_worker_of_each_until_it_changes() -> None:
    router = TopicRouter(hash_matches_parent=True)
    router.stored_shapes.add(".")
    route = router.build_route("t", [("c", Subscription("t", 1))], router.changes, {"c": ("w2", False)})
    router.add(somebody("viewer"), Subscription("other", 1))  # makes all routes anew
    found = router.find("t")
    assert found is not None
    assert (found.stored, found.owners) == (route.stored, {"c": ("w2", False)})
    router.stored_changed()
    assert router.find("t") is None


def test_a_session_that_took_over_is_not_taken_out_by_the_old_one() -> None:
    router = TopicRouter(hash_matches_parent=True)
    old, new = somebody("c"), cast("ConnectedSession", [])
    router.add(old, Subscription("t", 1))
    router._live["t"]["c", ""] = (new, Subscription("t", 0))
    router.remove(old, Subscription("t", 1))
    assert "t" in router._live


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        (NO_LOCAL, NO_LOCAL, NO_LOCAL),
        (NO_LOCAL, 0, 0),
        (RETAIN_AS_PUBLISHED, 0, RETAIN_AS_PUBLISHED),
    ],
)
def test_of_two_that_fit_the_more_generous_counts(first: int, second: int, joined: int) -> None:
    router = TopicRouter(hash_matches_parent=True)
    for topic_filter, options in (("t", first), ("+", second)):
        router.add(client := somebody("c"), Subscription(topic_filter, 1, options))
    route = router.find("t")
    assert isinstance(route, TopicRoute)
    assert route.live[0][1:] == (1, joined)
    assert client.client == "c"


def test_a_shared_subscription_is_one_for_each_group_and_filter() -> None:
    router = TopicRouter(hash_matches_parent=True)
    for name, wanted in (("a", "$share/g/t"), ("b", "$share/g/t"), ("b", "$share/g/+"), ("a", "$share/h/t")):
        router.add(somebody(name), subscription_of(wanted, 1))
    route = router.find("t")
    assert route is not None
    assert sorted(len(share.members) for share in route.shares) == [1, 1, 2]
    pair = next(share for share in route.shares if len(share.members) == 2)
    turns = [next(pair.in_turn(0))[0] for _ in range(3)]
    assert turns in (["a", "b", "a"], ["b", "a", "b"])


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("members", [2, 3, 6])
def test_each_member_of_a_share_has_its_part_where_a_route_is_of_one_message(groups: int, members: int) -> None:
    router, got = TopicRouter(hash_matches_parent=True), Counter[str]()
    rows = [(f"c{n}", Subscription("t", 1, 0, f"g{group}")) for group in range(groups) for n in range(members)]
    owners = {client: ("w1", True) for client, _ in rows}
    for _ in range(600):
        route = router.build_route("t", rows, router.changes, owners)
        got[next(route.shares[0].in_turn(0))[0]] += 1
    assert len(got) == members
    assert max(got.values()) - min(got.values()) <= 0.1 * 600 / members


def test_each_member_has_its_part_however_often_what_was_looked_up_is_forgotten() -> None:
    router, got = TopicRouter(hash_matches_parent=True), Counter[str]()
    for name in "abcd":
        router.add(somebody(name), subscription_of("$share/g/t", 1))
    for _ in range(400):
        route = router.find("t")
        assert route is not None
        got[next(route.shares[0].in_turn(0))[0]] += 1
        router.stored_changed()
    assert max(got.values()) - min(got.values()) <= 20, got


def test_topics_that_fit_the_same_filters_share_one_route() -> None:
    router = TopicRouter(hash_matches_parent=True)
    router.add(somebody("live"), Subscription("m/#", 1))
    router.stored_shapes.add(".#")
    rows = [(f"c{number}", Subscription("m/#", 1)) for number in range(1000)]
    routes = {id(router.build_route(f"m/{number}", list(rows), router.changes)) for number in range(1000)}
    assert len(routes) == 1
    assert (router._stored.receivers, router._routes.receivers) == (1000, 1001)


def test_what_is_remembered_of_many_routes_is_bounded_by_their_receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "MAX_RECEIVERS", 500)
    router = TopicRouter(hash_matches_parent=True)
    router.stored_shapes.add("..")
    for number in range(50):
        rows = [(f"c{client}", Subscription(f"m/{number}", 1)) for client in range(100)]
        router.build_route(f"m/{number}", rows, router.changes)
    assert (router._stored.receivers, router._routes.receivers) == (500, 500)
    assert router.find("m/49") is not None
    assert router.find("m/0") is None


@pytest.mark.parametrize(
    ("size", "properties", "weight"), [(1, 0, 1), (8191, 31, 1), (8192, 0, 2), (1, 32, 2), (1, 1000, 32)]
)
def test_a_message_counts_by_its_bytes_and_its_properties(size: int, properties: int, weight: int) -> None:
    message = BrokerMessage("a", b"x" * size, properties=((38, ("name", "value")),) * properties)
    assert weight_of(message) == weight
    assert TopicRoute([(None, 0, 0)] * 5, [], [], {}).cost_of(message) == 5 * weight  # type: ignore[list-item]  # it is counted
