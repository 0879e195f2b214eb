"""The words of a server for tests."""

from collections.abc import Mapping

from fixes.scenario import Scenario


def asked(*words: str) -> str:
    """Ask it, and show what it refuses as commands show that."""
    lines = " ".join(f"'{word}'" for word in words)
    return f"printf '%s\\n' {lines} | birthmark test-server --json | grep '\"error\"' >&2; false"


RESET = """
import json, os
from birthmark.errors import BirthmarkError
from birthmark.testing.cloud import Cloud
from birthmark.testing.stdin_commands import told
try:
    Cloud.at(os.environ['BIRTHMARK_DATA']).reset()
except BirthmarkError as error:
    print(json.dumps(told(error)))
"""

TESTING: Mapping[str, Scenario] = {
    "testing.word_invalid": Scenario(asked("renew-all"), is_instead=True),
    "testing.subject_unknown": Scenario(asked("expire pump-1"), is_instead=True),
    "testing.not_provoked": Scenario(asked("azure-device pump-1", "refuse pump-1 net.slow_reader"), is_instead=True),
    "testing.runs_by_itself": Scenario(
        f'python -c "{RESET}" >&2; false',
        is_instead=True,
    ),
    "testing.answer": Scenario(asked("aws-thing pump-1", "aws-thing pump-1"), is_instead=True),
}
