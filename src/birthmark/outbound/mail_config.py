"""Email configuration: server and protocol, without the sender itself."""

import re
from enum import StrEnum
from typing import Protocol

from birthmark.errors import InvalidRequestError

BEGIN = "mailto:"
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_MAX_ADDRESS = 254


class Tls(StrEnum):
    """TLS mode of a mail server."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


class MailNotConfiguredError(InvalidRequestError):
    """No mail server is configured."""

    code = "outbound.mail_not_configured"
    cause = "The operation sends mail, but the configuration contains no mail server."
    fix = (
        'In the [mail] table of the configuration, set a mail server, such as host = "smtp.example.com", and a '
        "sender. Then restart the server."
    )
    for_a_person = "only an administrator knows the mail server"


class MailAddressError(InvalidRequestError):
    """The mail address is not valid."""

    code = "outbound.mail_address_invalid"
    cause = "A mailto: URL must contain one address, such as ops@plant.example, in ASCII and without a display name."
    fix = "Use a valid address: `birthmark webhook create ops mailto:ops@plant.example --type 'birthmark.alert.*'`"


class MailSender(Protocol):
    """Sends email with `birthmark.outbound.smtp_client`, which is loaded only if a mail server is configured."""

    async def send(self, to: str, subject: str, text: str, message_id: str) -> None:
        """Send one email. Raise `NotAnsweredError`, `RefusedByReceiverError` or `AddressRefusedError`."""
        ...


def address_of(url: str) -> str:
    """Return the address of a `mailto:`. Raise `MailAddressError`."""
    address = url.removeprefix(BEGIN)
    if len(address) > _MAX_ADDRESS or not _ADDRESS.fullmatch(address):
        raise MailAddressError
    return address
