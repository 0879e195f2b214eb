"""A stranger cannot fill the log."""

import logging

from birthmark.server.server_process import BoundedLog


def a_line(address: str = "", event: str = "refused") -> logging.LogRecord:
    record = logging.LogRecord("birthmark", logging.INFO, "", 0, event, None, None)
    if address:
        record.address = address
    return record


def test_an_address_has_its_share_and_others_keep_theirs() -> None:
    log = BoundedLog(lambda: 0.0)
    assert sum(log.filter(a_line("192.0.2.1")) for _ in range(1000)) == 50
    assert log.filter(a_line("192.0.2.2"))


def test_many_addresses_together_are_bounded_too() -> None:
    log = BoundedLog(lambda: 0.0)
    assert sum(log.filter(a_line(f"2001:db8:{n:x}::1")) for n in range(5000)) == 500


def test_the_addresses_of_one_ipv6_network_have_one_share() -> None:
    log = BoundedLog(lambda: 0.0)
    assert sum(log.filter(a_line(f"2001:db8::{n:x}")) for n in range(1000)) == 50


def test_who_has_no_address_has_its_own_share() -> None:
    log = BoundedLog(lambda: 0.0)
    many, single = a_line(), a_line()
    many.whose, single.whose = "its key", "another key"
    assert sum(log.filter(many) for _ in range(1000)) == 50
    assert log.filter(single)


def test_what_was_dropped_is_counted_with_the_next_line() -> None:
    now = [0.0]
    log = BoundedLog(lambda: now[0])
    for _ in range(60):
        log.filter(a_line("192.0.2.1"))
    now[0] = 1.0
    line = a_line("192.0.2.1")
    assert log.filter(line)
    assert vars(line)["lines_dropped"] == 10


def test_an_event_without_an_address_is_bounded_as_well() -> None:
    log = BoundedLog(lambda: 0.0)
    assert sum(log.filter(a_line(event="http.bug")) for _ in range(100)) == 50
