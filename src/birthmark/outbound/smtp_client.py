"""Email over SMTP (RFC 5321, RFC 8314), only to the configured server.

A delivery blocks no thread and ends within `PATIENCE_S`, even if the server is slow.
"""

import asyncio
import contextlib
import socket
import ssl
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from pathlib import Path

import aiosmtplib

from birthmark.outbound.http_client import (
    NotAnsweredError,
    RefusedByReceiverError,
    callable_addresses,
)
from birthmark.outbound.mail_config import Tls
from birthmark.outbound.ssrf_guard import CONNECT_S, PATIENCE_S, Network
from birthmark.text_file_encodings import format_conversion_fix, read_text_file
from birthmark.untrusted_json_and_text import printable, reason_of

_PERMANENT = 500
_OF_LOGIN = (530, 534, 535, 538)
"""Codes by which a server requires a login or rejects it (RFC 4954, 6)."""
_TURNS = 3  # TLS, its transport, and the socket
_GOODBYE_S = 2.0
_MAX_SAID = 200
_POLICY = SMTP.clone(max_line_length=998, cte_type="7bit")
"""Mail policy with the maximum line length of RFC 5322, 2.1.1.

Otherwise the library folds a long subject directly after the header's name.
"""


class MailLoginError(NotAnsweredError):
    """The mail server rejected the login; a later attempt or another password can succeed."""

    code = "outbound.mail_login"
    cause = "The mail server {host} rejected the login of {user}: {reason}."
    fix = (
        "Write the correct password to the file set in mail.password_file. The server reads the file for each mail "
        "and retries."
    )
    for_a_person = "only an administrator knows the password"
    user: str


@dataclass(frozen=True, slots=True)
class Mailer:
    """Mail server and sender. `context` determines TLS trust, `allowed` the permitted internal addresses."""

    host: str
    port: int
    tls: Tls
    sender: str
    user: str = ""
    password_file: Path | None = None
    """Password file, read for each email so that a change takes effect at once."""
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context, repr=False)
    allowed: Sequence[Network] = ()

    async def send(self, to: str, subject: str, text: str, message_id: str) -> None:
        """Send one email.

        Raise `RefusedByReceiverError` for a permanent rejection, final for an address that receives none. Raise
        `NotAnsweredError` for a temporary rejection, and `MailLoginError` until the password is correct. Raise
        `AddressRefusedError` if the server has an internal address that is not permitted.
        """
        message = self._message(to, subject, text, message_id)
        try:
            async with asyncio.timeout(PATIENCE_S):
                client = await self._deliver_message(to, message, await self._password())
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise self._not_for(error.recipients[0]) from error
        except aiosmtplib.SMTPResponseException as error:
            raise self._problem(error) from error
        except (aiosmtplib.SMTPException, ssl.SSLError) as error:
            cause = error.__cause__ if isinstance(error, aiosmtplib.SMTPConnectError) else None
            raise NotAnsweredError(host=self.host, reason=printable(str(cause or error))[:_MAX_SAID]) from error
        except TimeoutError as error:
            raise NotAnsweredError(host=self.host, reason=f"it was not done in {PATIENCE_S:g} s") from error
        except OSError as error:
            raise NotAnsweredError(host=self.host, reason=reason_of(error)) from error
        way = client.transport  # a confirmed QUIT begins to close it, and TLS may take long for that
        with contextlib.suppress(aiosmtplib.SMTPException, OSError):  # the mail is sent, reply or not
            await client.quit(timeout=_GOODBYE_S)
        await _ended(client, way)

    def _message(self, to: str, subject: str, text: str, message_id: str) -> bytes:
        message = EmailMessage(policy=_POLICY)
        message["From"], message["To"], message["Subject"] = self.sender, to, subject
        message["Message-ID"] = f"<{message_id}@{self._address.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic replies
        message.set_content(text)
        return message.as_bytes()

    @property
    def _address(self) -> str:
        return parseaddr(self.sender)[1]

    @property
    def _logs_in(self) -> bool:
        return bool(self.user) and self.tls is not Tls.NONE  # no password on unencrypted connections

    async def _password(self) -> str:
        if self.password_file is None or not self._logs_in:
            return ""
        try:
            found = (await asyncio.to_thread(read_text_file, self.password_file)).strip()
        except (OSError, UnicodeDecodeError) as error:
            is_away = isinstance(error, OSError)
            reason = f"its password cannot be read from {self.password_file}: "
            reason += reason_of(error) if is_away else "it is not UTF-8"
            refusal = MailLoginError(host=self.host, user=self.user, reason=reason)
            if not is_away:
                advice = format_conversion_fix(self.password_file, self.password_file.read_bytes(), is_secret=True)
                refusal.quote(fix=f"{advice}. The file's path is the setting mail.password_file.")
            raise refusal from error
        if not found or not found.isprintable():
            what = "holds more than one line, or a control character" if found else "is empty"
            reason = f"{self.password_file} {what}"
            raise MailLoginError(host=self.host, user=self.user, reason=reason)
        return found

    async def _deliver_message(self, to: str, message: bytes, password: str) -> aiosmtplib.SMTP:
        """Send a message and return the connection over which the server accepted it."""
        client = await self._connected()
        try:
            await client.connect()
            if self._logs_in:
                await self._log_in(client, password)
            await client.sendmail(self._address, [to], message)
        except BaseException:
            await _ended(client, client.transport)
            raise
        return client

    async def _connected(self) -> aiosmtplib.SMTP:
        """Return a client connected to a checked address of the host."""
        problem = OSError(0, "it has no address")
        for address in await callable_addresses(self.host, self.port, self.allowed):
            way = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            way.settimeout(0)
            try:
                async with asyncio.timeout(CONNECT_S):
                    await asyncio.get_running_loop().sock_connect(way, (address, self.port))
            except TimeoutError:
                way.close()
                problem = OSError(0, f"no connection in {CONNECT_S:g} s")
                continue
            except OSError as error:
                way.close()
                problem = error
                continue
            except BaseException:
                way.close()
                raise
            return aiosmtplib.SMTP(
                hostname=self.host,
                sock=way,
                local_hostname=_own_name(way),
                timeout=PATIENCE_S,
                use_tls=self.tls is Tls.TLS,
                start_tls=self.tls is Tls.STARTTLS,
                tls_context=self.context,
            )
        raise problem

    async def _log_in(self, client: aiosmtplib.SMTP, password: str) -> None:
        try:
            await client.login(self.user, password)
        except (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError):
            raise
        except aiosmtplib.SMTPResponseException as error:
            if error.code < _PERMANENT:
                raise
            said = _redact_password(error.message, self.user, password)
            raise MailLoginError(host=self.host, user=self.user, reason=_said(error.code, said)) from None
        except aiosmtplib.SMTPException as error:  # no supported login method
            raise MailLoginError(host=self.host, user=self.user, reason=str(error)) from None

    def _not_for(self, error: aiosmtplib.SMTPRecipientRefused) -> NotAnsweredError:
        if error.code in _OF_LOGIN or error.code < _PERMANENT:
            return self._problem(error)
        reason = f"it rejects the recipient {error.recipient}: {_said(error.code, error.message)}"
        return RefusedByReceiverError(host=self.host, reason=reason, is_final=True)

    def _problem(self, error: aiosmtplib.SMTPResponseException) -> NotAnsweredError:
        """Return the error for a response.

        A rejection of the message is permanent; one of the connection may be temporary.
        """
        reason = _said(error.code, error.message)
        if error.code in _OF_LOGIN:
            return MailLoginError(host=self.host, user=self.user or "nobody", reason=reason)
        is_final = error.code >= _PERMANENT and isinstance(error, aiosmtplib.SMTPDataError)
        return (RefusedByReceiverError if is_final else NotAnsweredError)(host=self.host, reason=reason)


def _said(code: int, text: str) -> str:
    return printable(f"{code} {text}".strip())[:_MAX_SAID]


def _redact_password(text: str, user: str, password: str) -> str:
    """Return a server's login response, or nothing if it contains the password."""
    plain = [password.encode(), f"\0{user}\0{password}".encode()]
    secrets = (password, *(b64encode(one).decode() for one in plain))
    return "" if any(one and one in text for one in secrets) else text


def _own_name(way: socket.socket) -> str:
    """Return this machine's name for EHLO: its host name or its address (RFC 5321, 4.1.4)."""
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name
    address = str(way.getsockname()[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


async def _ended(client: aiosmtplib.SMTP, transport: asyncio.BaseTransport | None) -> None:
    """Close a connection, and wait until its socket is closed, which takes a few turns of the event loop."""
    if (abort := getattr(transport, "abort", None)) is not None:
        abort()  # no close handshake, which the peer may delay
    client.close()
    for _ in range(_TURNS):
        await asyncio.sleep(0)
