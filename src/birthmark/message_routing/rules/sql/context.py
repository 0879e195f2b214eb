"""One evaluation: the message, what it may ask for, and what it may still cost."""

from collections.abc import Mapping
from typing import Any, Protocol

from birthmark.clock import Entropy
from birthmark.message_routing.model import RoutableMessage
from birthmark.message_routing.rules.sql.errors import ShadowWantedError
from birthmark.message_routing.rules.sql.syntax import Version
from birthmark.message_routing.rules.sql.values import Meter, Value

MAX_STEPS = 200_000
"""All that one rule may cost for one message: its statement, its templates, and both again for each shadow."""


class Lookups(Protocol):
    """What a statement may ask for beside its message. Nothing of it waits: see `ShadowLookup`."""

    def shadow(self, thing: str, name: str | None) -> Value:
        """Return the shadow document as JSON has it, or `UNDEFINED`. Raise `ShadowWantedError` to be asked again."""
        ...


class ShadowLookup:
    """Shadows that were looked up before: evaluate, look up what `ShadowWantedError` names, evaluate again."""

    __slots__ = ("_known",)

    def __init__(self, known: Mapping[tuple[str, str | None], Value] | None = None) -> None:
        self._known = known or {}

    def shadow(self, thing: str, name: str | None) -> Value:
        """Return it. Raise `ShadowWantedError` where it is not known."""
        try:
            return self._known[thing, name]
        except KeyError:
            raise ShadowWantedError(thing, name) from None


NO_SHADOWS = ShadowLookup()


def new_meter() -> Meter:
    """Return the meter of one rule and one message."""
    return Meter(MAX_STEPS, may_grow=False)


class EvaluationContext:
    """What the parts of one evaluation share."""

    __slots__ = ("entropy", "lookups", "message", "meter", "variables", "version")

    def __init__(  # noqa: PLR0917 - all of it, each time
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
        """Whole Decimals are Ints, as 2016-03-23 has it."""
        return self.version is Version.V2016_03_23
