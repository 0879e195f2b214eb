"""The one domain error tree: what was refused, why, and what a person does about it.

Eight kinds say how a refusal behaves; rooms subclass them and give each class its own stable `code`, a `message` (the
docstring, where it has no facts), a `cause` (the message, where that says it) and a `fix`: templates over the facts
that the class declares as fields.
A raise names facts and nothing else: a forgotten one is a type error, and a template with an unknown one fails at
import. What follows from other facts is a property, and a fact, too.
The message is safe to show to whoever asked; cause and fix are for the operator (`birthmark why`, the CLI).

Not here: HTTP statuses, MQTT return codes and vendor error codes. Each room's `errors.py` holds that one table.
"""

import contextlib
import re
import shlex
from collections.abc import Iterator, Mapping
from string import Formatter
from typing import ClassVar, dataclass_transform

_TWO_ENDS = re.compile(r"([.!?…])\.(?=\s|$)")  # a fact that is a sentence, in a template that ends one

# Facts that are commands or options themselves, quoted by who made them; `options` says which chip.
_COMMANDS = frozenset({"again", "command", "options", "without"})

_OWN_COMMAND = re.compile(r"birthmark [^|&;<>$()]+")
_ARGUMENT = re.compile(r"(?: --?[a-z-]+)? \{(\w+)\}(?= |$)")
"""A fact by itself in a command, with the option before it."""

_NO_ASCII = re.compile(r"[^ -~]+")
_NO_UTF8 = re.compile(r"[\udc80-\udcff]")
_PIN = re.compile(r"(?i)(pin-value=)[^&;?\s\"'`]+")

BACKTICK = "'\"$(printf '\\140')\"'"
"""What stands for a backtick within a word that `shlex` quoted, where backticks part commands from what is said."""


@dataclass_transform(kw_only_default=True, eq_default=False)
class BirthmarkError(Exception):
    """Anything Birthmark refuses on purpose; subclasses declare their facts as fields, never secrets."""

    code: ClassVar[str] = "birthmark.refused"
    message: ClassVar[str] = "The request was refused"
    cause: ClassVar[str] = "The request was refused."
    fix: ClassVar[str] = "See the message."
    for_a_person: ClassVar[str | None] = None
    """Why only a person can do what `fix` says; of every other class a test does it as it stands."""

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Read the declared facts, and the message where it is the docstring. Raise `TypeError` for an unknown fact."""
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
        """What is known of the case, as text; what is not known, or empty, is left out."""
        return {name: text for name, text in self._filled().items() if text}

    def add_facts(self, **facts: object) -> None:
        """Add facts that only the place where it was caught knows; what the error says itself stays."""
        self._added = facts | self._added

    def say_about(self, what: str) -> None:
        """Say in front of the message what it is about, unless it does."""
        if what not in str(self):
            self._about = f"{_text(what)}: "

    def quote(self, **words: str) -> None:
        """Let this one error say another program's own words: its `code`, `message`, `cause` or `fix`."""
        vars(self).update({name: _text(text).replace("{", "{{").replace("}", "}}") for name, text in words.items()})

    def explain_cause(self) -> str:
        """Return `cause` with this error's facts filled in."""
        return _TWO_ENDS.sub(r"\1", self.cause.format_map(self._filled()))

    def explain_case(self) -> str:
        """Return the same where it stands without the message: behind what it is about, unless it says so itself."""
        cause = self.explain_cause()
        return cause if self._about.removesuffix(": ") in cause else self._about + cause

    def explain_fix(self) -> str:
        """Return `fix` with this error's facts filled in; what a stranger chose is one word of a command, quoted."""
        plain = self._filled()
        typed = {name: text if name in _COMMANDS else shell_word(text) for name, text in plain.items()}
        return _TWO_ENDS.sub(r"\1", self._fixed(plain, typed))

    def explain_apart(self) -> tuple[str, str]:
        """Return cause and fix for whoever shows what is between backticks as a command: a fact makes none.

        What a stranger chose, such as a name, would be taken for advice of ours otherwise, with a button to copy it.
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
        """Return every fact as text: what the raise said, else what was added, else the default or what follows."""
        given = {name: value for name, value in vars(self).items() if name in self._fields}
        left_out = {name: getattr(self, name) for name in self._fields if name not in given}
        return {name: _text(value) for name, value in (left_out | self._added | given).items()}


def is_utf_8(text: str) -> bool:
    """Say whether what the system handed over, such as an argument or a file's name, was UTF-8."""
    return _NO_UTF8.search(text) is None


def shell_word(text: str) -> str:
    """Return a text as one word of a command; what is not UTF-8, or is not seen, as a shell has its bytes escaped."""
    if is_utf_8(text) and text.isprintable():
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _NO_ASCII.sub(lambda found: "".join(map(_typed_char, found[0])), escaped) + "'"


def _typed_char(char: str) -> str:
    """Return a character as it is typed; a half of one that JSON may hold has bytes, too, though no shell's locale."""
    if char.isprintable():
        return char
    way = "surrogatepass" if is_utf_8(char) else "surrogateescape"
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", way))


def _command(template: str, words: Mapping[str, str]) -> str:
    """Return a command with its words; an argument that begins with a hyphen comes last, where it is no option."""
    last = ""
    if _OWN_COMMAND.fullmatch(template):
        for found in list(_ARGUMENT.finditer(template)):
            if not found[0].startswith(" -") and words[found[1]].lstrip("'").startswith("-"):
                template, last = template.replace(found[0], "", 1), last + found[0]
    return (f"{template} --{last}" if last else template).format_map(words)


@contextlib.contextmanager
def mended_by(command: str, *kinds: type[BirthmarkError]) -> Iterator[None]:
    """Let errors of these kinds, which have a `{command}` in their fix, lead to this one."""
    try:
        yield
    except kinds as error:
        error.add_facts(command=command)
        raise


@contextlib.contextmanager
def about(path: object) -> Iterator[None]:
    """Let a refusal of a file's content say which file it was."""
    try:
        yield
    except BirthmarkError as error:
        error.say_about(str(path))
        error.add_facts(path=path)
        raise


def _text(value: object) -> str:
    """Return a fact as text; the PIN of a PKCS#11 URI in it, or in a command as it was typed, is never told."""
    if hasattr(value, "__fspath__") and str(value).startswith("-"):
        return f"./{value}"  # which no command takes for an option
    return value.hex() if isinstance(value, bytes) else _PIN.sub(r"\1…", str(value))


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


class ChangedMeanwhileError(ConflictError):
    """What was read is no longer as it was read: read it and decide again."""

    code = "resource.changed"
    message = "{what} was changed by another request; read it and retry"
    cause = "{what} was changed by another request at the same time; nothing was written."
    fix = "Read the current state and repeat the change."
    for_a_person = "a person has to review the other change"
    what: str = "The record"


class PolicyError(BirthmarkError):
    """The request is well formed and authorized, and a rule of this installation forbids it."""

    code = "policy.refused"


class ThrottledError(BirthmarkError):
    """Too much at once; `retry_after_s` says when to come back."""

    code = "limits.throttled"
    retry_after_s: int


class UnavailableError(BirthmarkError):
    """Something this installation needs does not answer now; nothing was lost, try again."""

    code = "service.unavailable"
