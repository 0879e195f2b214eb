"""The languages of the console: which one a request asks for, and how each writes words, numbers and times.

Templates and pages say everything in English; a catalogue (gettext, `locale/LANGUAGE/LC_MESSAGES/console.po`) has the
same in another language. Frequent refusals have texts in it (`refusal_texts`); all others are in English, as in logs.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_datetime, format_timedelta, match_skeleton, parse_pattern
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent

ENGLISH = "en"
LANGUAGES: Mapping[str, str] = {ENGLISH: "English", "ja": "日本語"}
CATALOGUE = "locale/{}/LC_MESSAGES/console.po"
_MAX_CHARS = 200


@dataclass(frozen=True, slots=True)
class PageLocale:
    """How somebody reads: language and time zone."""

    language: str = ENGLISH
    zone: tzinfo = UTC
    zone_name: str = "UTC"

    @property
    def locale(self) -> Locale:
        """How numbers and times are written; in English by the day first, as most of the world does."""
        return _locale("en_GB" if self.language == ENGLISH else self.language)


reader: ContextVar[PageLocale] = ContextVar("reader")
"""Who reads the page that is drawn."""


@cache
def _locale(name: str) -> Locale:
    return Locale.parse(name)


@cache
def catalogue(language: str) -> Mapping[str, Sequence[str]]:
    """Return what a language says for each text, in each of its plural forms."""
    if language == ENGLISH:
        return {}
    with files(__package__).joinpath(CATALOGUE.format(language)).open("rb") as file:
        found = read_po(file, locale=language)
    said: dict[str, Sequence[str]] = {}
    for message in found:
        if message.id and message.string and not message.fuzzy:
            key = message.id if isinstance(message.id, str) else message.id[0]
            said[key] = (message.string,) if isinstance(message.string, str) else tuple(message.string)
    return said


def say(text: str) -> str:
    """Return a text as who reads has it."""
    found = catalogue(reader.get().language).get(text)
    return text if found is None else found[0]


def count_of(one: str, many: str, number: int) -> str:
    """Return a text about a number of something; `{n}` or `%(num)s` is filled in by whoever asks."""
    found = catalogue(reader.get().language).get(one)
    if found is None:
        return one if number == 1 else many
    return found[min(len(found) - 1, 0 if number == 1 else 1)]


def language_of(asked: str, chosen: str = "") -> str:
    """Return the language that somebody chose, or the first of an Accept-Language that there is (RFC 9110, 12.5.4)."""
    if chosen in LANGUAGES:
        return chosen
    wanted: list[tuple[float, str]] = []
    for one in asked[:_MAX_CHARS].split(","):
        tag, _, rest = one.strip().partition(";")
        try:
            weight = float(rest.strip().removeprefix("q=") or "1") if rest else 1.0
        except ValueError:
            continue
        wanted.append((-weight, tag.partition("-")[0].lower()))
    return next((tag for weight, tag in sorted(wanted, key=lambda one: one[0]) if tag in LANGUAGES and weight), ENGLISH)


def zone_of(name: str) -> tuple[tzinfo, str]:
    """Return a time zone by its name; UTC where there is none of it."""
    try:
        if name and len(name) <= _MAX_CHARS:
            return ZoneInfo(name), name
    except (ValueError, OSError, KeyError):
        pass
    return UTC, "UTC"


def number(value: float) -> str:
    """Return a number with its groups, which no line breaks."""
    return format_decimal(value, locale=reader.get().locale).replace(" ", "\N{NO-BREAK SPACE}")


def share(value: float) -> str:
    """Return a part of one as percent, to a tenth where it is not whole."""
    return format_percent(value, format="#,##0.#%", locale=reader.get().locale)


def moment(at: datetime, now: datetime) -> str:
    """Return a time as it is read fastest: the hour of today, the day of this year, else the date."""
    who = reader.get()
    local, today = _local(at, who.zone), now.astimezone(who.zone)
    if local.date() == today.date():
        return format_datetime(local, "HH:mm", locale=who.locale)
    return dated("MMMd" if abs(local - today) < timedelta(days=300) else "yMMMd", at)


def exact(at: datetime) -> str:
    """Return a time to the second, with its zone and how far that is from UTC."""
    who = reader.get()
    local = _local(at, who.zone)
    return format_datetime(local, "yyyy-MM-dd HH:mm:ss z (xxx)", tzinfo=local.tzinfo, locale=who.locale)


def span(time: timedelta) -> str:
    """Return a time as people say how long: 3 days."""
    return str(format_timedelta(time, threshold=1.5, locale=reader.get().locale))


def day(at: datetime) -> str:
    """Return a day and its month."""
    return dated("MMMd", at)


def dated(skeleton: str, at: datetime) -> str:
    """Return these parts of a time, in the order and form of who reads (UTS 35: skeletons)."""
    who = reader.get()
    return str(_pattern(skeleton, who.language).apply(_local(at, who.zone), who.locale))


def _local(at: datetime, zone: tzinfo) -> datetime:
    """Return a time as a zone has it; the last and the first day of the calendar as UTC has it.

    A certificate that never ends says 9999-12-31 23:59:59 UTC (RFC 5280, 4.1.2.5), which is 10000 in Tokyo.
    """
    try:
        return at.astimezone(zone)
    except OverflowError:
        return at.astimezone(UTC)


@cache
def _pattern(skeleton: str, language: str) -> Any:
    """Return how a language writes some parts of a time: looking for it costs more than writing."""
    locale = PageLocale(language).locale
    known = locale.datetime_skeletons
    name = skeleton if skeleton in known else match_skeleton(skeleton, known)
    if name is None:
        raise LookupError(f"{language} has no form for {skeleton}")
    return parse_pattern(known[name])
