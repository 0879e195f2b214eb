"""Domain error hierarchy: what was rejected, why, and how to fix it.

Eight kinds define the behavior of a refusal. Modules subclass them and give each class its own stable `code`, a
`message`, a `cause` and a `fix`. The message defaults to the docstring if it has no facts, and the cause to the
message. These are templates over the facts that the class declares as fields. A raise passes only facts: a missing one
is a type error, and a template with an unknown fact fails at import. A property derives a fact from others. The message
is safe for the caller; cause and fix are for the operator (`birthmark why`, the CLI).

Not here: HTTP statuses, MQTT return codes and vendor error codes. Each package's `error_mapping.py` has that table.
"""

import contextlib
import re
import shlex
from collections.abc import Iterator, Mapping
from string import Formatter
from typing import ClassVar, dataclass_transform

_TWO_ENDS = re.compile(r"([.!?…])\.(?=\s|$)")  # a fact that is a sentence, at the end of a sentence

# Facts that are commands or options, already quoted by their creator; `options` selects the chip.
_COMMANDS = frozenset({"again", "command", "options", "without"})

_OWN_COMMAND = re.compile(r"birthmark [^|&;<>$()]+")
_ARGUMENT = re.compile(r"(?: --?[a-z-]+)? \{(\w+)\}(?= |$)")
"""A command argument that is a single fact, with the option before it."""

_NO_ASCII = re.compile(r"[^ -~]+")
_NO_UTF8 = re.compile(r"[\udc80-\udcff]")
_PIN = re.compile(r"(?i)(pin-value=)[^&;?\s\"'`]+")

BACKTICK = "'\"$(printf '\\140')\"'"
"""Replacement for a backtick in a word that `shlex` quoted, where backticks delimit commands."""


@dataclass_transform(kw_only_default=True, eq_default=False)
class BirthmarkError(Exception):
    """Base of all refusals by Birthmark; subclasses declare their facts as fields, never secrets."""

    code: ClassVar[str] = "birthmark.refused"
    message: ClassVar[str] = "The request was refused"
    cause: ClassVar[str] = "The request was refused."
    fix: ClassVar[str] = "See the message."
    for_a_person: ClassVar[str | None] = None
    """Reason why only a person can apply `fix`; tests apply the fix of every other class as printed."""

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Collect the facts, and default the message to the docstring. Raise `TypeError` for an unknown fact."""
        if "message" in vars(cls) and "cause" not in vars(cls):
            cls.cause = cls.message.removesuffix(".") + "."
        if "message" not in vars(cls) and "code" in vars(cls):
            cls.message = (cls.__doc__ or BirthmarkError.message).partition("\n")[0]
        own = (name for name, hint in vars(cls).get("__annotations__", {}).items() if "ClassVar" not in str(hint))
        follow = (name for name, value in vars(cls).items() if isinstance(value, property))
        cls._fields = tuple(dict.fromkeys((*cls._fields, *own, *follow)))
        for template in (cls.message, cls.cause, cls.fix):
            for _, name, _, _ in Formatter().parse(template):
                if name is not None and name not in cls._fields:
                    raise TypeError(f"{cls.__name__} has no fact {name!r} for {template!r}")

    def __init__(self, **facts: object) -> None:
        super().__init__()
        if missing := [name for name in self._fields if name not in facts and not hasattr(type(self), name)]:
            raise TypeError(f"{type(self).__name__} without {', '.join(missing)}")
        vars(self).update({name: value for name, value in facts.items() if name in self._fields})
        self._added = {name: value for name, value in facts.items() if name not in self._fields}
        self._about = ""

    def __str__(self) -> str:
        return self._about + self.message.format_map(self._filled())

    @property
    def facts(self) -> Mapping[str, str]:
        """Known facts as text, without empty ones."""
        return {name: text for name, text in self._filled().items() if text}

    def add_facts(self, **facts: object) -> None:
        """Add facts from the place that caught the error; facts of the error itself take precedence."""
        self._added = facts | self._added

    def add_subject(self, what: str) -> None:
        """Prefix the message with its subject, unless it already contains it."""
        if what not in str(self):
            self._about = f"{_text(what)}: "

    def quote(self, **words: str) -> None:
        """Replace `code`, `message`, `cause` or `fix` of this error with text from another program."""
        vars(self).update({name: _text(text).replace("{", "{{").replace("}", "}}") for name, text in words.items()})

    def explain_cause(self) -> str:
        """Return `cause` with this error's facts filled in."""
        return _TWO_ENDS.sub(r"\1", self.cause.format_map(self._filled()))

    def explain_cause_with_subject(self) -> str:
        """Return the cause for use without the message, prefixed with its subject unless it contains it."""
        cause = self.explain_cause()
        return cause if self._about.removesuffix(": ") in cause else self._about + cause

    def explain_fix(self) -> str:
        """Return `fix` with this error's facts; an external value becomes one quoted word of a command."""
        plain = self._filled()
        typed = {name: text if name in _COMMANDS else shell_word(text) for name, text in plain.items()}
        return _TWO_ENDS.sub(r"\1", self._fixed(plain, typed))

    def explain_for_display(self) -> tuple[str, str]:
        """Return cause and fix for displays that render backticks as commands; facts cannot add a command.

        An external value, such as a name, could otherwise appear as our advice, with a copy button.
        """
        plain = {name: text.replace("`", "'") for name, text in self._filled().items()}
        typed = {name: text if name in _COMMANDS else shell_word(text) for name, text in self._filled().items()}
        typed = {name: text.replace("`", BACKTICK) for name, text in typed.items()}
        cause, fix = self.cause.format_map(plain), self._fixed(plain, typed)
        return _TWO_ENDS.sub(r"\1", cause), _TWO_ENDS.sub(r"\1", fix)

    def _fixed(self, plain: Mapping[str, str], typed: Mapping[str, str]) -> str:
        parts = enumerate(self.fix.split("`"))
        return "`".join(_command(part, typed) if number % 2 else part.format_map(plain) for number, part in parts)

    def _filled(self) -> dict[str, str]:
        """Return every fact as text: from the raise, an addition, the default or the derived value, in this order."""
        given = {name: value for name, value in vars(self).items() if name in self._fields}
        left_out = {name: getattr(self, name) for name in self._fields if name not in given}
        return {name: _text(value) for name, value in (left_out | self._added | given).items()}


def is_utf_8(text: str) -> bool:
    """Return whether a text from the system, such as an argument or a file name, was valid UTF-8."""
    return _NO_UTF8.search(text) is None


def shell_word(text: str) -> str:
    """Return a text as one shell word; invisible or non-UTF-8 characters are escaped as bytes."""
    if is_utf_8(text) and text.isprintable():
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _NO_ASCII.sub(lambda found: "".join(map(_typed_char, found[0])), escaped) + "'"


def _typed_char(char: str) -> str:
    """Return a character in typed form; a lone surrogate, which JSON may hold, is escaped as bytes, too."""
    if char.isprintable():
        return char
    way = "surrogatepass" if is_utf_8(char) else "surrogateescape"
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", way))


def _command(template: str, values: Mapping[str, str]) -> str:
    """Return a command with its values; an argument with a leading hyphen comes last, after `--`."""
    last = ""
    if _OWN_COMMAND.fullmatch(template):
        for found in list(_ARGUMENT.finditer(template)):
            if not found[0].startswith(" -") and values[found[1]].lstrip("'").startswith("-"):
                template, last = template.replace(found[0], "", 1), last + found[0]
    return (f"{template} --{last}" if last else template).format_map(values)


@contextlib.contextmanager
def add_fix_command(command: str, *kinds: type[BirthmarkError]) -> Iterator[None]:
    """Add `command` to errors of these kinds, which have a `{command}` in their fix."""
    try:
        yield
    except kinds as error:
        error.add_facts(command=command)
        raise


@contextlib.contextmanager
def about(path: object) -> Iterator[None]:
    """Add the file to an error about its content."""
    try:
        yield
    except BirthmarkError as error:
        error.add_subject(str(path))
        error.add_facts(path=path)
        raise


def _text(value: object) -> str:
    """Return a fact as text, without the PIN of a PKCS#11 URI, also inside a command."""
    if hasattr(value, "__fspath__") and str(value).startswith("-"):
        return f"./{value}"  # so that it is no option to a command
    return value.hex() if isinstance(value, bytes) else _PIN.sub(r"\1…", str(value))


class InvalidRequestError(BirthmarkError):
    """The request is malformed; an unchanged retry cannot help."""

    code = "request.invalid"


class UnauthenticatedError(BirthmarkError):
    """The caller is not authenticated: no proof, or an invalid proof."""

    code = "auth.unauthenticated"


class ForbiddenError(BirthmarkError):
    """The caller is authenticated, but lacks permission."""

    code = "auth.forbidden"


class NotFoundError(BirthmarkError):
    """The requested object does not exist."""

    code = "resource.not_found"


class ConflictError(BirthmarkError):
    """The request conflicts with the stored state: it already exists, or has changed since."""

    code = "resource.conflict"


class ChangedMeanwhileError(ConflictError):
    """The data has changed since it was read: read it and decide again."""

    code = "resource.changed"
    message = "{what} was changed by another request; read the current state and retry"
    cause = "{what} was changed by another request at the same time, so this request wrote nothing."
    fix = "Read the current state and repeat the change."
    for_a_person = "a user must review the other change"
    what: str = "The record"


class PolicyError(BirthmarkError):
    """The request is well formed and authorized, and a rule of this installation forbids it."""

    code = "policy.refused"


class ThrottledError(BirthmarkError):
    """Rate limit exceeded; `retry_after_s` is the time until a retry."""

    code = "limits.throttled"
    retry_after_s: int


class UnavailableError(BirthmarkError):
    """A dependency of this installation is unavailable; no data was lost, retry."""

    code = "service.unavailable"
