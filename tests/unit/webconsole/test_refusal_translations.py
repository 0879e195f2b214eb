"""The most frequent refusals are told in the reader's language, and every other one in English."""

import re
from string import Formatter
from typing import Any

import pytest

from birthmark.cli.log_patterns import refusals_in
from birthmark.webconsole.i18n import PageLocale, catalogue, reader
from birthmark.webconsole.refusal_translations import TEXTS, localize_refusal

COMMAND = re.compile(r"`(\d)`")


@pytest.fixture(autouse=True, params=["ja"])
def language(request: pytest.FixtureRequest) -> str:
    reader.set(PageLocale(language=request.param))
    return str(request.param)


def a_refusal(code: str, **facts: str) -> dict[str, Any]:
    (known,) = refusals_in(code)
    error = known(**{name: facts.get(name, f"the {name}") for name in known._fields})
    cause, fix = error.explain_for_display()
    return {"code": code, "message": str(error), "cause": cause, "fix": fix, "facts": dict(error.facts)}


def test_they_are_twenty_at_least() -> None:
    assert len(TEXTS) >= 20


@pytest.mark.parametrize("code", TEXTS)
def test_a_frequent_refusal_has_message_cause_and_fix_in_that_language(code: str, language: str) -> None:
    refusal = a_refusal(code)
    told = localize_refusal(refusal)
    assert told["lang"] == language
    assert all(told[name] != refusal[name] for name in ("message", "cause", "fix"))


@pytest.mark.parametrize("code", TEXTS)
def test_its_texts_name_facts_and_commands_that_there_are(code: str, language: str) -> None:
    (known,) = refusals_in(code)
    texts = [catalogue(language)[key][0] for key in TEXTS[code].values()]
    named = {name for text in texts for _, name, _, _ in Formatter().parse(text) if name}
    assert named <= set(known._fields)
    assert {int(one) for one in COMMAND.findall(texts[2])} <= set(range(1, known.fix.count("`") // 2 + 1))


@pytest.mark.parametrize("code", TEXTS)
def test_its_commands_are_those_of_the_english_fix(code: str) -> None:
    refusal = a_refusal(code)
    commands = localize_refusal(refusal)["fix"].split("`")[1::2]
    assert set(commands) <= set(refusal["fix"].split("`")[1::2])
    assert commands


def test_a_fact_is_no_command() -> None:
    told = localize_refusal(a_refusal("iothub.device_disabled", device_id="`rm -r /`"))
    assert "`" not in told["cause"]


def test_another_refusal_or_one_without_its_facts_stays_as_it_was_recorded() -> None:
    other = {"code": "iothub.tier_full", "message": "m", "cause": "c", "fix": "f", "facts": {}}
    for refusal in (other, {**a_refusal("dps.unknown_scope"), "facts": {}}):
        assert localize_refusal(refusal) == {**refusal, "lang": "en"}
