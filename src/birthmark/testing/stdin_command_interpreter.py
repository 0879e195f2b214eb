"""Interpreter of the commands that a test server reads from its input."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from birthmark.durations import duration_of
from birthmark.errors import BirthmarkError
from birthmark.operator_api.client.server_discovery_and_api_client import OperatorClient
from birthmark.server.resettable_test_server import TrialServer
from birthmark.supervised_tasks import note, run_in_thread
from birthmark.testing.errors import AnswerError, WordInvalidError
from birthmark.testing.stdin_commands import (
    ClockWord,
    KitCommand,
    LineWord,
    ListMessages,
    MakeAwsThing,
    Reset,
    ThrottleTier,
    offset_of,
    parse_word,
    told,
)
from birthmark.untrusted_json_and_text import printable

_SHOWN = 64


class Interpreter:
    """Runs the commands of a test server, one line after the other."""

    def __init__(self) -> None:
        self._workshop: Any = None
        self.refused = 0
        """Number of refused lines."""

    async def answer(self, trial: TrialServer, line: bytes) -> Mapping[str, Any]:
        """Run a command line and return its result; refusals and internal errors are results, too."""
        try:
            return await self._do(trial, parse_word(line))
        except BirthmarkError as error:
            refused = error
        except Exception as error:  # noqa: BLE001 - any error: answer the next command
            note("a word of a test", error)
            refused = _unforeseen(line, error)
        self.refused += 1
        return told(refused)

    async def _do(self, trial: TrialServer, word: KitCommand) -> Mapping[str, Any]:
        match word:
            case Reset():
                self._workshop = None
                return await trial.reset()
            case ClockWord(by=by):
                trial.set_clock(_valid(offset_of, by))
                return {"clock": trial.clock.now().isoformat()}
            case LineWord(state=state, after_bytes=after_bytes):
                await trial.set_line(state, after_bytes)
                return {"line": state.value}
            case ThrottleTier(lasts=lasts, day=day, tier=tier):
                duration = _valid(duration_of, lasts)
                await run_in_thread(lambda: self._here(trial).set_tier(tier))
                trial.exhaust_quotas(duration, is_day=day)
                return {"throttled_s": duration.total_seconds()}
            case MakeAwsThing():
                trial.start_recording()
            case ListMessages(at="aws", name=name, limit=limit, topic=topic):
                from birthmark.testing.device_and_fault_factory import message_of_aws

                asked = trial.published
                found = [one for one in asked if name in {"", one.publisher} and topic in {"", one.topic}]
                return {"items": [message_of_aws(message) for message in found[-limit:]]}
            case _:
                pass
        shop = self._here(trial)
        return await run_in_thread(lambda: shop.do(word))

    def _here(self, trial: TrialServer) -> Any:
        """Return the device factory, whose imports a server does not need otherwise."""
        if self._workshop is None:
            from birthmark.testing.device_and_fault_factory import DeviceFactory

            data = trial.settings.directory
            self._workshop = DeviceFactory(data, OperatorClient.of(data), trial)
        return self._workshop


def _unforeseen(line: bytes, error: Exception) -> AnswerError:
    word = parse_word(line)
    tag = str(word.__struct_config__.tag)
    name, reason = getattr(word, "name", "") or tag, printable(str(error))
    return AnswerError(url="the server", status="a mistake of Birthmark", body=reason, name=name, word=f"{tag} {name}")


def _valid(parse: Any, text: str) -> timedelta:
    try:
        found: timedelta = parse(text)
    except (ValueError, OverflowError) as error:
        raise WordInvalidError(word=printable(text[:_SHOWN]), detail=str(error)) from error
    return found
