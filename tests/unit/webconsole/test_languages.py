"""Every text of the console is there in each language, whole, also one that was changed."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

import birthmark
from birthmark.webconsole import refusal_translations
from birthmark.webconsole.i18n import (
    CATALOGUE,
    ENGLISH,
    LANGUAGES,
    PageLocale,
    dated,
    exact,
    language_of,
    moment,
    reader,
    zone_of,
)
from support.tools_pages import catalogues

ROOT = Path(birthmark.__file__).parents[2]
TOOL = catalogues()

OTHERS = [one for one in LANGUAGES if one != ENGLISH]
FILLED = re.compile(r"\{\w*\}|%\(\w+\)s")
TAGS = re.compile(r"</?\w+")


def path_of(language: str) -> Path:
    return ROOT / "src" / "birthmark" / "webconsole" / CATALOGUE.format(language)


@pytest.mark.parametrize("language", OTHERS)
def test_every_text_is_translated(language: str) -> None:
    assert [one.id for one in TOOL.of(path_of(language)) if one.id and not TOOL.is_translated(one)] == []


@pytest.mark.parametrize("language", OTHERS)
def test_a_catalogue_is_as_its_tool_writes_it(language: str) -> None:
    path = path_of(language)
    assert TOOL.written(TOOL.of(path)) == path.read_bytes(), "python tools/make_catalogues.py"


@pytest.mark.parametrize("language", OTHERS)
def test_what_is_filled_in_is_filled_in_there_too(language: str) -> None:
    wrong = {}
    for message in TOOL.of(path_of(language)):
        texts = (message.id,) if isinstance(message.id, str) else message.id
        forms = (message.string,) if isinstance(message.string, str) else message.string
        known = set(FILLED.findall(" ".join(texts)))
        for form in forms if message.id and not texts[0].startswith(refusal_translations.PREFIX) else ():
            found = set(FILLED.findall(form))
            if found - known or (len(forms) == 1 and found != known) or TAGS.findall(form) != TAGS.findall(texts[0]):
                wrong[texts[0]] = form
    assert wrong == {}


@pytest.mark.parametrize(
    ("asked", "chosen", "language"),
    [
        ("", "", "en"),
        ("ja", "", "ja"),
        ("de-DE,ja;q=0.5,en;q=0.8", "", "en"),
        ("ja-JP,en;q=0.9", "", "ja"),
        ("ja;q=0,en", "", "en"),
        ("ja", "en", "en"),
        ("ja", "<script>", "ja"),
        ("x" * 10_000, "", "en"),
        ("ja;q=nonsense", "", "en"),
    ],
)
def test_a_reader_has_the_language_that_was_chosen_or_is_asked_for(asked: str, chosen: str, language: str) -> None:
    assert language_of(asked, chosen) == language


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "/etc/passwd", "Nowhere/City", "x" * 1000, "a\0b"])
def test_a_zone_that_is_none_is_utc(name: str) -> None:
    assert zone_of(name)[1] == "UTC"


def test_numbers_and_times_are_written_as_the_reader_has_them() -> None:
    from datetime import UTC, datetime

    from birthmark.webconsole.i18n import number

    at = datetime(2026, 3, 4, 15, 0, tzinfo=UTC)
    for language, zone, day in (("en", "UTC", "4 Mar"), ("ja", "Asia/Tokyo", "3月5日")):
        token = reader.set(PageLocale(language, *zone_of(zone)))
        assert dated("MMMd", at) == day
        assert number(1234567) == "1,234,567"
        reader.reset(token)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York", "Etc/GMT-14", "Etc/GMT+12"])
@pytest.mark.parametrize("at", [datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_time_at_the_end_of_the_calendar_is_written_in_every_zone(language: str, at: datetime, zone: str) -> None:
    token = reader.set(PageLocale(language, *zone_of(zone)))
    try:
        assert f"{at:%Y-%m-%d}" in exact(at)
        assert str(at.year) in moment(at, datetime(2026, 1, 1, tzinfo=UTC))
        assert dated("MMMd", at)
    finally:
        reader.reset(token)
