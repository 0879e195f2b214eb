"""Sends a mail by SMTP (RFC 5321, RFC 8314): to the server that the configuration names, and to no other."""

import asyncio
import contextlib
import re
import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from enum import StrEnum

from birthmark.errors import InvalidRequestError
from birthmark.outbound.sender import PATIENCE_S, NotAnsweredError, RefusedByReceiverError
from birthmark.text import reason_of

BEGIN = "mailto:"
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_MAX_ADDRESS = 254
_PERMANENT = 500
_POLICY = SMTP.clone(max_line_length=998)
"""RFC 5322, 2.1.1: no subject of ours is folded, which the library does behind its very name."""


class Tls(StrEnum):
    """How a mail server is spoken to."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


class MailNotConfiguredError(InvalidRequestError):
    """This server knows no mail server."""

    code = "outbound.mail_not_configured"
    cause = "Mail was asked for, and the configuration names no server that takes it."
    fix = 'Name one in the configuration and start the server again: [mail] host = "smtp.example.com" and a sender.'
    for_a_person = "only a person knows the mail server"


class MailAddressError(InvalidRequestError):
    """Nobody gets mail there."""

    code = "outbound.mail_address_invalid"
    cause = "What follows mailto: is one address, such as ops@plant.example, in ASCII and without a name."
    fix = "Give the address: `birthmark webhook create ops mailto:ops@plant.example --type 'birthmark.alert.*'`"


def address_of(url: str) -> str:
    """Return the address of a `mailto:`. Raise `MailAddressError`."""
    address = url.removeprefix(BEGIN)
    if len(address) > _MAX_ADDRESS or not _ADDRESS.fullmatch(address):
        raise MailAddressError
    return address


@dataclass(frozen=True, slots=True)
class Mailer:
    """A mail server, and in whose name it is asked. `context` says whom TLS believes."""

    host: str
    port: int
    tls: Tls
    sender: str
    user: str = ""
    password: str = field(default="", repr=False)
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context, repr=False)

    async def send(self, to: str, subject: str, text: str, message_id: str) -> None:
        """Send one. Raise `RefusedByReceiverError` for what is never taken, `NotAnsweredError` for what may be."""
        message = EmailMessage(policy=_POLICY)
        message["From"], message["To"], message["Subject"] = self.sender, to, subject
        message["Message-ID"] = f"<{message_id}@{self.sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence answers
        message.set_content(text)
        try:
            await asyncio.to_thread(self._sent, message)
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()))
            raise self._problem(code, said) from error
        except smtplib.SMTPResponseException as error:
            raise self._problem(error.smtp_code, error.smtp_error) from error
        except (smtplib.SMTPException, ssl.SSLError) as error:
            raise NotAnsweredError(host=self.host, reason=str(error) or type(error).__name__) from error
        except OSError as error:
            raise NotAnsweredError(host=self.host, reason=reason_of(error)) from error

    def _problem(self, code: int, said: bytes | str) -> NotAnsweredError:
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
        kind = RefusedByReceiverError if code >= _PERMANENT else NotAnsweredError
        return kind(host=self.host, reason=f"{code} {text[:200]}")

    def _sent(self, message: EmailMessage) -> None:
        if self.tls is Tls.TLS:
            server: smtplib.SMTP = smtplib.SMTP_SSL(self.host, self.port, timeout=PATIENCE_S, context=self.context)
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=PATIENCE_S)
        try:
            if self.tls is Tls.STARTTLS:
                server.starttls(context=self.context)
            if self.user and self.tls is not Tls.NONE:  # a password goes to nobody who reads along
                server.login(self.user, self.password)
            server.send_message(message)
            with contextlib.suppress(smtplib.SMTPException, OSError):  # it has the mail, whatever it says now
                server.quit()
        finally:
            server.close()
