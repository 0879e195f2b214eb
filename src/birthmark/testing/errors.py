"""What a server for tests refuses of what it is asked on its input."""

from pathlib import Path

from birthmark.errors import InvalidRequestError, NotFoundError, UnavailableError


class WordInvalidError(InvalidRequestError):
    """A line of the input that is no word, or not one with such values."""

    code = "testing.word_invalid"
    message = "{word} is not understood"
    cause = "A server for tests does not understand `{word}`: {detail}."
    fix = "Look at what it understands: `echo help | birthmark test-server --json`"
    detail: str
    word: str


class SubjectUnknownError(NotFoundError):
    """No device of that name was made since the last reset."""

    code = "testing.subject_unknown"
    message = "There is no {name}"
    cause = "{name} was not made on the input of this server since its last reset{known}."
    fix = "Make it first: `echo {example} | birthmark test-server --json`"
    example: str
    known: str
    name: str


class RunsByItselfError(InvalidRequestError):
    """Something that is of the whole server was asked of one that runs by itself."""

    code = "testing.runs_by_itself"
    message = "{word} is for a server that the tests started"
    cause = "{word} would change the server of {data} for all who use it: it was not started for tests."
    fix = "Ask one that was: `birthmark test-server --json`"
    data: Path
    word: str


class NotProvokedError(InvalidRequestError):
    """A refusal that no state of the server brings about for such a device."""

    code = "testing.not_provoked"
    message = "{refusal} cannot be provoked for {kind}"
    cause = "No state of the server has {kind} refused as {refusal}. There is {possible}."
    fix = "Look at what can be provoked: `echo help | birthmark test-server --json`"
    kind: str
    possible: str
    refusal: str


class AnswerError(UnavailableError):
    """An interface of the server did not do what a word takes."""

    code = "testing.answer"
    message = "{name} was not made or changed: {body}"
    cause = "{url} answered {status} where something of the name {name} was made or changed: {body}"
    fix = "Take another name or certificate, or a server that is new: `echo {word} | birthmark test-server --json`"
    body: str
    name: str
    status: str
    url: str
    word: str
