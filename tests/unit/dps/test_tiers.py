import pytest

from birthmark.dps.rules.tiers import DpsTierThrottledError, Paces, ThrottledOperation


def test_a_device_polls_five_times_in_ten_seconds() -> None:
    paces = Paces()
    for _ in range(5):
        paces.take(ThrottledOperation.POLL, "birthmark", 0.0, "pump-1")
    with pytest.raises(DpsTierThrottledError) as caught:
        paces.take(ThrottledOperation.POLL, "birthmark", 0.0, "pump-1")
    assert caught.value.retry_after_s == 2
    paces.take(ThrottledOperation.POLL, "birthmark", 0.0, "pump-2")
    paces.take(ThrottledOperation.POLL, "birthmark", 2.0, "pump-1")


def test_a_service_takes_a_thousand_registrations_a_minute_and_another_its_own() -> None:
    paces = Paces()
    for _ in range(1000):
        paces.take(ThrottledOperation.REGISTRATION, "birthmark", 0.0)
    with pytest.raises(DpsTierThrottledError) as caught:
        paces.take(ThrottledOperation.REGISTRATION, "birthmark", 0.0)
    assert "1,000 registrations per minute" in caught.value.explain_cause()
    paces.take(ThrottledOperation.REGISTRATION, "factory-2", 0.0)
    paces.take(ThrottledOperation.OPERATION, "birthmark", 0.0)
    paces.take(ThrottledOperation.REGISTRATION, "birthmark", 1.0)


def test_workers_divide_what_is_the_services_and_not_what_is_a_devices() -> None:
    paces = Paces(parts=4)
    for _ in range(250):
        paces.take(ThrottledOperation.REGISTRATION, "birthmark", 0.0)
    with pytest.raises(DpsTierThrottledError):
        paces.take(ThrottledOperation.REGISTRATION, "birthmark", 0.0)
    for _ in range(5):
        paces.take(ThrottledOperation.POLL, "birthmark", 0.0, "pump-1")
