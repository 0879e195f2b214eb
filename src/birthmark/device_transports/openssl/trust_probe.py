"""Immediate check of a server's certificate, for TLS libraries that report distrust only after a delay."""

import ssl
from functools import partial

from birthmark.device_transports.errors import ServerUntrustedError
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.device_transports.openssl.deadlines import ConnectionAbort, run_with_deadline
from birthmark.device_transports.openssl.tls_context import client_context, translate_error
from birthmark.errors import BirthmarkError

PROBE_AFTER_S = 1.0
_PROBE_S = 5.0


async def find_trust_error(host: str, port: int, trust: ServerTrust) -> BirthmarkError | None:
    """Return the error if this server is not trusted; None if it is, or if that cannot be determined."""
    try:
        return await run_with_deadline(2 * _PROBE_S, partial(_distrust_of, host, port, trust))
    except TimeoutError:
        return None


def _distrust_of(host: str, port: int, trust: ServerTrust, cut: ConnectionAbort) -> BirthmarkError | None:
    try:
        with cut.connect((host, port), _PROBE_S) as sock:
            client_context(None, trust).wrap_socket(sock, server_hostname=host).close()
    except ssl.SSLCertVerificationError as problem:
        return translate_error(problem, host, port)
    except ServerUntrustedError as error:  # the CA file itself
        return error
    except OSError:
        return None
    return None
