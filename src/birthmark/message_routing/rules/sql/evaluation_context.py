"""Evaluation context: the message, its lookups, and the remaining cost."""

from collections.abc import Mapping
from typing import Any, Protocol

from birthmark.clock_and_entropy import Entropy
from birthmark.message_routing.routable_message import RoutableMessage
from birthmark.message_routing.rules.sql.errors import ShadowWantedError
from birthmark.message_routing.rules.sql.syntax_tree import Version
from birthmark.message_routing.rules.sql.values import Meter, Value

MAX_STEPS = 200_000
"""Maximum steps of a rule per message: statement and templates, and both again for each shadow."""


class Lookups(Protocol):
    """External lookups of a statement; they never wait: see `ShadowLookup`."""

    def shadow(self, thing: str, name: str | None) -> Value:
        """Return the shadow document as JSON, or `UNDEFINED`. Raise `ShadowWantedError` if it must be loaded first."""
        ...


class ShadowLookup:
    """Preloaded shadows: evaluate, load what `ShadowWantedError` names, evaluate again."""

    __slots__ = ("_known",)

    def __init__(self, known: Mapping[tuple[str, str | None], Value] | None = None) -> None:
        self._known = known or {}

    def shadow(self, thing: str, name: str | None) -> Value:
        """Return a preloaded shadow. Raise `ShadowWantedError` if it is not loaded."""
        try:
            return self._known[thing, name]
        except KeyError:
            raise ShadowWantedError(thing, name) from None


NO_SHADOWS = ShadowLookup()


def new_meter() -> Meter:
    """Return the meter for one rule and message."""
    return Meter(MAX_STEPS, may_grow=False)


class EvaluationContext:
    """Shared state of one evaluation."""

    __slots__ = ("entropy", "lookups", "message", "meter", "variables", "version")

    def __init__(  # noqa: PLR0917 - a full context
        self,
        message: RoutableMessage,
        version: Version,
        entropy: Entropy,
        lookups: Lookups,
        variables: Mapping[str, Any],
        meter: Meter,
    ) -> None:
        self.message, self.version, self.entropy, self.lookups = message, version, entropy, lookups
        self.variables = variables
        self.meter = meter

    @property
    def is_whole(self) -> bool:
        """Return whether integral Decimals become Ints, as in version 2016-03-23."""
        return self.version is Version.V2016_03_23
