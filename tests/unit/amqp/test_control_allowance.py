"""Control frames are limited in number and rate."""

from birthmark.amqp.control_allowance import ControlAllowance


def spend(allowance: ControlAllowance, frames: int) -> int:
    """Return how many frames are within the limit."""
    return sum(allowance.spend() for _ in range(frames))


def test_a_burst_is_limited() -> None:
    assert spend(ControlAllowance(3, 1.0), 5) == 3


def test_time_refills_up_to_the_maximum() -> None:
    allowance = ControlAllowance(3, 2.0)
    allowance.update(0.0)
    spend(allowance, 3)
    allowance.update(1.0)
    assert spend(allowance, 2) == 2
    allowance.update(1000.0)
    assert spend(allowance, 5) == 3


def test_a_clock_that_goes_back_refills_nothing() -> None:
    allowance = ControlAllowance(1, 1.0)
    allowance.update(10.0)
    spend(allowance, 1)
    allowance.update(5.0)
    assert spend(allowance, 1) == 0


def test_deliveries_refill() -> None:
    allowance = ControlAllowance(2, 0.0)
    spend(allowance, 2)
    allowance.refill(2)
    assert spend(allowance, 3) == 2
