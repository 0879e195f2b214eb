"""Languages of the console: negotiation, and formats of text, numbers and times.

Templates and pages are in English; a catalog (gettext, `locale/LANGUAGE/LC_MESSAGES/console.po`) has the translations.
Frequent refusals have texts in it (`refusal_texts`); all others are in English, as in logs.
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
    """Language and time zone of a user."""

    language: str = ENGLISH
    zone: tzinfo = UTC
    zone_name: str = "UTC"

    @property
    def locale(self) -> Locale:
        """Format of numbers and times; English uses day before month, as most of the world does."""
        return _locale("en_GB" if self.language == ENGLISH else self.language)


reader: ContextVar[PageLocale] = ContextVar("reader")
"""Locale of the user for whom a page is rendered."""


@cache
def _locale(name: str) -> Locale:
    return Locale.parse(name)


@cache
def catalogue(language: str) -> Mapping[str, Sequence[str]]:
    """Return the translations of each text, in all plural forms."""
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


def translate(text: str) -> str:
    """Return a text in the user's language."""
    found = catalogue(reader.get().language).get(text)
    return text if found is None else found[0]


def count_of(one: str, many: str, number: int) -> str:
    """Return the singular or plural text for a number; the caller fills in `{n}` or `%(num)s`."""
    found = catalogue(reader.get().language).get(one)
    if found is None:
        return one if number == 1 else many
    return found[min(len(found) - 1, 0 if number == 1 else 1)]


def language_of(accept_language: str, chosen: str = "") -> str:
    """Return the user's selected language, or the first available one of Accept-Language (RFC 9110, 12.5.4)."""
    if chosen in LANGUAGES:
        return chosen
    wanted: list[tuple[float, str]] = []
    for one in accept_language[:_MAX_CHARS].split(","):
        tag, _, rest = one.strip().partition(";")
        try:
            weight = float(rest.strip().removeprefix("q=") or "1") if rest else 1.0
        except ValueError:
            continue
        wanted.append((-weight, tag.partition("-")[0].lower()))
    return next((tag for weight, tag in sorted(wanted, key=lambda one: one[0]) if tag in LANGUAGES and weight), ENGLISH)


def zone_of(name: str) -> tuple[tzinfo, str]:
    """Return a time zone by name; UTC if it is unknown."""
    try:
        if name and len(name) <= _MAX_CHARS:
            return ZoneInfo(name), name
    except (ValueError, OSError, KeyError):
        pass
    return UTC, "UTC"


def number(value: float) -> str:
    """Format a number with group separators that prevent line breaks."""
    return format_decimal(value, locale=reader.get().locale).replace(" ", "\N{NO-BREAK SPACE}")


def share(value: float) -> str:
    """Return a fraction as a percentage, with one decimal place if it is not an integer."""
    return format_percent(value, format="#,##0.#%", locale=reader.get().locale)


def moment(timestamp: datetime, now: datetime) -> str:
    """Return a short time: the hour for today, the day for this year, the date otherwise."""
    who = reader.get()
    local, today = _local(timestamp, who.zone), now.astimezone(who.zone)
    if local.date() == today.date():
        return format_datetime(local, "HH:mm", locale=who.locale)
    return dated("MMMd" if abs(local - today) < timedelta(days=300) else "yMMMd", timestamp)


def exact(timestamp: datetime) -> str:
    """Return a time to the second, with its zone and UTC offset."""
    who = reader.get()
    local = _local(timestamp, who.zone)
    return format_datetime(local, "yyyy-MM-dd HH:mm:ss z (xxx)", tzinfo=local.tzinfo, locale=who.locale)


def span(time: timedelta) -> str:
    """Return a duration in words: 3 days."""
    return str(format_timedelta(time, threshold=1.5, locale=reader.get().locale))


def day(timestamp: datetime) -> str:
    """Format a day with its month."""
    return dated("MMMd", timestamp)


def dated(skeleton: str, timestamp: datetime) -> str:
    """Return these parts of a time in the format of the user's locale (UTS 35: skeletons)."""
    who = reader.get()
    return str(_pattern(skeleton, who.language).apply(_local(timestamp, who.zone), who.locale))


def _local(timestamp: datetime, zone: tzinfo) -> datetime:
    """Return a time in a zone; the first and last day of the calendar in UTC.

    A certificate without expiry has 9999-12-31 23:59:59 UTC (RFC 5280, 4.1.2.5), which is in the year 10000 in Tokyo.
    """
    try:
        return timestamp.astimezone(zone)
    except OverflowError:
        return timestamp.astimezone(UTC)


@cache
def _pattern(skeleton: str, language: str) -> Any:
    """Return the date pattern of a language; cached, because the lookup costs more than formatting."""
    locale = PageLocale(language).locale
    known = locale.datetime_skeletons
    name = skeleton if skeleton in known else match_skeleton(skeleton, known)
    if name is None:
        raise LookupError(f"{language} has no form for {skeleton}")
    return parse_pattern(known[name])
