"""Tables for programs and for people."""

import re

import pytest

from birthmark.cli.output.table import table, wrap_line

THUMBPRINT = "0123456789abcdef" * 4
ROWS: list[dict[str, str | None]] = [
    {"name": "a" * 90, "thumbprint": THUMBPRINT},
    {"name": "x\x1b[2J\nforged  row", "thumbprint": None},
]


def test_what_a_program_reads_is_whole_and_one_line_a_row() -> None:
    lines = table(ROWS, ("name", "thumbprint"), is_terminal=False).split("\n")
    assert len(lines) == 3
    assert lines[1] == f"{'a' * 90}  {THUMBPRINT}"


def test_on_a_terminal_a_thumbprint_is_short_and_an_id_whole() -> None:
    lines = table(ROWS, ("name", "thumbprint"), is_terminal=True).split("\n")
    assert lines[1] == f"{'a' * 90}  0123456789ab…"


def test_a_name_cannot_forge_a_row_or_move_the_cursor() -> None:
    lines = table(ROWS, ("name",), is_terminal=True).split("\n")
    assert lines[2] == "x\\u001b[2J\\u000aforged  row"


FIX = (
    "  Fix: Stop that program (`ss -ltnp 'sport = :8883'` names it), or listen on another address: "
    "`birthmark serve --data /var/lib/birthmark-of-the-second-plant --listen 127.0.0.2`. The SDKs fix 8883."
)


def test_a_command_stands_on_a_line_of_its_own_as_it_is_typed() -> None:
    assert wrap_line(FIX, 60).split("\n") == [
        "  Fix: Stop that program (`ss -ltnp 'sport = :8883'` names",
        "    it), or listen on another address:",
        "      birthmark serve --data /var/lib/birthmark-of-the-second-plant --listen 127.0.0.2",
        "    The SDKs fix 8883.",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_nothing_in_backticks_is_broken_and_no_word_is_lost(width: int) -> None:
    shown = wrap_line(FIX, width)
    for literal in re.findall(r"`([^`]+)`", FIX):
        assert literal in shown
    assert re.sub(r"[`.\s]", "", shown) == re.sub(r"[`.\s]", "", FIX)


def test_what_a_device_said_of_its_job_is_read_as_names_and_values() -> None:
    told = table([{"details": {"reason": "no-room", "free": "3"}}, {"details": {}}], ["details"], is_terminal=False)
    assert told.splitlines() == ["details", "reason: no-room, free: 3", "-"]


WIDE = [
    {
        "id": "1",
        "what": "Remove a hub, its devices and messages.",
        "ends": "2026-11-28T07:54:28.123456+00:00",
        "x": None,
    },
    {"id": "2", "what": "short", "ends": None, "x": None},
]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_rows_that_do_not_fit_the_terminal_are_records_that_do(width: int) -> None:
    rows = [{"id": "1", "what": "Remove a hub, its devices and messages. " * 3}, {"id": "2", "what": "short"}]
    lines = table(rows, ("id", "what"), is_terminal=True, width=width).split("\n")
    assert max(map(len, lines)) <= width
    assert lines[0] == "id    1"
    assert lines[-2:] == ["id    2", "what  short"]


def test_rows_that_fit_stay_a_table_with_short_times_and_without_empty_columns() -> None:
    lines = table(WIDE, ("id", "what", "ends", "x"), is_terminal=True, width=80).split("\n")
    assert lines[0].split() == ["id", "what", "ends"]
    assert lines[1].endswith("2026-11-28 07:54:28")


def test_what_a_program_reads_is_the_same_at_any_width() -> None:
    assert table(WIDE, ("what", "ends", "x"), is_terminal=False, width=20) == table(
        WIDE, ("what", "ends", "x"), is_terminal=False
    )
