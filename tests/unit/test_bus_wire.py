"""A refusal travels between workers: as itself where its class is known, and by its words where it is not."""

import msgspec
import pytest

from birthmark.bus import NoAnswerError
from birthmark.bus.wire import opened, refusal_of
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.store.postgresql import PostgresUnavailableError

ASKED = {"worker": "w1", "request": "start"}


def test_a_refusal_with_an_empty_fact_comes_as_it_was() -> None:
    with pytest.raises(NoAnswerError) as heard:
        opened(refusal_of(NoAnswerError(reason="", worker="w", request="r")), ASKED)
    assert heard.value.worker == "w"


def test_a_refusal_that_is_not_known_here_says_what_it_says() -> None:
    refused = PostgresUnavailableError(reason="refused at {y}")
    travelling = msgspec.structs.replace(refusal_of(refused), code="store.of_another_version")
    with pytest.raises(UnavailableError) as heard:
        opened(travelling, ASKED)
    said = heard.value.code, str(heard.value), heard.value.explain_cause(), heard.value.explain_fix()
    assert said == ("store.of_another_version", str(refused), refused.explain_cause(), refused.explain_fix())


def test_a_known_refusal_with_other_facts_says_what_it_says() -> None:
    travelling = msgspec.structs.replace(refusal_of(PostgresUnavailableError(reason="y")), facts={})
    with pytest.raises(BirthmarkError, match="database"):
        opened(travelling, ASKED)
