"""Initial trust in an unknown server: no blind trust on first use.

Its roots are in a given file, the SHA-256 of one is known, or the system trusts it. The server then returns all of its
roots over the verified connection, and these identify it from then on.
"""

import hashlib
import http.client
import ssl
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from birthmark.errors import PolicyError, UnavailableError
from birthmark.operator_api.client.vendor_tool_environment import system_roots
from birthmark.untrusted_json_and_text import decode_json, reason_of

_TIMEOUT_S = 30
_MAX_BYTES = 256 * 1024


class ServerUnknownError(PolicyError):
    """The server's identity could not be verified."""

    code = "login.server_unknown"
    cause = "Sign-in to {url} was stopped: {reason}."
    fix = (
        "To get the thumbprint, run this command in the data directory on the server's machine: `openssl x509 -in "
        "trust.pem -outform DER | sha256sum`. Then sign in with the thumbprint: `birthmark login {url} --thumbprint "
        "SHA256`"
    )
    for_a_person = "a user with read access to the server's data directory must get the thumbprint"
    reason: str
    url: str


class ServerAwayError(UnavailableError):
    """The server does not respond as a Birthmark server."""

    code = "login.server_away"
    cause = "{url} does not respond as a Birthmark server: {reason}."
    fix = "Check the connection: `curl -sS -k {url}/operator/v1/server/roots`"
    for_a_person = "the server is on another machine"
    reason: str
    url: str


def roots_of(url: str, roots: str | None, thumbprint: str | None) -> str:
    """Return the roots of the server at this URL, as PEM. Raise `ServerUnknownError`, `ServerAwayError`."""
    if thumbprint is not None:
        roots = _root_of(url, thumbprint)
    told = _asked(url, ssl.create_default_context(cadata=roots))
    try:
        _asked(url, ssl.create_default_context(cadata=told))
    except (
        ServerUnknownError,
        ssl.SSLError,
    ):  # it has a certificate of an unlisted CA
        return told + (system_roots().decode("ascii", "ignore") if roots is None else roots)
    return told


def _root_of(url: str, thumbprint: str) -> str:
    """Return the server's root with this SHA-256; the hash verifies a response from an unverified connection."""
    wanted = "".join(one for one in thumbprint.lower().rpartition("=")[2] if one.isascii() and one not in ": ")
    unsure = ssl.create_default_context()
    unsure.check_hostname, unsure.verify_mode = False, ssl.CERT_NONE
    try:
        found = x509.load_pem_x509_certificates(_asked(url, unsure).encode())
    except ValueError as error:
        raise ServerAwayError(url=url, reason="it returned invalid root certificates") from error
    for one in found:
        if hashlib.sha256(one.public_bytes(Encoding.DER)).hexdigest() == wanted:
            return one.public_bytes(Encoding.PEM).decode()
    raise ServerUnknownError(url=url, reason="none of its roots has that thumbprint, so it may be another server")


def _asked(url: str, context: ssl.SSLContext) -> str:
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S, context=context)
    try:
        connection.request("GET", "/operator/v1/server/roots")
        with connection.getresponse() as response:
            body: Any = decode_json(response.read(_MAX_BYTES)) if response.status == http.client.OK else None
        told = body["roots"] if isinstance(body, dict) else None
        if not isinstance(told, str) or not told.isascii() or "BEGIN CERTIFICATE" not in told:
            raise ServerAwayError(url=url, reason=f"HTTP status {response.status} without root certificates")
    except ssl.SSLCertVerificationError as error:
        reason = f"its certificate is not known ({error.verify_message})"
        raise ServerUnknownError(url=url, reason=reason) from error
    except OSError as error:
        raise ServerAwayError(url=url, reason=reason_of(error)) from error
    except (http.client.HTTPException, ValueError) as error:
        raise ServerAwayError(url=url, reason="its response has an unexpected form") from error
    finally:
        connection.close()
    return told
