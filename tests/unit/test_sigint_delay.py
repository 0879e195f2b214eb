"""Ctrl-C where something must not be left halfway."""

import signal

import pytest

from birthmark.sigint_delay import uninterrupted


def test_a_first_interrupt_waits_for_the_end_of_what_is_not_left_halfway() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted(twice=True):  # noqa: PT012 - the interrupt comes in its midst
        signal.raise_signal(signal.SIGINT)
        done.append("the rest")
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_does_not_wait() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted(twice=True):  # noqa: PT012 - the interrupts come in its midst
        signal.raise_signal(signal.SIGINT)
        done.append("more")
        signal.raise_signal(signal.SIGINT)
        done.append("the rest")
    assert done == ["more"]


def test_interrupts_that_are_ignored_stay_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with uninterrupted(twice=True):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_no_interrupt_ends_what_must_be_whole() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():  # noqa: PT012 - the interrupts come in its midst
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("the rest")
    assert done == ["the rest"]
