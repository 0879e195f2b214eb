"""The one domain error tree: what was refused, why, and what a person does about it.

Eight kinds say how a refusal behaves; rooms subclass them and give each class its own stable `code`, a `cause` and a
`fix`. `cause` and `fix` are `str.format` templates over the error's `facts`. The message itself is safe to show to
whoever asked; cause and fix are for the operator (`birthmark why`, the console, the CLI).

Not here: HTTP statuses, MQTT return codes and vendor error codes. Each room's `errors.py` holds that one table.
"""

import re
import shlex
from collections.abc import Mapping
from typing import ClassVar

_TWO_ENDS = re.compile(r"([.!?…])\.(?=\s|$)")  # a fact that is a sentence, in a template that ends one

# Facts that are commands or options themselves, quoted by who made them; `options` says which chip.
_COMMANDS = frozenset({"again", "command", "options", "without"})


class BirthmarkError(Exception):
    """Anything Birthmark refuses on purpose. `facts` are short strings, never secrets."""

    code: ClassVar[str] = "birthmark.refused"
    cause: ClassVar[str] = "The request was refused."
    fix: ClassVar[str] = "See the message."
    for_a_person: ClassVar[str | None] = None
    """Why only a person can do what `fix` says; of every other class a test does it as it stands."""

    def __init__(self, message: str, /, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts: Mapping[str, str] = {name: str(value) for name, value in facts.items()}

    def name(self, **facts: object) -> None:
        """Add facts that only the place where it was caught knows; what the error says itself stays."""
        self.facts = {name: str(value) for name, value in facts.items()} | dict(self.facts)

    def explain_cause(self) -> str:
        """Return `cause` with this error's facts filled in."""
        return _TWO_ENDS.sub(r"\1", self.cause.format_map(_Blank(self.facts)))

    def explain_fix(self) -> str:
        """Return `fix` with this error's facts filled in; what a stranger chose is one word of a command, quoted."""
        plain = _Blank(self.facts)
        typed = _Blank({name: text if name in _COMMANDS else shlex.quote(text) for name, text in self.facts.items()})
        parts = self.fix.split("`")
        filled = (part.format_map(typed if number % 2 else plain) for number, part in enumerate(parts))
        return _TWO_ENDS.sub(r"\1", "`".join(filled))


class _Blank(dict[str, str]):
    """Facts for a template; a fact that is missing shows as a question mark instead of failing. Options may be none."""

    def __missing__(self, key: str) -> str:
        return "" if key == "options" else "?"


class InvalidRequestError(BirthmarkError):
    """The request is malformed; sending it again unchanged cannot help."""

    code = "request.invalid"


class UnauthenticatedError(BirthmarkError):
    """Who asks is not known: no proof, or a proof that does not hold."""

    code = "auth.unauthenticated"


class ForbiddenError(BirthmarkError):
    """Who asks is known and may not do this."""

    code = "auth.forbidden"


class NotFoundError(BirthmarkError):
    """What was asked for does not exist."""

    code = "resource.not_found"


class ConflictError(BirthmarkError):
    """The request contradicts what is stored: it exists already, or changed meanwhile."""

    code = "resource.conflict"


class PolicyError(BirthmarkError):
    """The request is well formed and authorized, and a rule of this installation forbids it."""

    code = "policy.refused"


class ThrottledError(BirthmarkError):
    """Too much at once; `retry_after_s` says when to come back."""

    code = "limits.throttled"

    def __init__(self, message: str, /, *, retry_after_s: int, **facts: object) -> None:
        super().__init__(message, **facts)
        self.retry_after_s = retry_after_s


class UnavailableError(BirthmarkError):
    """Something this installation needs does not answer now; nothing was lost, try again."""

    code = "service.unavailable"
