"""Errors of commands to a test server."""

from pathlib import Path

from birthmark.errors import InvalidRequestError, NotFoundError, UnavailableError


class WordInvalidError(InvalidRequestError):
    """An unknown command, or a command with invalid values."""

    code = "testing.word_invalid"
    message = "Invalid command: {word}"
    cause = "The test server rejects `{word}`: {detail}."
    fix = "List the commands: `echo help | birthmark test-server --json`"
    detail: str
    word: str


class SubjectUnknownError(NotFoundError):
    """No device of that name was created since the last reset."""

    code = "testing.subject_unknown"
    message = "{name} does not exist"
    cause = "No command on this server's input created {name} since the last reset{known}."
    fix = "Create the device first: `echo {example} | birthmark test-server --json`"
    example: str
    known: str
    name: str


class RunsByItselfError(InvalidRequestError):
    """A command for the complete server at a server that was not started for tests."""

    code = "testing.runs_by_itself"
    message = "{word} requires a server started by the tests"
    cause = "{word} would change the server of {data} for all its users, and that server was not started for tests."
    fix = "Use a test server: `birthmark test-server --json`"
    data: Path
    word: str


class NotProvokedError(InvalidRequestError):
    """No state of the server causes this refusal for the device."""

    code = "testing.not_provoked"
    message = "{refusal} cannot be provoked for {kind}"
    cause = "No state of the server causes the refusal {refusal} for {kind}. Possible refusals: {possible}."
    fix = "List the possible refusals: `echo help | birthmark test-server --json`"
    kind: str
    possible: str
    refusal: str


class AnswerError(UnavailableError):
    """An interface of the server rejected the command's request."""

    code = "testing.answer"
    message = "{name} was not created or changed: {body}"
    cause = "{url} returned {status} to the request that creates or changes {name}: {body}"
    fix = "Use another name or certificate, or a new server: `echo {word} | birthmark test-server --json`"
    body: str
    name: str
    status: str
    url: str
    word: str
