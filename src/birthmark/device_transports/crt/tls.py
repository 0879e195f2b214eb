"""awscrt's TLS context for a key in a token, and its errors as `BirthmarkError`s."""

import asyncio
import contextlib
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from awscrt import http, io
from awscrt.common import join_all_native_threads
from awscrt.exceptions import AwsCrtError

from birthmark.device_transports.errors import (
    ClientCertificateRefusedError,
    HostUnknownError,
    LinkLostError,
    LinkUnreachableError,
    ServerNameMismatchError,
    ServerUntrustedError,
    TlsFailedError,
)
from birthmark.device_transports.identity_and_trust import ServerTrust, TokenIdentity
from birthmark.device_transports.openssl.deadlines import open_connection
from birthmark.device_transports.openssl.trust_probe import PROBE_AFTER_S, find_trust_error
from birthmark.device_transports.proxy import proxy_of
from birthmark.errors import BirthmarkError
from birthmark.keys.errors import KeyNotFoundError, PinLockedError, PinWrongError, TokenFailedError
from birthmark.keys.pkcs11_library_lifecycle import add_stop_callback, generation

# s2n reports a failed handshake only after 10 to 30 seconds, to prevent timing attacks.
CRT_TIMEOUT_S = 45.0
_ANY_PIN = "0000"  # for tokens without a PIN: the library rejects an empty one

_LEAVING_S = 1.0
_PROXY_S = 10.0
_CODED = re.compile(r"(\d+) \((AWS_ERROR_\w+)\): (.*)", re.DOTALL)

_libraries: dict[Path, tuple[int, io.Pkcs11Lib]] = {}
_live: "weakref.WeakValueDictionary[int, io.ClientTlsContext]" = weakref.WeakValueDictionary()
_outlived: list[io.ClientTlsContext] = []
"""Contexts that are never freed.

A context closes its session by number when it is freed, and a restarted library may have assigned that number to
another session.
"""


def client_context(identity: TokenIdentity, trust: ServerTrust) -> io.ClientTlsContext:
    """Return a TLS context that verifies the server and signs in the token."""
    token = identity.key.token
    pin = _ANY_PIN if identity.pin is None else identity.pin.reveal()
    roots = trust.roots
    try:
        options = io.TlsContextOptions.create_client_with_mtls_pkcs11(
            pkcs11_lib=_library(token.module),
            user_pin=pin,
            slot_id=token.info.slot_id,
            private_key_label=identity.key.label,
            cert_file_contents="".join(one.pem() for one in identity.chain),
        )
        if roots is not None:
            options.override_default_trust_store(roots.encode())
        context = io.ClientTlsContext(options)
    except AwsCrtError as error:
        raise translate_error(error, "the token", 0, identity) from error
    except RuntimeError as error:  # some awscrt calls have the code only in the text
        if (found := _CODED.match(str(error))) is None:
            raise
        raise translate_error(AwsCrtError(int(found[1]), found[2], found[3]), "the token", 0, identity) from error
    _live[id(context)] = context
    return context


def crt_proxy(host: str, port: int) -> http.HttpProxyOptions | None:
    """Return the proxy for a server in awscrt's form. Raise `ProxyFailedError`."""
    proxy = proxy_of(host, port)
    if proxy is None:
        return None
    kind = http.HttpProxyAuthenticationType
    return http.HttpProxyOptions(
        proxy.host,
        proxy.port,
        auth_type=kind.Nothing if proxy.user is None else kind.Basic,
        auth_username=proxy.user,
        auth_password=None if proxy.user is None else proxy.password,
        connection_type=http.HttpProxyConnectionType.Tunneling,
    )


async def check_proxy(host: str, port: int) -> None:
    """Raise the reason why the proxy opens no tunnel, which awscrt does not report; otherwise return."""
    if proxy_of(host, port) is not None:
        with contextlib.suppress(OSError):
            (await open_connection(_PROXY_S, host, port)).close()


def _library(module: Path) -> io.Pkcs11Lib:
    """Return the library that `keys` started, loaded once for its lifetime."""
    known = _libraries.get(module)
    if known is None or known[0] != generation():
        known = _libraries[module] = (generation(), io.Pkcs11Lib(file=str(module)))
    return known[1]


def _shut_down_threads() -> bool:
    """End awscrt's threads, which close their token sessions, and return whether they have ended.

    Sessions of a live connection stay open until the library ends and are never closed.
    """
    _libraries.clear()
    io.ClientBootstrap.release_static_default()
    io.DefaultHostResolver.release_static_default()
    io.EventLoopGroup.release_static_default()
    are_gone = bool(join_all_native_threads(timeout_sec=_LEAVING_S))
    # In one step, because other threads create contexts concurrently.
    _outlived.extend(one for found in _live.valuerefs() if (one := found()) is not None and one not in _outlived)
    return are_gone


add_stop_callback(_shut_down_threads)


def wrap_future(future: "Future[Any]") -> "asyncio.Future[Any]":
    """Return a future of this loop with awscrt's result.

    Canceling it does not cancel awscrt's future, which must not be canceled.
    """
    loop = asyncio.get_running_loop()
    mine: asyncio.Future[Any] = loop.create_future()

    # Pass awscrt's future as an argument: a future that its own callbacks hold is freed late, and with it the token's
    # session, whose number a later session may have by then.
    def take(theirs: "Future[Any]") -> None:
        if mine.done():
            return
        if (problem := theirs.exception()) is not None:
            mine.set_exception(problem)
        else:
            mine.set_result(theirs.result())

    def done(theirs: "Future[Any]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its listeners with it
            loop.call_soon_threadsafe(take, theirs)

    future.add_done_callback(done)
    return mine


async def check_trust(connecting: "asyncio.Future[Any]", host: str, port: int, trust: ServerTrust) -> None:
    """Raise at once for an untrusted server, which s2n reports only after a delay; otherwise return at once."""
    await asyncio.wait({connecting}, timeout=PROBE_AFTER_S)
    if not connecting.done() and (distrust := await find_trust_error(host, port, trust)) is not None:
        connecting.cancel()
        raise distrust


_KEY_GONE = "AWS_ERROR_PKCS11_KEY_NOT_FOUND"
_PINS: Mapping[str, type[PinWrongError | PinLockedError]] = {
    "AWS_ERROR_PKCS11_CKR_PIN_INCORRECT": PinWrongError,
    "AWS_ERROR_PKCS11_CKR_ARGUMENTS_BAD": PinWrongError,
    "AWS_ERROR_PKCS11_CKR_PIN_LOCKED": PinLockedError,
}
# The first entry whose word is part of the error name wins.
_MEANINGS: Sequence[tuple[str, type[BirthmarkError]]] = (
    ("_DNS_", HostUnknownError),
    ("ALERT", ClientCertificateRefusedError),
    ("UNTRUSTED", ServerUntrustedError),
    ("ROOT_CERTIFICATE", ServerUntrustedError),
    ("HOST_NAME_MISMATCH", ServerNameMismatchError),
    ("TLS", TlsFailedError),
    ("MQTT", LinkLostError),
    ("HTTP", LinkLostError),
    ("CLOSED", LinkLostError),
    ("", LinkUnreachableError),
)


def translate_error(problem: AwsCrtError, host: str, port: int, identity: TokenIdentity) -> BirthmarkError:
    """Return the error for an awscrt failure, by its error name, which is more specific than its text."""
    name = str(problem.name or "")
    token = identity.key.token.info.label
    if name in _PINS:
        return _PINS[name](token=token)
    if name == _KEY_GONE:
        return KeyNotFoundError(token=token, wanted=f"label '{identity.key.label}'", found="no key with this name")
    if "PKCS11" in name:
        return TokenFailedError(detail=name.removeprefix("AWS_ERROR_"))
    kind: Callable[..., BirthmarkError] = next(kind for word, kind in _MEANINGS if word in name)
    return kind(host=host, port=port, reason=problem.message or name)
