"""Certificate validity at a time other than the machine's clock.

OpenSSL verifies chain, name and trust as usual, without the dates. This module checks the dates of every certificate in
the chain that OpenSSL found, at the given time. The standard library returns that chain from Python 3.13 on. Earlier
versions have only an undocumented call, which this module encapsulates.
"""

from typing import Any

from birthmark.device_transports.errors import ServerUntrustedError
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.pki.certificates import Certificate, parse_der

_DER = 2


def verified_chain(connection: Any) -> list[Certificate]:
    """Return the verified chain, including leaf and anchor; `connection` is a TLS socket or object."""
    found: list[Any]
    if hasattr(connection, "get_verified_chain"):
        found = connection.get_verified_chain()
    else:
        found = [one.public_bytes(_DER) for one in connection._sslobj.get_verified_chain()]  # noqa: SLF001 (see above)
    return [parse_der(bytes(one)) for one in found]


def check_dates(connection: Any, trust: ServerTrust, host: str, port: int) -> None:
    """Check the dates of a server's chain when the clock is not used. Raise `ServerUntrustedError`."""
    if trust.at is None:
        return
    for one in verified_chain(connection):
        if not one.not_before <= trust.at <= one.not_after:
            valid = f"{one.not_before:%Y-%m-%d %H:%M} to {one.not_after:%Y-%m-%d %H:%M} UTC"
            reason = (
                f"'{one.subject_text}' is valid from {valid}, and the time used for the check is "
                f"{trust.at:%Y-%m-%d %H:%M}"
            )
            error = ServerUntrustedError(host=host, port=port, reason=reason)
            vars(error)["is_about_time"] = True
            raise error
