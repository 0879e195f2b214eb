"""Ask at once whether a server's certificate is trusted, where the library in use takes its time to say so."""

import socket
import ssl

from birthmark.errors import BirthmarkError
from birthmark.links.errors import ServerUntrustedError
from birthmark.links.identity import Trust
from birthmark.links.openssl.tls import client_context, explained

PROBE_AFTER_S = 1.0
_PROBE_S = 5.0


def distrust_of(host: str, port: int, trust: Trust) -> BirthmarkError | None:
    """Return why this server would not be trusted; None when it is, or when that cannot be told."""
    try:
        with socket.create_connection((host, port), _PROBE_S) as sock:
            client_context(None, trust).wrap_socket(sock, server_hostname=host).close()
    except ssl.SSLCertVerificationError as problem:
        return explained(problem, host, port)
    except ServerUntrustedError as error:  # the CA file itself
        return error
    except OSError:
        return None
    return None
