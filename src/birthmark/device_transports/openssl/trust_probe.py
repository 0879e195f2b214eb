"""Ask at once whether a server's certificate is trusted, where the library in use takes its time to say so."""

import ssl
from functools import partial

from birthmark.device_transports.errors import ServerUntrustedError
from birthmark.device_transports.identity import ServerTrust
from birthmark.device_transports.openssl.deadlines import ConnectionAbort, bounded
from birthmark.device_transports.openssl.tls import client_context, explained
from birthmark.errors import BirthmarkError

PROBE_AFTER_S = 1.0
_PROBE_S = 5.0


async def distrust_of(host: str, port: int, trust: ServerTrust) -> BirthmarkError | None:
    """Return why this server would not be trusted; None when it is, or when that cannot be told."""
    try:
        return await bounded(2 * _PROBE_S, partial(_distrust_of, host, port, trust))
    except TimeoutError:
        return None


def _distrust_of(host: str, port: int, trust: ServerTrust, cut: ConnectionAbort) -> BirthmarkError | None:
    try:
        with cut.connect((host, port), _PROBE_S) as sock:
            client_context(None, trust).wrap_socket(sock, server_hostname=host).close()
    except ssl.SSLCertVerificationError as problem:
        return explained(problem, host, port)
    except ServerUntrustedError as error:  # the CA file itself
        return error
    except OSError:
        return None
    return None
