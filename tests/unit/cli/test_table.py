"""Tables for programs and for people."""

from birthmark.cli.table import table

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
