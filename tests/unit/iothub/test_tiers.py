from datetime import date
from functools import partial

import pytest

from birthmark.iothub.http.service_api import kind_of, size_of
from birthmark.iothub.rules.tier_throttles_and_quotas import (
    MAX_UNITS,
    Allowance,
    Edition,
    HubThrottle,
    ThrottleClass,
    Tier,
    TierInvalidError,
    TierQuotaError,
    TierThrottledError,
    TooManyDevicesError,
    edition_of,
    parse_edition,
)

TODAY, TOMORROW = date(2026, 1, 1), date(2026, 1, 2)
S1, F1 = Edition(Tier.S1), Edition(Tier.F1)


@pytest.mark.parametrize(
    ("edition", "what", "told"),
    [
        (F1, ThrottleClass.TELEMETRY, "100 per second"),
        (S1, ThrottleClass.TELEMETRY, "100 per second"),
        (Edition(Tier.S1, 10), ThrottleClass.TELEMETRY, "120 per second"),
        (Edition(Tier.S2, 2), ThrottleClass.TELEMETRY, "240 per second"),
        (Edition(Tier.S3, 2), ThrottleClass.CONNECTION, "12,000 per second"),
        (S1, ThrottleClass.CONNECTION, "100 per second"),
        (Edition(Tier.S2, 3), ThrottleClass.MAIL, "300 per minute"),
        (Edition(Tier.S3), ThrottleClass.REGISTRY, "5,000 per minute"),
        (Edition(Tier.S2), ThrottleClass.METHOD, "480 per second"),
        (Edition(Tier.S3), ThrottleClass.METHOD, "24,576 per second"),
        (S1, ThrottleClass.TWIN_READ, "100 per second"),
        (Edition(Tier.S2, 20), ThrottleClass.TWIN_READ, "200 per second"),
        (Edition(Tier.S2, 20), ThrottleClass.TWIN_UPDATE, "100 per second"),
        (Edition(Tier.S3), ThrottleClass.TWIN_UPDATE, "250 per second"),
        (Edition(Tier.S1, 2), ThrottleClass.QUERY, "40 per minute"),
        (Edition(Tier.S3), ThrottleClass.QUERY, "1,000 per minute"),
        (S1, ThrottleClass.JOB, "100 per minute"),
        (Edition(Tier.S1, 3), ThrottleClass.JOB_DEVICE, "10 per second"),
        (Edition(Tier.S2, 20), ThrottleClass.JOB_DEVICE, "20 per second"),
        (Edition(Tier.S3, 2), ThrottleClass.JOB_DEVICE, "100 per second"),
    ],
)
def test_the_paces_are_those_of_the_sheet(edition: Edition, what: ThrottleClass, told: str) -> None:
    assert edition.pace(what).format("of all") == told.replace(" per", " of all per")


def test_messages_a_day_and_their_meter_are_those_of_the_sheet() -> None:
    assert (F1.most_messages, F1.meter, F1.most_devices) == (8_000, 512, 500)
    assert (Edition(Tier.S1, 2).most_messages, S1.meter, S1.most_devices) == (800_000, 4096, 1_000_000)
    assert Edition(Tier.S2).most_messages == 6_000_000
    assert Edition(Tier.S3).most_messages == 300_000_000
    assert [S1.blocks(size) for size in (0, 1, 4096, 4097)] == [1, 1, 1, 2]


def test_what_is_kept_is_read_again() -> None:
    for edition in (F1, Edition(Tier.S3, 7)):
        assert edition_of(edition.text) == edition
    assert str(Edition(Tier.S3, 7)) == "S3 with 7 units"


@pytest.mark.parametrize(("tier", "units"), [("F1", 2), ("S4", 1), ("S1", 0), ("S1", 201), ("", 1)])
def test_a_tier_that_there_is_not_is_refused(tier: str, units: int) -> None:
    with pytest.raises(TierInvalidError):
        parse_edition(tier, units, "hub-2")
    assert parse_edition("S1", 200, "hub-2") == Edition(Tier.S1, 200)


def test_so_many_come_at_once_and_more_as_time_goes_by() -> None:
    throttle = HubThrottle("hub-2", S1)
    for _ in range(20):
        throttle.take(ThrottleClass.QUERY, 100.0)
    with pytest.raises(TierThrottledError) as caught:
        throttle.take(ThrottleClass.QUERY, 100.0)
    assert caught.value.retry_after_s == 3  # twenty in a minute
    assert "20 queries per minute" in caught.value.explain_cause()
    throttle.take(ThrottleClass.QUERY, 103.0)
    with pytest.raises(TierThrottledError):
        throttle.take(ThrottleClass.QUERY, 103.0)


def test_what_is_refused_takes_nothing() -> None:
    throttle = HubThrottle("hub-2", S1)
    for _ in range(20):
        throttle.take(ThrottleClass.QUERY, 0.0)
    for _ in range(50):
        with pytest.raises(TierThrottledError):
            throttle.take(ThrottleClass.QUERY, 1.0)
    throttle.take(ThrottleClass.QUERY, 3.0)


def test_one_pace_is_not_anothers() -> None:
    throttle = HubThrottle("hub-2", S1)
    for _ in range(20):
        throttle.take(ThrottleClass.QUERY, 0.0)
    throttle.take(ThrottleClass.TWIN_READ, 0.0)


def test_who_asks_how_long_it_is_takes_nothing() -> None:
    throttle = HubThrottle("hub-2", S1)
    throttle.take(ThrottleClass.TELEMETRY, 0.0, 100)
    assert throttle.wait_s(ThrottleClass.TELEMETRY, 0.0, 50) == pytest.approx(0.5)
    assert throttle.wait_s(ThrottleClass.TELEMETRY, 0.0, 50) == pytest.approx(0.5)
    assert throttle.wait_s(ThrottleClass.TELEMETRY, 0.0, 50, ahead=200) == pytest.approx(2.5)
    assert throttle.wait_s(ThrottleClass.TELEMETRY, 10.0, 100) == 0


def test_more_than_comes_at_once_is_taken_by_one_who_waited() -> None:
    allowance = Allowance(10, 1)
    assert allowance.wait_s(25, 0.0) == 0
    allowance.take(25)
    assert allowance.wait_s(1, 0.0) == 16


def test_a_clock_that_goes_back_gives_nothing() -> None:
    allowance = Allowance(1, 1)
    assert allowance.wait_s(1, 10.0) == 0
    allowance.take(1)
    assert allowance.wait_s(1, 5.0) == 1
    assert allowance.wait_s(1, 11.0) == 0


def test_the_messages_of_a_day_end_and_the_next_day_has_its_own() -> None:
    throttle = HubThrottle("hub-2", F1)
    throttle.count_blocks(7_999, TODAY)
    throttle.count(512, TODAY)
    with pytest.raises(TierQuotaError) as caught:
        throttle.count(1, TODAY)
    assert "8,000 messages of 512 bytes" in caught.value.explain_cause()
    assert throttle.messages(TODAY) == 8_000
    throttle.count(513, TOMORROW)
    assert (throttle.messages(TODAY), throttle.messages(TOMORROW)) == (0, 2)


def test_each_of_several_workers_has_its_part() -> None:
    throttle = HubThrottle("hub-2", F1, parts=4)
    throttle.count_blocks(2_000, TODAY)
    with pytest.raises(TierQuotaError):
        throttle.count_blocks(1, TODAY)
    for _ in range(25):
        throttle.take(ThrottleClass.CONNECTION, 0.0)
    with pytest.raises(TierThrottledError):
        throttle.take(ThrottleClass.CONNECTION, 0.0)


def test_a_pace_that_is_divided_by_many_still_takes_one() -> None:
    throttle = HubThrottle("hub-2", S1, parts=64)
    throttle.take(ThrottleClass.QUERY, 0.0)
    with pytest.raises(TierThrottledError) as caught:
        throttle.take(ThrottleClass.QUERY, 0.0)
    assert caught.value.retry_after_s == 192


def test_a_hub_has_room_for_the_devices_of_its_tier() -> None:
    throttle = HubThrottle("hub-2", F1)
    throttle.check_room(499)
    with pytest.raises(TooManyDevicesError):
        throttle.check_room(500)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/twins/d/methods", ThrottleClass.METHOD),
        ("POST", "/twins/d/modules/m/methods", ThrottleClass.METHOD),
        ("GET", "/twins/d", ThrottleClass.TWIN_READ),
        ("PATCH", "/twins/d/modules/m", ThrottleClass.TWIN_UPDATE),
        ("PUT", "/devices/d", ThrottleClass.REGISTRY),
        ("POST", "/devices", ThrottleClass.REGISTRY),
        ("GET", "/devices/messages", ThrottleClass.REGISTRY),
        ("GET", "/devices/d/modules", ThrottleClass.REGISTRY),
        ("POST", "/devices/d/applyConfigurationContent", ThrottleClass.TWIN_UPDATE),
        ("POST", "/devices/d/messages/devicebound", ThrottleClass.MAIL),
        ("DELETE", "/devices/d/commands", None),
        ("GET", "/statistics/devices", ThrottleClass.REGISTRY),
        ("GET", "/messages/serviceBound/feedback", None),
        ("GET", "/digitaltwins/d", ThrottleClass.TWIN_READ),
        ("PATCH", "/digitaltwins/d", ThrottleClass.TWIN_UPDATE),
        ("POST", "/digitaltwins/d/commands/c", ThrottleClass.METHOD),
        ("POST", "/digitaltwins/d/components/p/commands/c", ThrottleClass.METHOD),
        ("GET", "/devices/commands", ThrottleClass.REGISTRY),  # a device of that name, as those below
        ("GET", "/devices/applyConfigurationContent", ThrottleClass.REGISTRY),
        ("PUT", "/devices/d/modules/commands", ThrottleClass.REGISTRY),
        ("PUT", "/devices/d/modules/messages", ThrottleClass.REGISTRY),
        ("DELETE", "/devices/messages/commands", None),
        ("GET", "/twins/methods", ThrottleClass.TWIN_READ),
        ("PATCH", "/twins/d/modules/methods", ThrottleClass.TWIN_UPDATE),
        ("GET", "/digitaltwins/commands", ThrottleClass.TWIN_READ),
    ],
)
def test_each_call_of_the_service_counts_as_what_it_is(method: str, path: str, kind: ThrottleClass | None) -> None:
    assert kind_of(method, path) is kind


def test_a_body_of_which_nothing_is_said_before_counts_as_the_largest_of_its_kind() -> None:
    chunked = {"transfer-encoding": "chunked"}
    assert size_of(chunked, ThrottleClass.METHOD) == 128 * 1024
    assert size_of(chunked, ThrottleClass.MAIL) == 64 * 1024
    assert size_of({"content-length": "7"} | chunked, ThrottleClass.METHOD) == 128 * 1024
    assert size_of({"content-length": "7"}, ThrottleClass.METHOD) == 7
    assert size_of({}, ThrottleClass.METHOD) == 0


def fix_of(edition: Edition, what: ThrottleClass) -> str:
    return HubThrottle("hub-2", edition).refused(what, 1).explain_fix()


@pytest.mark.parametrize(
    ("edition", "what", "command"),
    [
        (F1, ThrottleClass.TELEMETRY, "S2 --units 1"),
        (Edition(Tier.S1, 3), ThrottleClass.CONNECTION, "S2 --units 3"),
        (Edition(Tier.S1, 3), ThrottleClass.QUERY, "S3 --units 3"),  # S2 takes no more of those
        (Edition(Tier.S2, 200), ThrottleClass.METHOD, "S3 --units 200"),
        (Edition(Tier.S3, 2), ThrottleClass.QUERY, "S3 --units 3"),
    ],
)
def test_a_refusal_names_the_next_edition_that_takes_more(edition: Edition, what: ThrottleClass, command: str) -> None:
    fix = fix_of(edition, what)
    assert f"`birthmark hub tier hub-2 {command}`" in fix
    tier, _, units = command.split()
    assert parse_edition(tier, int(units), "hub-2").pace(what).many > edition.pace(what).many


def many(what: ThrottleClass, edition: Edition) -> float:
    return edition.pace(what).many


@pytest.mark.parametrize("edition", [Edition(tier, units) for tier in list(Tier)[1:] for units in (1, 7, MAX_UNITS)])
def test_no_fix_makes_a_hub_smaller(edition: Edition) -> None:
    for what in ThrottleClass:
        larger = edition.larger(partial(many, what))
        if larger is not None:
            assert all(larger.pace(each).many >= edition.pace(each).many for each in ThrottleClass)
            assert larger.most_messages >= edition.most_messages
            assert larger.most_devices >= edition.most_devices


def test_the_largest_edition_has_nothing_but_to_wait() -> None:
    top = Edition(Tier.S3, MAX_UNITS)
    assert fix_of(top, ThrottleClass.QUERY) == "Wait for the time in Retry-After."
    throttle = HubThrottle("hub-2", top)
    with pytest.raises(TierQuotaError) as quota:
        throttle.count_blocks(top.most_messages + 1, TODAY)
    assert quota.value.explain_fix() == "Wait until the day ends (UTC)."


def test_the_day_and_the_devices_of_a_free_hub_are_more_with_the_next_tier() -> None:
    throttle = HubThrottle("hub-2", F1)
    with pytest.raises(TierQuotaError) as quota:
        throttle.count_blocks(8_001, TODAY)
    with pytest.raises(TooManyDevicesError) as full:
        throttle.check_room(500)
    for caught in (quota, full):
        assert "`birthmark hub tier hub-2 S1 --units 1`" in caught.value.explain_fix()
    with pytest.raises(TooManyDevicesError) as full:
        HubThrottle("hub-2", S1).check_room(1_000_000)
    assert full.value.explain_fix() == "Delete a device: `birthmark hub device ls --hub hub-2`"


def test_what_is_used_up_is_there_again_when_its_time_is_over() -> None:
    throttle = HubThrottle("birthmark", F1)
    throttle.use_up(now=100.0, for_s=30)
    with pytest.raises(TierThrottledError) as refused:
        throttle.take(ThrottleClass.TWIN_READ, 100.0)
    assert refused.value.retry_after_s == 31
    throttle.take(ThrottleClass.TWIN_READ, 130.5)


def test_a_day_that_is_used_up_takes_nothing_until_the_next() -> None:
    throttle = HubThrottle("birthmark", F1)
    throttle.use_up_day(TODAY)
    with pytest.raises(TierQuotaError):
        throttle.count(1, TODAY)
    throttle.count(1, TOMORROW)
