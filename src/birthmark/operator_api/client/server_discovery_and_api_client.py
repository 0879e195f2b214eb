"""Discovery of a running server by its data directory, and the command line's client of its operator API."""

import contextlib
import http.client
import json
import os
import re
import shlex
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from birthmark import errors
from birthmark.auth.access_token_cloud_credentials import access_key_of, key_of, policy_of
from birthmark.auth.connection_strings import ConnectionString
from birthmark.flock import directory_of, parent_of
from birthmark.operator_api.client.saved_login import Login, place, roots_file, signed_in
from birthmark.operator_api.data_directory_lock import NAME as LOCK
from birthmark.operator_api.data_directory_lock import is_served
from birthmark.operator_api.unix_socket import PORT_ALONE, UnixSocketConnection
from birthmark.ownership_and_sudo_commands import OWN_DATA, SERVICE_DATA, starting
from birthmark.untrusted_json_and_text import reason_of

DEFAULT_DATA = OWN_DATA
_FIRST = "birthmark"
"""Name of the provisioning service and the hub that every server creates."""
_STANDARD = 443
_OTHERS = 3
_TIMEOUT_S = 30
_MAX_BYTES = 64 * 1024 * 1024
_PARTS = {"trust_bundle", "est", "dps", "iothub", "aws", "health_url"}
_DAMAGED = "endpoints.json is damaged"
_LIMIT = re.compile(rb"body is larger than (\d{1,12}) bytes")
_KINDS: dict[int, type[errors.BirthmarkError]] = {
    400: errors.InvalidRequestError,
    401: errors.UnauthenticatedError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    422: errors.PolicyError,
}


class ServerNotRunningError(errors.UnavailableError):
    """The data directory's server does not respond."""

    code = "operator.server_not_running"
    message = "No server responds for {data}"
    cause = "No Birthmark server responds for the data directory {data} ({reason})."
    fix = "{advice}"
    data: Path
    reason: str
    advice: str


class NoAnswerInTimeError(errors.UnavailableError):
    """The server did not respond in time."""

    code = "operator.no_answer_in_time"
    cause = (
        "The server of {data} did not respond within {seconds} s. The server is busy, or its machine or database is "
        "slow."
    )
    fix = (
        "Wait until the server responds: `birthmark env --wait 60 --data {named}`. Then check the result of the "
        "request."
    )
    data: Path
    named: str
    seconds: str


class AnswerTooLargeError(errors.UnavailableError):
    """The response is too large for a command."""

    code = "operator.answer_too_large"
    cause = "The response from the server of {data} exceeds the command's limit of {most} bytes."
    fix = "Use a program without a size limit: `{command}`"
    command: str
    data: Path
    most: str


class ForeignFileError(errors.PolicyError):
    """A file of the data directory belongs to another user."""

    code = "operator.file_foreign"
    message = "{path} belongs to another user"
    cause = "{path} does not belong to the owner of the data directory and may have been planted."
    fix = "Check the files in {data}. Then run `rm {path}` and restart the server, which creates the file again."
    data: Path
    path: Path


class DataDirectoryClosedError(errors.ForbiddenError):
    """This user cannot read the data directory."""

    code = "operator.data_directory_closed"
    cause = "This user does not have permission to read the data directory {data}."
    fix = "Run the command as the directory's owner, or pass your own directory with --data."
    for_a_person = "the directory belongs to another user; the command line shows the command to run as its owner"
    data: Path


class RemoteAwayError(errors.UnavailableError):
    """The remote server cannot be reached."""

    code = "operator.remote_away"
    message = "{url} cannot be reached"
    cause = "{url}, where you are signed in, cannot be reached: {reason}."
    fix = "Check the connection: `curl -sS -k {url}/`. To use this machine's own server: `birthmark logout`"
    for_a_person = "the server is on another machine"
    reason: str
    url: str


class NotServedError(errors.UnavailableError):
    """The server does not run this service."""

    code = "operator.not_served"
    cause = (
        "The server of {data} does not run {service}: the setting `only` in its configuration, or the option --only, "
        "excludes this service."
    )
    fix = "Stop the server, and start it with all services: `birthmark serve --data {data} &`"
    data: Path
    service: str


def get_service(endpoints: dict[str, Any], service: str, data: Path) -> dict[str, Any]:
    """Return the endpoint of a server's service. Raise `NotServedError`."""
    found: dict[str, Any] | None = endpoints[service]
    if found is None:
        raise NotServedError(data=data, service=service)
    return found


def not_running(data: Path, reason: str) -> ServerNotRunningError:
    """Return the error for a data directory without a running server."""
    return ServerNotRunningError(data=data, reason=reason, advice=_advice(data))


def _advice(data: Path) -> str:
    """Return the fix: use the server that runs for another directory, or start the server of this one."""
    if data == SERVICE_DATA:
        moment = "one that was started a moment ago answers in seconds."
        return f"Start it if it is not running: `{starting(data)}`; {moment}"
    start = f"`{starting(data)}`. It is ready when it prints its endpoints."
    if data == Path(DEFAULT_DATA).expanduser() and not data.exists():
        start += " To use a server on another machine, sign in to it (birthmark login)."
    others = (
        sorted(find_other_served_directories(data)) if data == Path(DEFAULT_DATA).expanduser() else []
    )  # not the default
    if others:
        named = ", ".join(f"`export BIRTHMARK_DATA={shlex.quote(str(one))}`" for one in others[:_OTHERS])
        return f"A server runs for another directory; to use it: {named}. To start one here: {start}"
    return f"Start it: {start}"


def find_other_served_directories(data: Path) -> set[Path]:
    """Return the data directories of this user's other running servers, if the system exposes them (Linux)."""
    found: set[Path] = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if process.stat().st_uid != os.getuid() or b"serve" not in (process / "cmdline").read_bytes():
                continue
            links = [link.readlink() for link in (process / "fd").iterdir()]
            found |= {link.parent for link in links if link.name == LOCK}
    return {one for one in found if one != data.resolve() and is_served(one)}


def is_server_starting(data: Path) -> bool:
    """Return whether a server holds this data directory or any `serve` process exists that may take it.

    True if the system does not list processes (it has no /proc).
    """
    if is_served(data) or not Path("/proc/self").exists():
        return True
    return any(may_take_directory(process) for process in Path("/proc").glob("[0-9]*"))


def may_take_directory(process: Path) -> bool:
    """Return whether a /proc process is a `serve` without a data directory; a worker has its parent's."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if {b"serve", b"test-server"}.isdisjoint(words):
        return False
    both = process, process.with_name(str(parent_of(process)))
    return all(directory_of(one, LOCK) is None for one in both)


def read_endpoints(data: Path) -> dict[str, Any]:
    """Return the endpoints that the server of this data directory wrote when ready.

    Raise `ServerNotRunningError`.
    """
    try:
        found = json.loads(_read_owned_file(data, "endpoints.json"))
    except ValueError as error:
        raise not_running(data, _DAMAGED) from error
    if not isinstance(found, dict) or not _PARTS.issubset(found):
        raise not_running(data, _DAMAGED)
    return found


def _read_owned_file(data: Path, name: str) -> bytes:
    """Read a file of the directory owned by the directory's owner or root.

    Raise `ForeignFileError` or the read error.
    """
    try:
        with (data / name).open("rb") as file:
            if os.fstat(file.fileno()).st_uid not in {data.stat().st_uid, 0}:
                raise ForeignFileError(path=data / name, data=data)
            return file.read(_MAX_BYTES)
    except PermissionError as error:
        raise DataDirectoryClosedError(data=data) from error
    except OSError as error:
        raise not_running(data, error.strerror or "error") from error


def client_for(data: Path) -> "OperatorClient":
    """Return the client for the named data directory, otherwise for the saved login or the default directory.

    Raise `ServerNotRunningError`, `LoginDamagedError`.
    """
    if data == Path(DEFAULT_DATA) and (login := signed_in()) is not None:
        return RemoteClient.signed_in(login)
    return OperatorClient.of(data.expanduser())


def endpoints_for(data: Path) -> dict[str, Any]:
    """Return the caller's endpoints: of the named data directory, or of the saved login if none is named.

    Raise `ServerNotRunningError`, `LoginDamagedError`.
    """
    if data != Path(DEFAULT_DATA) or (login := signed_in()) is None:
        return read_endpoints(data.expanduser())
    found: dict[str, Any] = RemoteClient.signed_in(login).get("/server/endpoints")
    for name in ("dps", "iothub"):
        if (part := found[name]) is not None:
            part["service_connection_string"] = string_of(login, _FIRST, part["host"], part["https_port"])
    if found["aws"] is not None:
        secret = key_of(login.token).hex()
        found["aws"] |= {"access_key_id": access_key_of(login.token_id), "secret_access_key": secret}
    return {**found, "trust_bundle": str(roots_file(login)), "login": str(place())}


def string_of(login: Login, name: str, host: str, port: int) -> str:
    """Return the signed-in user's connection string for a provisioning service or hub of that name."""
    at = host if port == _STANDARD else f"{host}:{port}"
    return ConnectionString(at, policy_of(login.token_id, name), key_of(login.token)).render()


@dataclass(frozen=True, slots=True)
class OperatorClient:
    """Client of the operator API for the server of a data directory."""

    data: Path
    url: str
    token: str = field(repr=False)

    @classmethod
    def of(cls, data: Path) -> "OperatorClient":
        """Return a client for a data directory. Raise `ServerNotRunningError`."""
        endpoints = read_endpoints(data)
        try:
            token = _read_owned_file(data, "operator.token").decode("ascii").strip()
        except UnicodeDecodeError as error:
            raise not_running(data, "damaged operator.token") from error
        if not is_served(data):  # its port may have a new owner, which must not get the token
            raise not_running(data, "it has ended")
        return cls(data, endpoints["health_url"].rsplit("/", 1)[0], token)

    def rows(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """Yield the rows of a list, page by page."""
        while True:
            page = self._call("GET", path, None, query)
            yield from page["items"]
            if page["next"] is None:
                return
            query["after"] = page["next"]

    def lines(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """Yield the response line by line until its end. Raise `ServerNotRunningError` if the server ends first."""
        with self._send_request("GET", path, None, query, _TIMEOUT_S) as response:
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise _refused(response.status, _json(response.read(_MAX_BYTES)), self.data)
            while line := response.readline(_MAX_BYTES):
                part = _json(line)
                if not isinstance(part, dict):
                    break
                if "problem" in part:
                    raise _refused(part["problem"]["status"], part["problem"], self.data)
                if "end" in part:
                    return
                yield part
        raise self._away("it has ended")

    def put(self, path: str, body: object) -> Any:
        """Send PUT and return the JSON response."""
        return self._call("PUT", path, body, {})

    def post(self, path: str, body: object = None, *, patience_s: float = _TIMEOUT_S) -> Any:
        """Send POST and return the JSON response."""
        return self._call("POST", path, body, {}, patience_s)

    def get(self, path: str) -> Any:
        """Send GET and return the JSON response."""
        return self._call("GET", path, None, {})

    def patch(self, path: str, body: object) -> Any:
        """Send PATCH and return the resulting JSON."""
        return self._call("PATCH", path, body, {})

    def delete(self, path: str, **query: object) -> Any:
        """Send DELETE."""
        return self._call("DELETE", path, None, query)

    def _call(
        self, method: str, path: str, body: object, query: dict[str, object], patience_s: float = _TIMEOUT_S
    ) -> Any:
        with self._send_request(method, path, body, query, patience_s) as response:
            content = response.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            command = self._by_curl(method, _path(path, query), body)
            raise AnswerTooLargeError(data=self.data, most=str(_MAX_BYTES), command=command)
        answer = _json(content)
        if response.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and (limit := _LIMIT.search(content)) is not None:
            raise _too_large(limit[1].decode())
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise _refused(response.status, answer, self.data)
        return answer

    def _by_curl(self, method: str, path: str, body: object) -> str:
        """Return the equivalent curl command; the token is passed through a pipe, hidden from other users."""
        token = shlex.quote(str(self.data / "operator.token"))
        more = "" if body is None else f" --data {shlex.quote(json.dumps(body))}"
        url = shlex.quote(f"{self.url}{path}")
        header = "sed 's/^/Authorization: Bearer /'"
        return f"{header} {token} | curl -sS --fail-with-body -X {method} -H @-{more} {url}"

    @contextlib.contextmanager
    def _send_request(
        self, method: str, path: str, body: object, query: dict[str, object], patience_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request and yield the response once it starts. Network errors raise `ServerNotRunningError`.

        Raise `NoAnswerInTimeError` if the server is up but does not respond.
        """
        connection = self._connection(patience_s)
        try:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            content = None if body is None else json.dumps(body)
            with _answer(connection, method, _path(path, query), content, headers) as response:
                yield response
        except TimeoutError as error:
            raise self._slow(f"{patience_s:g}") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._away(reason_of(error) if isinstance(error, OSError) else str(error)) from error
        finally:
            connection.close()

    def _connection(self, patience_s: float) -> http.client.HTTPConnection:
        """Return a connection to the server. Raise `ServerNotRunningError`."""
        connection: http.client.HTTPConnection = UnixSocketConnection(self.data, patience_s)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            # Any user may take the port of a server that has ended or is ending: its Unix socket belongs to its owner
            # alone.
            if not ((self.data / PORT_ALONE).exists() and is_served(self.data)):
                raise not_running(self.data, reason_of(error)) from error
            parts = urlsplit(self.url)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=patience_s)
        return connection

    def _away(self, reason: str) -> errors.BirthmarkError:
        return not_running(self.data, reason)

    def _slow(self, seconds: str) -> errors.BirthmarkError:
        return NoAnswerInTimeError(data=self.data, named=shlex.quote(str(self.data)), seconds=seconds)


@dataclass(frozen=True, slots=True)
class RemoteClient(OperatorClient):
    """Client of the operator API of a remote server, with the access token of the saved login."""

    roots: str = field(repr=False)

    @classmethod
    def signed_in(cls, login: Login) -> "RemoteClient":
        """Return the client of a saved login."""
        return cls(place(), login.url, login.token, login.roots)

    def _connection(self, patience_s: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        context = ssl.create_default_context(cadata=self.roots)
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=patience_s, context=context)

    def _away(self, reason: str) -> errors.BirthmarkError:
        return RemoteAwayError(url=self.url, reason=reason)

    def _slow(self, seconds: str) -> errors.BirthmarkError:
        return RemoteAwayError(url=self.url, reason=f"no response within {seconds} s")

    def _by_curl(self, method: str, path: str, body: object) -> str:
        more = "" if body is None else f" --data {shlex.quote(json.dumps(body))}"
        return f"curl -sS -X {method} -H @header{more} {shlex.quote(f'{self.url}{path}')}"


def _answer(
    connection: http.client.HTTPConnection, method: str, path: str, body: str | None, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    """Send a request and return the response, even if the server closes before it has read an oversized body."""
    try:
        connection.request(method, path, body, headers)
    except (BrokenPipeError, ConnectionResetError) as error:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return connection.getresponse()
        raise error from None
    return connection.getresponse()


def _path(path: str, query: dict[str, object]) -> str:
    given = {name: str(value) for name, value in query.items() if value is not None}
    text = "&".join(f"{quote(name)}={quote(value, safe='')}" for name, value in given.items())
    return f"/operator/v1{path}" + (f"?{text}" if text else "")


def _json(content: bytes) -> Any:
    """Return the parsed JSON; None if the response is not from the operator API, as for an unknown path."""
    try:
        return json.loads(content) if content else None
    except ValueError:
        return None


def _too_large(limit: str) -> errors.InvalidRequestError:
    """Return the error `http.body_too_large`; the server sends it as plain text before routing."""
    error = errors.InvalidRequestError()
    cause = f"The body exceeds {limit} bytes, the limit of this path."
    fix = "Send less at once; docs/reference/limits.md has the size for each path."
    message = f"The request body is larger than {limit} bytes."
    error.quote(code="http.body_too_large", message=message, cause=cause, fix=fix)
    return error


def _refused(status: int, answer: Any, data: Path) -> errors.BirthmarkError:
    told = answer if isinstance(answer, dict) else {}
    error = _KINDS.get(status, errors.UnavailableError)()
    error.add_facts(data=data)
    words = {"message": told.get("title", f"HTTP status {status}"), "cause": told.get("detail")} | told
    error.quote(**{name: str(words[name]) for name in ("code", "message", "cause", "fix") if words.get(name)})
    return error
