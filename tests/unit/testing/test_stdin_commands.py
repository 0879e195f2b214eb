"""The words of a server for tests, as they are read."""

from datetime import timedelta

import pytest

from birthmark.server.fault_proxy import LineState
from birthmark.testing.errors import WordInvalidError
from birthmark.testing.provoked_refusals import POSSIBLE
from birthmark.testing.stdin_command_interpreter import Interpreter
from birthmark.testing.stdin_commands import (
    WORDS,
    LineWord,
    ListMessages,
    MakeAzureDevice,
    Reset,
    help_of,
    offset_of,
    parse_word,
)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"reset", Reset()),
        (b'{"do": "reset"}', Reset()),
        (b"azure-device pump-1", MakeAzureDevice("pump-1")),
        (b"azure-device pump-1 auth=key at=hub", MakeAzureDevice("pump-1", "key", "hub")),
        (b'{"do": "azure-device", "name": "pump 1", "lasts": "2h"}', MakeAzureDevice("pump 1", lasts="2h")),
        (b"line break 100", LineWord(LineState.BREAK, 100)),
        (b"messages", ListMessages()),
    ],
)
def test_a_word_is_json_or_in_short(line: bytes, word: object) -> None:
    assert parse_word(line) == word


@pytest.mark.parametrize(
    "line",
    [
        b"renew",
        b"azure-device",
        b"azure-device pump-1 auth=password",
        b"azure-device pump-1 colour=red",
        b"line sideways",
        b"line break -1",
        b"[]",
        b'{"do": ',
        b'{"do": {}}',
        b'{"do": "reset", "more": 1}',
        b"\xff\xfe",
        b"messages limit=0",
        b"azure-device " + b"a" * 129,
        b"{" * 16_000,
    ],
)
def test_what_is_no_word_is_refused_by_name(line: bytes) -> None:
    with pytest.raises(WordInvalidError):
        parse_word(line)


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        (b"azure-device pump-1 at=moon", "at must be one of dps, hub"),
        (b"azure-device colour=red", "members are name, auth, at, lasts"),
        (b"line sideways", "state must be one of through, cut, stall, break"),
        (b"rollover back-again", "step must be one of start, next, back"),
        (b'{"do": "azure-device", "colour": "red"}', "members are name, auth, at, lasts"),
        (b"reset now", "it has no members"),
    ],
)
def test_a_value_that_is_not_taken_is_answered_with_those_that_are(line: bytes, taken: str) -> None:
    with pytest.raises(WordInvalidError) as refused:
        parse_word(line)
    assert taken in refused.value.explain_cause()


def test_how_far_a_clock_is_off() -> None:
    assert [offset_of(text) for text in ("+90d", "-1h", "0")] == [
        timedelta(days=90),
        timedelta(hours=-1),
        timedelta(),
    ]
    for text in ("90d", "+", "soon"):
        with pytest.raises(ValueError, match=r"start with|number and a unit"):
            offset_of(text)


def test_help_tells_every_word_and_every_refusal_that_can_be_provoked() -> None:
    told = help_of(POSSIBLE)
    assert len(told["words"]) == len(WORDS)
    assert told["words"]["refuse"]["members"] == {"name": None, "code": None}
    assert all(word["does"] for word in told["words"].values())
    assert "iothub.device_disabled" in told["refusals"]["azure-device auth=key at=hub"]


class _Broken:
    """A server that has no more room."""

    async def reset(self) -> None:
        raise OSError(28, "No space left on device")


async def test_a_word_that_fails_as_nobody_foresaw_is_answered_too() -> None:
    words = Interpreter()
    answer = await words.answer(_Broken(), b"reset")  # type: ignore[arg-type] # it only fails
    assert (answer["error"], words.refused) == ("testing.answer", 1)
    assert "No space left on device" in answer["cause"]
