"""Lines of keys in a TOML file, whatever else stands in it."""

import tomllib

import pytest

from birthmark.toml_validation import TomlError, lines_of, parse


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


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a = 1\nb = \n", 2, "Invalid value"),
        ("a = 1\nb = 'x", 2, "Expected"),
        ("a = 1\nb =\u00a01\n", 2, "U+00A0 (no-break space) at character 4"),
        ("a = \u201cx\u201d\n", 1, "U+201C (left double quotation mark) at character 5"),
        ("a = 1\rb = 2\r", 1, "CR alone"),
        ("a = 1\nb = " + "[" * 100_000, 2, "nested"),
        ("a = 1" + "0" * 10_000, 1, "integer"),
        ("a = 1\n" + ".".join("a" * 28_000) + " = 1", 2, "more than 64 parts"),
        ("a = { " + " . ".join("a" * 28_000) + " = 1 }", 1, "more than 64 parts"),
        ("[" + ".".join(["'a.b'"] * 28_000) + "]", 1, "more than 64 parts"),
    ],
)
def test_what_is_no_toml_or_takes_more_than_its_size_is_told_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(TomlError) as refused:
        parse(text)
    assert refused.value.line == line
    assert said in refused.value.detail


def test_texts_may_have_as_many_dots_as_they_like() -> None:
    assert parse(
        'a = "' + "1." * 60 + '1"\nb.c = "...................................................................."'
    )


def test_looking_for_long_keys_costs_no_more_than_the_length() -> None:
    for text in ("a" * 1_000_000, "'" * 1_000_000, "a " * 500_000, "a.b " * 250_000):
        with pytest.raises(TomlError):
            parse(text)


@pytest.mark.parametrize(
    "path",
    [
        r"C:\Users\device.pem",
        r"D:\temp\new.pem",
        "c:\\d",
        r"file:C:\Users\secret",
        r"file:///C:\birthmark\trust.pem",
        r"\\nas\fertigung\teil",
        r"bau\neu\rot",
    ],
)
def test_a_path_of_windows_between_double_quotes_is_told_with_what_to_write(path: str) -> None:
    for form in ('certificate = "@"', 'tags = { site = "a", folder = "@" }', "paths = ['x', \"@\"]"):
        with pytest.raises(TomlError, match=r"line 2: a path with \\ needs single quotes, or / in place of each"):
            parse('name = "a"\n' + form.replace("@", path) + "\n")


MEANT = (
    r'a = "one\ntwo\r\n\tthree"',
    r'a = "\\d+\t\\w"',
    r'a = "\\\\nas\\rot"',
    r"""a = 'say "C:\temp"'""",
    r'a = "\u00e4"',
)


@pytest.mark.parametrize("text", MEANT)
def test_escapes_that_are_meant_are_read(text: str) -> None:
    assert parse(text) == tomllib.loads(text)


@pytest.mark.parametrize("text", [r"a = 'C:\Users'", r'a = "C:\\Users"', r'# a = "C:\Users"', 'a = "C:/Users"'])
def test_a_path_of_windows_that_says_what_it_means_is_read(text: str) -> None:
    assert parse(text).get("a", "C:").startswith("C:")
