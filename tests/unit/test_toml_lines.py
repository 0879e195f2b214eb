"""Lines of keys in a TOML file, whatever else stands in it."""

from birthmark.toml_lines import lines_of


def test_tables_and_keys_are_found_by_their_line() -> None:
    text = '# first\n[a]\nb = 1\n[ c . "d e" ] # more\nf.g = 2\n[[h]]\ni = 3\n'
    assert lines_of(text) == {
        ("a",): 2,
        ("a", "b"): 3,
        ("c", "d e"): 4,
        ("c", "d e", "f", "g"): 5,
        ("h",): 6,
        ("h", "i"): 7,
    }


def test_a_long_line_that_is_no_table_costs_no_more_than_its_length() -> None:
    assert lines_of("[" + " " * 200_000 + "x") == {}
    assert lines_of("[[" + "] " * 100_000) == {}
