"""TLS context of a file identity, and OpenSSL's errors as `BirthmarkError`s."""

import contextlib
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from birthmark.device_transports.errors import (
    ClientCertificateRefusedError,
    HostUnknownError,
    LinkUnreachableError,
    ServerNameMismatchError,
    ServerUntrustedError,
    TempFileError,
    TlsFailedError,
)
from birthmark.device_transports.identity_and_trust import FileIdentity, ServerTrust
from birthmark.device_transports.urls import TIMEOUT_S
from birthmark.errors import BirthmarkError
from birthmark.keys.errors import KeyFileInvalidError
from birthmark.keys.file_key import pem_of_key
from birthmark.text_file_encodings import unseen_in_pem
from birthmark.untrusted_json_and_text import reason_of

_NAME_MISMATCH = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_WRONG_TIME = frozenset({9, 10})  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, missing in the standard library


def client_context(identity: FileIdentity | None, trust: ServerTrust) -> ssl.SSLContext:
    """Return a TLS context that verifies the server and presents the identity, if any."""
    try:
        context = ssl.create_default_context(cadata=trust.roots)
    except ssl.SSLError as error:
        raise ServerUntrustedError(
            host="any server", port="any", reason="the CA file contains no certificate"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if trust.at is not None:  # `validity` checks the dates
        context.verify_flags = ssl.VerifyFlags(int(context.verify_flags) | NO_CHECK_TIME)
    if identity is None:
        return context
    passphrase = None if identity.passphrase is None else identity.passphrase.reveal()
    with _as_file("".join(one.pem() for one in identity.chain)) as chain, _openssl_key_file(identity.key.path) as key:
        try:
            # A function, because OpenSSL would prompt on the terminal for an empty text.
            context.load_cert_chain(chain, key, passphrase or (lambda: ""))
        except (ssl.SSLError, OSError) as error:
            reason = (getattr(error, "reason", None) or reason_of(error)).lower()
            detail = unseen_in_pem(identity.key.path.read_bytes()) or f"OpenSSL does not take it: {reason}"
            raise KeyFileInvalidError(path=identity.key.path, detail=detail) from error
    return context


@contextlib.contextmanager
def _openssl_key_file(path: Path) -> Iterator[Path | str]:
    """Yield a key file, or its PEM in memory if OpenSSL cannot read the file's format."""
    raw = path.read_bytes()
    text = pem_of_key(raw)
    if text == raw:
        yield path
    else:
        with _as_file(text.decode()) as name:
            yield name


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[str]:
    """Yield an in-memory file with the chain, because OpenSSL accepts only files and the disk may be full.

    A temporary file replaces it if the kernel does not support such files or /proc is not mounted.
    """
    with contextlib.ExitStack() as stack:
        try:
            name = _in_memory(stack, text)
        except (AttributeError, OSError):
            try:
                file = stack.enter_context(tempfile.NamedTemporaryFile("w", prefix="birthmark-chain-", suffix=".pem"))
                file.write(text)
                file.flush()
                name = file.name
            except OSError as error:
                raise TempFileError(reason=error.strerror or str(error)) from error
        yield name


def _in_memory(stack: contextlib.ExitStack, text: str) -> str:
    file = stack.enter_context(os.fdopen(os.memfd_create("birthmark-chain"), "w", encoding="utf-8"))
    file.write(text)
    file.flush()
    path = Path(f"/proc/self/fd/{file.fileno()}")
    path.stat()  # fails if that path cannot be opened
    return str(path)


def translate_error(problem: OSError, host: str, port: int) -> BirthmarkError:
    """Return the error for a failed connection."""
    facts: dict[str, Any] = {"host": host, "port": port}
    if isinstance(problem, ssl.SSLCertVerificationError):
        reason = problem.verify_message
        if problem.verify_code in _NAME_MISMATCH:
            return ServerNameMismatchError(**facts, reason=reason)
        error = ServerUntrustedError(**facts, reason=reason)
        vars(error)["is_about_time"] = problem.verify_code in _WRONG_TIME
        return error
    if isinstance(problem, ssl.SSLError):
        reason = (problem.reason or str(problem)).lower().replace("_", " ")
        if "alert" in reason:
            return ClientCertificateRefusedError(**facts, reason=reason)
        return TlsFailedError(**facts, reason=reason)
    if isinstance(problem, socket.gaierror):
        return HostUnknownError(**facts, reason=problem.strerror)
    late = f"no answer in {TIMEOUT_S:g} s" if isinstance(problem, TimeoutError) else None
    return LinkUnreachableError(**facts, reason=late or problem.strerror or reason_of(problem))
