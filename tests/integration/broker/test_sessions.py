"""Sessions of one worker on both databases: who gets what, what waits, what ends."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from birthmark.broker import SpaceRules, connected_session, namespace_sessions, store
from birthmark.broker.connected_session import MAX_HELD_BYTES
from birthmark.broker.errors import (
    RetainedFullError,
    RetainedShareUsedError,
    SessionShareUsedError,
    TooManySessionsError,
)
from birthmark.broker.model import NEVER, NO_LOCAL, RETAIN_AS_PUBLISHED, BrokerMessage, Will
from birthmark.errors import ChangedMeanwhileError, UnavailableError
from birthmark.iothub.domain_events import HubDeleted
from birthmark.mqtt.properties import PropertyId
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.store import Changes
from birthmark.store.sqlite import DatabaseUnavailableError
from birthmark.store.table_statements import change
from birthmark.supervised_tasks import FAILURES
from support.mqtt.broker_world import HOUR, Client, a_world, hold_what_is_submitted
from support.store.between import lose_the_next_answer

pytestmark = pytest.mark.integration
AWS = SpaceRules(hash_matches_parent=False)
T = TypeVar("T")


async def away(*_: object) -> Any:
    raise UnavailableError


def away_once(real: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """Fail the first time."""
    first = iter((away,))

    async def call(*given: Any) -> T:
        return await next(first, real)(*given)

    return call


async def test_a_message_goes_to_who_subscribed_with_the_lower_qos(database_url: str) -> None:
    async with a_world(database_url, AWS) as world:
        first, second = await world.connect("a"), await world.connect("b")
        await world.subscribe(first, "t/+", options=0)
        await world.subscribe(first, "t/#")
        await world.subscribe(second, "t")
        await world.subscribe(second, "t/#", options=0)
        await world.publish("t/x", b"1")
        await world.publish("t", b"2")
        assert first.got == [("t/x", b"1", 1)]  # AWS: t/# does not match t
        assert second.got == [("t/x", b"1", 0), ("t", b"2", 1)]
        await world.space.subscriptions.unsubscribe(first.attached, ("t/+", "t/#"))
        await world.leave(second)
        await world.publish("t/x", b"3")
        assert len(first.got) == 1
        assert len(second.got) == 2


async def test_a_session_goes_on_with_a_connection_that_it_will_not_outlive(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("last", expiry_s=HOUR)
        await world.subscribe(client, "t/#")
        await world.leave(client)
        await world.publish("t/1", b"1")
        again = await world.connect("last", expiry_s=0, clean=False)  # [MQTT-3.1.2-5]
        assert again.attached.session_present
        await world.publish("t/2", b"2")
        assert again.payloads == [b"1", b"2"]
        await world.leave(again)
        assert await world.space.record("last") is None
        assert not (await world.connect("last", expiry_s=HOUR)).attached.session_present


async def test_a_session_that_goes_on_for_the_last_time_ends_with_its_server_too(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("last", expiry_s=HOUR)
        await world.subscribe(client, "t/#")
        await world.leave(client)
        await world.connect("last", expiry_s=0, clean=False)
        await world.broker.stop()
        await world.start()
        assert not (await world.connect("last", expiry_s=HOUR, clean=False)).attached.session_present


async def test_a_stored_session_keeps_filters_and_messages_over_a_restart(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("kept", expiry_s=HOUR)
        await world.subscribe(client, "t/#", "gone")
        await world.space.subscriptions.unsubscribe(client.attached, ("gone",))
        await world.publish("t/1", b"1")
        assert client.payloads == [b"1"]
        await world.leave(client)
        await world.publish("t/2", b"2")
        await world.publish("t/3", b"3", qos=0)
        await world.broker.stop()
        await world.start()
        await world.publish("t/4", b"4")
        again = await world.connect("kept", expiry_s=HOUR)
        assert again.attached.session_present
        assert list(again.attached.subscriptions) == ["t/#"]
        assert again.payloads == [b"1", b"2", b"4"]
        assert again.duplicates == [b"1"]
        again.acknowledge(2)
        await world.leave(again)
        assert (await world.connect("kept", expiry_s=HOUR)).payloads == [b"4"]


async def test_what_is_sent_again_has_the_packet_id_it_had(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("c", expiry_s=HOUR)
        await world.subscribe(client, "t")
        for number in range(3):
            await world.publish("t", str(number).encode())
        client.acknowledge(1)
        await world.leave(client)
        again = await world.connect("c", expiry_s=HOUR)
        assert again.ids == client.ids[1:]
        assert again.duplicates == [b"1", b"2"]


async def test_a_clean_start_ends_the_stored_session(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("c", expiry_s=HOUR)
        await world.subscribe(client, "t")
        await world.leave(client)
        clean = await world.connect("c")
        await world.publish("t", b"1")
        assert clean.got == []
        await world.leave(clean)
        again = await world.connect("c", expiry_s=HOUR)
        assert not again.attached.session_present
        assert again.got == []


async def test_a_session_begun_clean_may_be_kept_afterwards(database_url: str) -> None:
    async with a_world(database_url) as world:
        old = await world.connect("c", expiry_s=HOUR)
        await world.subscribe(old, "old")
        await world.publish("old", b"0")
        await world.leave(old)
        client = await world.connect("c", expiry_s=HOUR, clean=True)
        assert not client.attached.session_present
        assert client.got == []
        await world.subscribe(client, "new")
        await world.leave(client)
        await world.publish("old", b"1")
        await world.publish("new", b"2")
        again = await world.connect("c", expiry_s=HOUR)
        assert again.attached.session_present
        assert again.payloads == [b"2"]


async def test_a_stored_session_runs_out_to_the_second(database_url: str) -> None:
    async with a_world(database_url) as world:
        for name in ("early", "late"):
            client = await world.connect(name, expiry_s=HOUR)
            await world.subscribe(client, "t")
            await world.leave(client)
            world.clock.move(timedelta(minutes=10))
        world.clock.move(timedelta(hours=1) - timedelta(minutes=10, seconds=1))
        await world.publish("t", b"1")
        assert not (await world.connect("early", expiry_s=HOUR)).attached.session_present
        late = await world.connect("late", expiry_s=HOUR)
        assert late.attached.session_present
        assert late.payloads == [b"1"]
        await world.leave(late)
        world.clock.move(timedelta(hours=1))
        await world.broker.process_due_items()
        assert await world.space.record("late") is None
        assert not (await world.connect("late", expiry_s=HOUR)).attached.session_present


async def test_a_session_that_never_expires_stays(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.leave(await world.connect("c", expiry_s=NEVER))
        world.clock.move(timedelta(days=3000))
        await world.broker.process_due_items()
        assert (await world.connect("c", expiry_s=NEVER)).attached.session_present


async def test_a_disconnect_may_end_the_session_at_once(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("c", expiry_s=HOUR)
        await world.subscribe(client, "t")
        await world.leave(client, expiry_s=0)
        assert not (await world.connect("c", expiry_s=HOUR)).attached.session_present


async def test_who_was_connected_at_a_crash_has_the_whole_time_to_come_back(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("c", expiry_s=HOUR)
        await world.subscribe(client, "t")
        await world.publish("t", b"1")
        world.clock.move(timedelta(days=2))
        await world.start()
        assert world.observer.lost_clients == ["c"]
        world.clock.move(timedelta(minutes=59))
        again = await world.connect("c", expiry_s=HOUR)
        assert again.attached.session_present
        assert again.payloads == [b"1"]


async def test_on_a_full_disk_nothing_more_waits_for_clients_that_are_away(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("c", expiry_s=HOUR)
        await world.subscribe(client, "t")
        await world.leave(client)
        for has_room, payload in ((True, b"1"), (False, b"2"), (True, b"3")):
            world.has_room = has_room
            await world.publish("t", payload)
        assert (await world.connect("c", expiry_s=HOUR)).payloads == [b"1", b"3"]


async def test_on_a_full_disk_nothing_more_is_retained_and_what_is_can_be_deleted(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.publish("kept", b"1", retain=True)
        world.has_room = False
        for topic in ("kept", "new"):
            with pytest.raises(DatabaseUnavailableError):
                await world.publish(topic, b"2", retain=True)
        assert [row["topic"] for row in (await world.space.retained.topics("", 9)).items] == ["kept"]
        await world.publish("kept", b"", retain=True)
        assert (await world.space.retained.topics("", 9)).items == []


async def test_a_session_takes_a_limited_number_and_says_so(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_waiting=3)) as world:
        client = await world.connect("c", expiry_s=HOUR, principal="its key")
        await world.subscribe(client, "t")
        assert world.space.principal_of("c") == "its key"
        await world.leave(client)
        for number in range(5):
            await world.publish("t", str(number).encode())
        assert world.observer.overruns == ["c", "c"]
        assert [world.space.principal_of(name) for name in ("c", "unknown")] == ["its key", "unknown"]
        assert (await world.connect("c", expiry_s=HOUR)).payloads == [b"0", b"1", b"2"]


async def test_a_slow_client_gets_everything_in_order_and_holds_little(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_waiting=2000)) as world:
        client = await world.connect("c", expiry_s=HOUR, window=10)
        await world.subscribe(client, "t")
        for start in range(0, 1000, 100):
            sent = [BrokerMessage("t", str(number).encode(), 1) for number in range(start, start + 100)]
            if (waiting := world.space.messages.publish(sent, lambda _problem: None)) is not None:
                await waiting
        await world.broker.wait_until_settled()
        assert len(client.got) == 10
        assert client.attached.outgoing is not None
        assert len(client.attached.outgoing._ready) <= 256
        while len(client.got) < 1000:
            before = len(client.got)
            client.acknowledge()
            await world.broker.wait_until_settled()
            assert len(client.got) > before
        assert client.payloads == [str(number).encode() for number in range(1000)]


async def test_a_takeover_ends_the_old_connection_and_it_changes_nothing_more(database_url: str) -> None:
    async with a_world(database_url) as world:
        first = await world.connect("c")
        await world.subscribe(first, "t", options=0)
        second = await world.connect("c")
        assert first.ended is CloseReason.TAKEN_OVER
        await world.subscribe(second, "t", options=0)
        await world.leave(first)
        await world.publish("t", b"1")
        assert (first.got, second.got) == ([], [("t", b"1", 0)])


async def test_a_takeover_goes_on_with_what_is_not_acknowledged(database_url: str) -> None:
    async with a_world(database_url) as world:
        first = await world.connect("c", expiry_s=HOUR)
        await world.subscribe(first, "t")
        for number in range(3):
            await world.publish("t", str(number).encode())
        first.acknowledge(1)
        second = await world.connect("c", expiry_s=HOUR)
        assert second.payloads == [b"1", b"2"]


async def test_many_that_take_over_from_each_other_leave_one(database_url: str) -> None:
    async with a_world(database_url) as world:
        waiting = [world.connect("c", expiry_s=HOUR, held=True) for _ in range(10)]
        came = await asyncio.gather(*waiting, return_exceptions=True)
        clients = [one for one in came if isinstance(one, Client)]
        assert all(isinstance(one, Client | ChangedMeanwhileError) for one in came)
        assert [client.ended for client in clients].count(None) == 1
        assert [client.attached.is_over for client in clients].count(False) == 1


async def test_of_too_many_sessions_the_one_that_is_away_longest_goes(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_sessions=2)) as world:
        for name in ("first", "second"):
            await world.leave(await world.connect(name, expiry_s=HOUR))
            world.clock.move(timedelta(minutes=1))
        await world.connect("third", expiry_s=HOUR)
        assert (await world.connect("second", expiry_s=HOUR)).attached.session_present
        with pytest.raises(TooManySessionsError):  # all of them are connected
            await world.connect("first", expiry_s=HOUR)


async def test_a_message_for_several_sessions_is_kept_once_and_goes_when_nobody_needs_it(database_url: str) -> None:
    async with a_world(database_url) as world:
        clients = [await world.connect(name, expiry_s=HOUR) for name in ("a", "b", "c")]
        for client in clients:
            await world.subscribe(client, "t")
            await world.leave(client)
        await world.publish("t", b"shared")
        world.clock.move(timedelta(minutes=10))
        for name in ("a", "b", "c"):
            await world.broker.process_due_items()
            client = await world.connect(name, expiry_s=HOUR)
            assert client.payloads == [b"shared"]
            client.acknowledge()
            await world.leave(client)
        world.clock.move(timedelta(minutes=10))
        await world.broker.process_due_items()
        assert await world.broker.last_message() == 0


# ---- what MQTT 5 adds


async def test_no_local_spares_the_publisher(database_url: str) -> None:
    async with a_world(database_url) as world:
        client, other = await world.connect("a"), await world.connect("b", expiry_s=HOUR)
        for one in (client, other):
            await world.subscribe(one, "t", options=1 | NO_LOCAL)
        await world.publish("t", b"1", publisher="a")
        await world.publish("t", b"2", publisher="b")
        assert (client.payloads, other.payloads) == ([b"2"], [b"1"])


async def test_retain_as_published_keeps_the_flag(database_url: str) -> None:
    async with a_world(database_url) as world:
        plain, kept = await world.connect("a"), await world.connect("b", expiry_s=HOUR)
        await world.subscribe(plain, "t")
        await world.subscribe(kept, "t", options=1 | RETAIN_AS_PUBLISHED)
        await world.publish("t", b"1", retain=True)
        assert (plain.payloads, plain.retained) == ([b"1"], [])
        assert (kept.payloads, kept.retained) == ([b"1"], [b"1"])


async def test_a_shared_subscription_gives_each_message_to_one(database_url: str) -> None:
    async with a_world(database_url) as world:
        members = [await world.connect("a"), await world.connect("b", expiry_s=HOUR)]
        for one in members:
            await world.subscribe(one, "$share/g/t/+")
        alone = await world.connect("c")
        await world.subscribe(alone, "$share/other/t/+")
        for number in range(6):
            await world.publish("t/x", str(number).encode())
        assert sorted(members[0].payloads + members[1].payloads) == [str(n).encode() for n in range(6)]
        assert len(members[0].got) == len(members[1].got) == 3
        assert len(alone.got) == 6


@pytest.mark.parametrize("expiry_s", [0, 600])
async def test_a_member_that_may_not_get_it_takes_nothing_of_a_shared_subscription(
    database_url: str, expiry_s: int
) -> None:
    async with a_world(database_url) as world:
        members = [await world.connect(f"c{number}", expiry_s=expiry_s) for number in range(3)]
        for member in members:
            await world.subscribe(member, "$share/g/t")
        members[1].takes = False
        for number in range(12):
            await world.publish("t", b"%d" % number)
        got = [len(member.got) for member in members]
        assert (sum(got), got[1], min(got[0], got[2])) == (12, 0, 4)
        members[1].takes = True
        for number in range(12):
            await world.publish("t", b"%d" % number)
        assert len(members[1].got) >= 4


async def test_a_shared_subscription_of_nobody_connected_waits_in_a_stored_session(database_url: str) -> None:
    async with a_world(database_url) as world:
        member = await world.connect("a", expiry_s=HOUR)
        await world.subscribe(member, "$share/g/t")
        await world.leave(member)
        await world.publish("t", b"1")
        assert (await world.connect("a", expiry_s=HOUR)).payloads == [b"1"]


async def test_a_message_that_expired_is_not_sent_and_counts_as_done(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("c", expiry_s=HOUR)
        await world.subscribe(client, "t")
        await world.leave(client)
        await world.publish("t", b"late", expires_at=world.space.now() + 5_000_000)
        await world.publish(
            "t", b"kept", properties=((PropertyId.CONTENT_TYPE, "a"), (PropertyId.USER_PROPERTY, ("b", "c")))
        )
        world.clock.move(timedelta(seconds=5))
        again = await world.connect("c", expiry_s=HOUR)
        assert again.payloads == [b"kept"]
        again.acknowledge()
        await world.leave(again)
        record = await world.space.record("c")
        assert record is not None
        assert record.cursor == record.tail == 2


def a_will(delay_s: int = 0) -> Will:
    return Will(BrokerMessage("will", b"gone", 1), delay_s)


async def test_a_will_is_published_unless_the_client_says_goodbye(database_url: str) -> None:
    async with a_world(database_url) as world:
        hearer = await world.connect("hearer")
        await world.subscribe(hearer, "will")
        await world.leave(await world.connect("polite", will=a_will()))
        assert hearer.got == []
        await world.leave(await world.connect("rude", will=a_will()), with_will=True)
        await world.connect("c", will=a_will())
        await world.connect("c")  # takes over
        await world.broker.wait_until_settled()
        assert len(hearer.got) == 2


async def test_a_delayed_will_waits_and_is_forgotten_when_the_client_returns(database_url: str) -> None:
    async with a_world(database_url) as world:
        hearer = await world.connect("hearer")
        await world.subscribe(hearer, "will")
        for name in ("returns", "stays-away"):
            await world.leave(await world.connect(name, expiry_s=HOUR, will=a_will(60)), with_will=True)
        world.clock.move(timedelta(seconds=59))
        await world.broker.process_due_items()
        await world.connect("returns", expiry_s=HOUR)
        assert hearer.got == []
        world.clock.move(timedelta(seconds=1))
        await world.broker.process_due_items()
        await world.broker.wait_until_settled()
        assert len(hearer.got) == 1


async def test_a_delayed_will_goes_out_when_its_session_ends_first(database_url: str) -> None:
    async with a_world(database_url) as world:
        hearer = await world.connect("hearer")
        await world.subscribe(hearer, "will")
        await world.leave(await world.connect("c", expiry_s=10, will=a_will(60)), with_will=True)
        world.clock.move(timedelta(seconds=10))
        await world.broker.process_due_items()
        await world.broker.wait_until_settled()
        assert len(hearer.got) == 1
        await world.leave(await world.connect("d", expiry_s=HOUR, will=a_will(60)), with_will=True)
        await world.connect("d")  # a clean start ends the session
        await world.broker.wait_until_settled()
        assert len(hearer.got) == 2


async def test_the_will_of_a_client_whose_server_was_killed_is_published(database_url: str) -> None:
    async with a_world(database_url) as world:
        hearer = await world.connect("hearer", expiry_s=HOUR)
        await world.subscribe(hearer, "will")
        await world.connect("c", expiry_s=HOUR, will=a_will())
        await world.start()
        await world.broker.wait_until_settled()
        assert (await world.connect("hearer", expiry_s=HOUR)).payloads == [b"gone"]


async def test_retained_messages_are_counted_once_whatever_comes_together(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_retained=2)) as world:
        for payload, count in ((b"x", 1), (b"", 0)):
            await asyncio.gather(*(world.publish("a", payload, retain=True) for _ in range(10)))
            assert world.space.retained.count == count
        many = [BrokerMessage("a", payload, 1, True) for payload in (b"x", b"", b"", b"y", b"z")]
        for waiting in [world.space.messages.publish(many, lambda _problem: None) for _ in range(2)]:
            assert waiting is not None
            await waiting
        await world.broker.wait_until_settled()
        assert world.space.retained.count == 1


async def test_one_principal_keeps_a_fourth_of_the_retained_messages_and_others_are_served(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_retained=16)) as world:
        for topic in ("a", "b", "c", "d", "a"):
            await world.publish(topic, retain=True, principal="one")
        with pytest.raises(RetainedShareUsedError):
            await world.publish("e", retain=True, principal="one")
        await world.publish("e", retain=True, principal="another")
        await world.publish("a", b"", retain=True, principal="one")
        await world.publish("f", retain=True, principal="one")


async def test_who_lets_a_retained_message_stay_after_all_has_it_in_its_share(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_retained=16)) as world:
        soon = world.space.now() + 1_000_000
        for topic in ("a", "b", "c", "d"):
            await world.publish(topic, retain=True, principal="one", expires_at=soon)
            await world.publish(topic, retain=True, principal="one")
        world.clock.move(timedelta(minutes=2))
        await world.broker.process_due_items()
        assert world.space.retained.count == 4
        with pytest.raises(RetainedShareUsedError):
            await world.publish("e", retain=True, principal="one")


async def test_who_is_not_known_keeps_a_fourth_of_the_retained_messages_too(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_retained=16)) as world:
        for topic in ("a", "b", "c", "d"):
            await world.publish(topic, retain=True)
        with pytest.raises(RetainedShareUsedError):
            await world.publish("e", retain=True)
        await world.publish("e", retain=True, principal="another")


@pytest.mark.parametrize("delay_s", [0, 5])
async def test_a_will_that_is_retained_counts_as_its_principals_share(database_url: str, delay_s: int) -> None:
    async with a_world(database_url, SpaceRules(max_retained=16)) as world:
        for number in range(5):
            will = Will(
                BrokerMessage(f"will/{number}", b"gone", 1, True, publisher=f"c{number}", principal="one"), delay_s
            )
            await world.leave(await world.connect(f"c{number}", expiry_s=HOUR, will=will), with_will=True)
        world.clock.move(timedelta(seconds=delay_s))
        await world.broker.process_due_items()
        await world.broker.wait_until_settled()
        assert world.space.retained.count == 4
        with pytest.raises(RetainedShareUsedError):
            await world.publish("e", retain=True, principal="one")
        await world.publish("e", retain=True, principal="another")


async def test_one_principal_has_a_fourth_of_the_stored_sessions_and_others_are_served(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_sessions=16)) as world:
        for number in range(4):
            await world.connect(f"loud-{number}", expiry_s=HOUR, principal="one")
        with pytest.raises(SessionShareUsedError):
            await world.connect("loud-4", expiry_s=HOUR, principal="one")
        await world.connect("quiet", expiry_s=HOUR, principal="another")
        await world.connect("loud-1", expiry_s=HOUR, principal="one")  # which it has
        await world.connect("loud-4", principal="one")  # a clean one is no share of anything


async def test_sessions_stay_their_makers_whoever_takes_them_over(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_sessions=16)) as world:
        for number in range(4):
            await world.connect(f"c{number}", expiry_s=HOUR, principal="one")
        for number in range(4):
            await world.connect(f"c{number}", expiry_s=HOUR, principal="its next certificate")
        with pytest.raises(SessionShareUsedError):
            await world.connect("c4", expiry_s=HOUR, principal="one")


async def test_a_session_that_subscribed_to_nothing_leaves_nothing_of_a_share(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_sessions=16, routes=False)) as world:
        for number in range(9):
            await world.leave(await world.connect(f"c{number}", expiry_s=HOUR, principal="one"))


async def test_sessions_that_begin_together_share_what_is_left(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_sessions=16)) as world:
        waiting = [world.connect(f"c{number}", expiry_s=HOUR, principal="one") for number in range(9)]
        came = await asyncio.gather(*waiting, return_exceptions=True)
        assert sum(isinstance(one, SessionShareUsedError) for one in came) == 5


async def test_one_principal_has_so_many_stored_sessions_however_many_there_may_be(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_sessions=1000, max_sessions_per_key=2)) as world:
        for number in range(2):
            await world.connect(f"loud-{number}", expiry_s=HOUR, principal="one")
        with pytest.raises(SessionShareUsedError) as refused:
            await world.connect("loud-2", expiry_s=HOUR, principal="one")
        assert "limits.max_sessions_per_key = 4" in refused.value.explain_fix()
        await world.connect("quiet", expiry_s=HOUR, principal="another")


async def test_retained_messages_that_expired_leave_room(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_retained=2)) as world:
        expires_at = world.space.now() + 1_000_000
        for topic in ("a", "b"):
            await world.publish(topic, retain=True, expires_at=expires_at)
        world.clock.move(timedelta(minutes=2))
        await world.broker.process_due_items()
        assert world.space.retained.count == 0
        await world.publish("c", retain=True)


async def test_retained_messages_that_expired_leave_room_beside_others_on_their_way(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url, SpaceRules(max_retained=16)) as world:
        expires_at = world.space.now() + 1_000_000
        await world.publish("steady", retain=True, principal="another")
        for topic in ("a", "b", "c", "d"):
            await world.publish(topic, retain=True, expires_at=expires_at, principal="one")
        world.clock.move(timedelta(minutes=2))
        go_on = hold_what_is_submitted(world.database, monkeypatch)
        on_their_way = [
            asyncio.ensure_future(world.publish(topic, retain=True, principal="another")) for topic in ("steady", "new")
        ]
        await asyncio.sleep(0.05)
        await world.broker.process_due_items()
        assert world.space.retained.count == 2
        go_on.set()
        await asyncio.gather(*on_their_way)
        assert world.space.retained.count == 2
        await world.publish("e", retain=True, principal="one")


async def test_retained_messages_are_kept_replaced_and_deleted(database_url: str) -> None:
    async with a_world(database_url, SpaceRules(max_retained=2)) as world:
        await world.publish("a", b"1", retain=True)
        await world.publish("a", b"2", retain=True)
        await world.publish("b", b"3", retain=True, expires_at=world.space.now() + 1)
        kept = await world.space.retained.of("a")
        assert kept is not None
        assert (kept[0].payload, kept[0].retain) == (b"2", True)
        with pytest.raises(RetainedFullError):
            await world.publish("c", b"4", retain=True)
        await world.publish("a", b"", retain=True)
        assert await world.space.retained.of("a") is None
        world.clock.move(timedelta(seconds=1))
        assert await world.space.retained.of("b") is None


async def test_what_a_client_may_not_get_counts_as_done(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("c", expiry_s=HOUR)
        client.takes = False
        await world.subscribe(client, "t")
        await world.publish("t", b"1")
        await world.leave(client)
        assert (await world.connect("c", expiry_s=HOUR)).got == []


async def test_nothing_is_delivered_before_the_hold_is_over(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("c", held=True)
        await world.subscribe(client, "t", options=0)
        await world.publish("t", b"1")
        assert client.got == []
        client.attached.resume()
        assert client.payloads == [b"1"]


async def test_an_answer_of_the_database_that_is_lost_is_no_refusal_of_a_message(postgres_url: str) -> None:
    async with a_world(postgres_url) as world:
        away, here = await world.connect("away", expiry_s=HOUR), await world.connect("here", expiry_s=HOUR)
        for client in (away, here):
            await world.subscribe(client, "t")
        await world.leave(away)
        for number in range(3):
            if number == 1:
                lose_the_next_answer(world.database)
            await world.publish("t", str(number).encode())
        again = await world.connect("away", expiry_s=HOUR)
        for client in (again, here):
            assert list(dict.fromkeys(client.payloads)) == [b"0", b"1", b"2"]
        assert here.ended is None


async def test_an_answer_of_the_database_that_is_lost_is_no_refusal_of_a_subscription(postgres_url: str) -> None:
    async with a_world(postgres_url) as world:
        client = await world.connect("c", expiry_s=HOUR)
        lose_the_next_answer(world.database)
        assert await world.subscribe(client, "t") == [True]
        lose_the_next_answer(world.database)
        assert await world.space.subscriptions.unsubscribe(client.attached, ["t"]) == [True]
        assert client.ended is None


async def test_a_session_whose_claim_was_kept_without_an_answer_runs_out(postgres_url: str) -> None:
    async with a_world(postgres_url) as world:
        await world.subscribe(watcher := await world.connect("watcher"), "gone")
        lose_the_next_answer(world.database)
        with pytest.raises(UnavailableError):
            await world.connect("c", expiry_s=HOUR, will=Will(BrokerMessage("gone", b"x", 1)))
        await world.broker.wait_until_settled()
        left = await world.space.record("c")
        assert left is not None
        assert left.owner is None
        world.clock.move(timedelta(seconds=HOUR))
        await world.broker._look()
        await world.broker.wait_until_settled()
        assert await world.space.record("c") is None
        assert (watcher.payloads, world.observer.lost_clients) == ([], [])  # it never was connected


async def test_a_session_whose_connection_fails_after_its_claim_runs_out(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        await world.leave(await world.connect("c", expiry_s=HOUR))
        with monkeypatch.context() as patched:
            patched.setattr(world.space.subscriptions, "stored", away)
            with pytest.raises(UnavailableError):
                await world.connect("c", expiry_s=HOUR)
        await world.broker.wait_until_settled()
        left = await world.space.record("c")
        assert left is not None
        assert left.owner is None


async def test_who_came_while_the_next_one_waited_is_over_where_that_one_fails_after_its_claim(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it lives on, and nobody has the session: another worker takes it, and ends no connection here."""
    async with a_world(database_url) as world:
        real, looks = world.space.subscriptions.stored, iter(range(2))
        await world.leave(await world.connect("c", expiry_s=HOUR))

        async def away_the_second_time(client: str) -> Any:
            return await (away if next(looks) else real)(client)

        monkeypatch.setattr(world.space.subscriptions, "stored", away_the_second_time)
        together = [world.connect("c", expiry_s=HOUR, held=True) for _ in range(2)]
        first, second = await asyncio.gather(*together, return_exceptions=True)
        assert isinstance(first, Client)
        assert isinstance(second, UnavailableError)
        await world.broker.wait_until_settled()
        left = await world.space.record("c")
        assert left is not None
        assert left.owner is None
        assert first.ended is CloseReason.TAKEN_OVER
        assert first.attached.is_over


@pytest.mark.parametrize("expiry_s", [0, HOUR])
async def test_a_claim_that_was_not_kept_and_is_let_go_of_late_takes_nothing_from_the_next(
    database_url: str, monkeypatch: pytest.MonkeyPatch, expiry_s: int
) -> None:
    async with a_world(database_url) as world:
        await world.subscribe(client := await world.connect("c", expiry_s=HOUR), "t")
        await world.leave(client)
        is_back = asyncio.Event()

        async def until_it_is_back(_: float) -> None:
            await is_back.wait()

        monkeypatch.setattr(world.broker, "sleep", until_it_is_back)
        monkeypatch.setattr(world.space, "_release_now", away_once(world.space._release_now))
        with monkeypatch.context() as patched:
            patched.setattr(world.database, "commit", away)
            with pytest.raises(UnavailableError):
                await world.connect("c", expiry_s=expiry_s, clean=False)
        again = await world.connect("c", expiry_s=expiry_s, clean=False, held=True)
        is_back.set()
        await world.broker.wait_until_settled()
        record = await world.space.record("c")
        assert record is not None
        assert (record.owner, record.epoch) == (world.space.worker, again.attached.epoch)
        again.attached.resume()
        await world.publish("t", b"1")
        assert again.payloads == [b"1"]


async def test_a_will_is_told_once_where_the_connection_that_takes_over_fails(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        await world.subscribe(watcher := await world.connect("watcher"), "gone")
        await world.connect("c", expiry_s=HOUR, will=Will(BrokerMessage("gone", b"x", 1)))
        with monkeypatch.context() as patched:
            patched.setattr(world.space, "record", away)
            with pytest.raises(UnavailableError):
                await world.connect("c", expiry_s=HOUR)
        await world.broker.wait_until_settled()
        assert (watcher.payloads, world.observer.lost_clients) == ([b"x"], [])


async def test_a_will_that_was_taken_back_stays_so_where_the_next_connection_fails(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        await world.subscribe(watcher := await world.connect("watcher"), "gone")
        client = await world.connect("c", expiry_s=HOUR, will=Will(BrokerMessage("gone", b"x", 1)))
        with monkeypatch.context() as patched:
            patched.setattr(namespace_sessions, "_RELEASE_AGAIN_S", 0.0)
            patched.setattr(world.space, "record", away)
            patched.setattr(world.space, "_release_now", away_once(world.space._release_now))
            world.space.disconnect(client.attached, CloseReason.DISCONNECT, with_will=False)
            with pytest.raises(UnavailableError):
                await world.connect("c", expiry_s=HOUR)
            await world.broker.wait_until_settled()
        left = await world.space.record("c")
        assert left is not None
        assert left.owner is None
        assert (watcher.payloads, world.observer.lost_clients) == ([], [])


async def test_a_queue_goes_on_when_its_database_is_back(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_world(database_url) as world:
        await world.subscribe(client := await world.connect("c", expiry_s=HOUR), "t")
        await world.leave(client)
        for number in range(3):
            await world.publish("t", str(number).encode())
        monkeypatch.setattr(connected_session, "_AGAIN_S", 0.0)
        monkeypatch.setattr(world.space, "queued_after", away_once(world.space.queued_after))
        again = await world.connect("c", expiry_s=HOUR)
        assert again.payloads == [b"0", b"1", b"2"]
        assert again.ended is None


async def test_what_is_held_back_is_bounded_by_its_size_too(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("c")
        await world.subscribe(client, "t")
        client.attached.hold()
        large = bytes(1024 * 1024)
        for _ in range(MAX_HELD_BYTES // len(large) + 2):
            await world.publish("t", large)
        assert world.observer.overruns == ["c", "c"]
        client.attached.resume()
        assert client.payloads == [large] * (MAX_HELD_BYTES // len(large))


async def test_a_will_that_nobody_can_read_keeps_no_other_session_from_its_end(database_url: str) -> None:
    async with a_world(database_url) as world:
        for name in ("broken", "fine"):
            await world.leave(
                await world.connect(name, expiry_s=HOUR, will=Will(BrokerMessage(f"gone/{name}", b"x", 1)))
            )
        spoil = change(store.sessions, ("will", "will_at"), "space", "client")
        row: dict[str, Any] = {"key_space": "test", "key_client": "broken", "will": b"\xc1"}
        await world.database.commit(Changes().run(spoil, will_at=world.space.now(), **row))
        world.clock.move(timedelta(hours=2))
        await world.broker._look()
        await world.broker.wait_until_settled()
        assert world.space.stored == 0
        assert world.broker._due is not None  # it looks again


async def test_a_mistake_in_a_queue_is_told_to_its_publisher_and_later_messages_go(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("stored", expiry_s=HOUR)
        await world.subscribe(client, "a")

        async def broken(_batch: object) -> None:
            raise KeyError("a mistake of ours")

        with monkeypatch.context() as patched:
            patched.setattr(world.broker.appends, "_write", broken)
            with pytest.raises(KeyError):
                await world.publish("a", b"lost", publisher="p")
        await world.space.messages.until_safe("p")  # nobody is locked out
        await world.publish("a", b"kept", publisher="p")
        assert client.payloads == [b"kept"]


async def test_a_mistake_of_whoever_hears_of_a_commit_leaves_its_caller_answered(database_url: str) -> None:
    async with a_world(database_url) as world:

        def broken(_events: object, _is_sure: bool) -> None:
            raise KeyError("a mistake of ours")

        world.database.on_events(broken)
        FAILURES.clear()
        await world.database.commit(Changes().event(HubDeleted("none")))
        assert FAILURES["hearing of a commit"] == 1


async def test_messages_for_several_leave_the_disk_after_the_clock_was_ahead(database_url: str) -> None:
    async with a_world(database_url) as world:
        names = [await world.connect(name, expiry_s=NEVER, clean=False) for name in "ab"]
        for client in names:
            await world.subscribe(client, "t")
        world.clock.jump(timedelta(days=365))
        await world.broker.process_due_items()
        await world.publish("t", b"ahead")
        world.clock.jump(timedelta(days=-365))
        await world.publish("t", b"after")
        for client in names:
            client.acknowledge()
            await world.leave(client)
        assert await world.broker.last_message() != 0
        for _ in range(2):
            world.clock.move(timedelta(minutes=2))
            await world.broker.process_due_items()
        assert await world.broker.last_message() == 0


AHEAD = timedelta(hours=3)


async def test_a_clock_that_is_ahead_for_a_moment_ends_no_session_and_loses_no_message(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("c", expiry_s=HOUR)
        await world.subscribe(client, "t")
        await world.leave(client)
        await world.publish("t", b"before")
        world.clock.jump(AHEAD)
        await world.broker.process_due_items()
        await world.publish("t", b"meanwhile")
        world.clock.jump(-AHEAD)
        again = await world.connect("c", expiry_s=HOUR)
        assert again.attached.session_present
        assert again.payloads == [b"before", b"meanwhile"]


async def test_who_comes_back_while_the_clock_is_ahead_finds_the_session(database_url: str) -> None:
    async with a_world(database_url) as world:
        client = await world.connect("c", expiry_s=HOUR)
        await world.subscribe(client, "t")
        await world.leave(client)
        world.clock.jump(AHEAD)
        assert (await world.connect("c", expiry_s=HOUR)).attached.session_present


async def test_a_session_that_ran_out_by_a_clock_that_goes_on_so_ends(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.leave(await world.connect("c", expiry_s=HOUR))
        world.clock.jump(AHEAD)
        await world.broker.process_due_items()
        world.clock.move(timedelta(minutes=10))
        await world.broker.process_due_items()
        assert await world.space.record("c") is None


async def test_a_clock_that_is_ahead_for_a_moment_drops_nothing_that_is_retained(database_url: str) -> None:
    async with a_world(database_url) as world:
        expires_at = world.space.now() + HOUR * 1_000_000
        await world.publish("t", b"kept", retain=True, expires_at=expires_at)
        world.clock.jump(AHEAD)
        world.clock.move(timedelta(minutes=2))  # the next sweep
        await world.broker.process_due_items()
        world.clock.jump(-AHEAD)
        assert await world.space.retained.of("t") is not None
