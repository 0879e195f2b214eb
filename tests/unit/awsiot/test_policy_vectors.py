"""The vectors of `policy_vectors.txt`, each decided as it says."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from birthmark.awsiot.model import Thing, ThingName
from birthmark.awsiot.rules.policy import AuthDecision, ConnectionPermissions, parse_policy
from birthmark.awsiot.rules.policy_variables import ConnectionContext, facts_of
from birthmark.pki.certificates import Certificate
from support.fakes import NOON
from support.pki.pki_builders import a_device

FILE = Path(__file__).with_name("policy_vectors.txt")
ACCOUNT = "arn:aws:iot:us-east-1:000000000000:"
OUTCOMES = {"+": AuthDecision.ALLOWED, "-": AuthDecision.IMPLICIT_DENY, "!": AuthDecision.EXPLICIT_DENY}


@lru_cache
def certificate(common_name: str) -> Certificate:
    return a_device(common_name=common_name).certificate


def arn(text: str) -> str:
    return text if text == "*" or text.startswith("arn:") else ACCOUNT + text


@dataclass
class Who:
    """Who asks, and by which policies."""

    client: str = "pump-1"
    address: str = "192.0.2.7"
    cn: str = "pump-1"
    attributes: tuple[str, ...] = ()
    thing: Thing | None = None
    now: datetime = NOON
    policies: dict[str, list[Any]] = field(default_factory=dict)
    policy: str = "certificate"

    def say(self, word: str, rest: str) -> None:
        """Take one line of who asks, and by what."""
        match word:
            case "client" | "address" | "cn" | "policy":
                setattr(self, word, rest)
            case "attributes":
                self.attributes = tuple(rest.split())
            case "time":
                self.now = datetime.fromisoformat(rest)
            case "thing":
                name, *more = rest.split()
                known = dict(one.split("=") for one in more)
                self.thing = Thing(ThingName(name), "id", known.pop("type", None), known, None, 1, NOON)
            case "allow" | "deny":
                self.policies.setdefault(self.policy, []).append(statement(word, rest))
            case _:
                raise AssertionError(f"what is {word!r}?")

    def permissions(self) -> ConnectionPermissions:
        documents = {
            name: json.dumps({"Version": "2012-10-17", "Statement": statements})
            for name, statements in self.policies.items()
        }
        leaf = certificate(self.cn)
        facts = facts_of(
            leaf, ConnectionContext(leaf, self.client, self.address, "localhost", self.attributes), self.thing
        )
        return ConnectionPermissions([parse_policy(name, document) for name, document in documents.items()], facts)


def statement(word: str, rest: str) -> dict[str, Any]:
    """Return a statement, written as `[not] ACTIONS [not] on RESOURCES [if OPERATOR KEY VALUES… [and …]]`."""
    said, _, conditions = rest.partition(" if ")
    actions, _, resources = said.partition(" on ")
    without_action, actions = actions.startswith("not "), actions.removeprefix("not ")
    without_resource, actions = actions.endswith(" not"), actions.removesuffix(" not")
    made: dict[str, Any] = {
        "Effect": word.capitalize(),
        "NotAction" if without_action else "Action": actions.split(","),
        "NotResource" if without_resource else "Resource": [arn(one) for one in resources.split(",")],
    }
    if conditions:
        made["Condition"] = {}
        for one in conditions.split(" and "):
            operator, key, *values = one.split()
            made["Condition"].setdefault(operator, {})[key] = values
    return made


def vectors() -> Iterator[Any]:
    """Yield permissions, action, resource, time and what is expected, of each question of the file."""
    title, who, numbers = "", Who(), count(1)
    for line in FILE.read_text().partition("\n# ")[2].splitlines():
        line = line if title else f"# {line}"  # noqa: PLW2901 - the first title's mark was cut off
        word, _, rest = line.partition(" ")
        if word == "#":
            title, who, numbers = rest, Who(), count(1)
        elif word in OUTCOMES:
            action, *resources = rest.split()
            for resource in resources:
                given = (who.permissions(), f"iot:{action}", arn(resource), who.now, OUTCOMES[word])
                yield pytest.param(*given, id=f"{title} {next(numbers)}")
        elif word:
            who.say(word, rest)


VECTORS = list(vectors())


@pytest.mark.parametrize(("permissions", "action", "resource", "now", "expected"), VECTORS)
def test_a_question_is_decided_as_the_file_says(
    permissions: ConnectionPermissions, action: str, resource: str, now: datetime, expected: AuthDecision
) -> None:
    for _ in range(2):  # the second time from memory
        assert permissions.decide(action, resource, now).outcome is expected


def test_there_are_many_and_of_each_kind() -> None:
    expected = [one.values[-1] for one in VECTORS]
    assert len(expected) >= 300
    assert {outcome: expected.count(outcome) >= 25 for outcome in AuthDecision} == dict.fromkeys(AuthDecision, True)
