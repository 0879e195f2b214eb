"""Temporary credentials of devices: the session token contains all data, so every worker can verify it.

    session token   base64url(JSON) "." base64url(HMAC-SHA256 of that)
    secret          base64(HMAC-SHA256 of the token), its first 40 characters

Both are derived from a secret of the account, which never leaves it. Credentials end at their expiry, with their
certificate, and with their role alias; verification must check all three.
"""

import base64
import binascii
import hmac
from datetime import datetime

import msgspec

from birthmark.errors import UnauthenticatedError
from birthmark.untrusted_json_and_text import decode_json

KEY_PREFIX = "ASIA"
MIN_DURATION_S, MAX_DURATION_S, DURATION_S = 900, 43_200, 3600
_SECRET_CHARS = 40
_MAX_TOKEN_CHARS = 4096


class SessionTokenError(UnauthenticatedError):
    """The security token included in the request is invalid."""

    code = "awsiot.session_token_invalid"
    cause = "The temporary access key {access_key_id} was presented {how}."
    fix = (
        "Configure the client with accessKeyId, secretAccessKey, and sessionToken. To configure an administrator's "
        'client: `eval "$(birthmark env)"`'
    )
    access_key_id: str
    how: str


class SessionEndedError(UnauthenticatedError):
    """The security token included in the request is expired."""

    code = "awsiot.session_ended"
    cause = "The temporary access key {access_key_id} of the role alias {alias} has expired: {why}."
    fix = "Have the device request new credentials. List role aliases: `aws iot list-role-aliases`"
    access_key_id: str
    alias: str
    why: str


class CredentialSession(msgspec.Struct, frozen=True, rename="camel"):
    """Session of a device's credentials: role, role alias, certificate, and expiry."""

    key_id: str
    alias: str
    alias_id: str
    role_arn: str
    certificate_id: str
    expires_at: int
    """Expiry time in seconds since 1970."""
    thing: str = ""
    thing_type: str = ""

    @property
    def principal(self) -> str:
        """Principal of its messages and sessions."""
        return f"role/{self.alias}/{self.certificate_id}"

    def check_time(self, now: datetime) -> None:
        """Raise `SessionEndedError` if it has expired."""
        if now.timestamp() >= self.expires_at:
            raise SessionEndedError(access_key_id=self.key_id, alias=self.alias, why="its lifetime ended")


def token_of(master: bytes, session: CredentialSession) -> str:
    """Return the session token of temporary credentials."""
    told = _text(msgspec.json.encode(session))
    return f"{told}.{_text(_mac(master, b'token', told))}"


def secret_of(master: bytes, token: str) -> str:
    """Return the secret access key of a session token."""
    return base64.b64encode(_mac(master, b"secret", token)).decode()[:_SECRET_CHARS]


def session_of(master: bytes, key_id: str, token: str | None) -> CredentialSession:
    """Return the session of a token issued here for this key. Raise `SessionTokenError`."""
    if not token:
        raise SessionTokenError(access_key_id=key_id, how="without its session token")
    told, _, mac = token.partition(".")
    wrong = SessionTokenError(access_key_id=key_id, how="with another key's session token")
    try:
        if len(token) > _MAX_TOKEN_CHARS or not hmac.compare_digest(_bytes(mac), _mac(master, b"token", told)):
            raise wrong
        session = decode_json(_bytes(told), CredentialSession)
    except (binascii.Error, msgspec.MsgspecError, UnicodeError, ValueError) as error:
        raise wrong from error
    if session.key_id != key_id:
        raise wrong
    return session


def _mac(master: bytes, what: bytes, text: str) -> bytes:
    return hmac.digest(master, what + b"\0" + text.encode(), "sha256")


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
