"""Gives Python programs that only accept key files a key in a secure element.

The interpreter loads it at startup. `birthmark chip exec` puts this directory first on PYTHONPATH.
`SSLContext.load_cert_chain` then inspects the key file. An SE050 reference key, a `pkcs11:` URI, or pkcs11-provider's
URI PEM is mapped to the key in the token through OpenSSL's PKCS#11 engine. Every other file is loaded as usual. The key
itself never enters this process.

It imports nothing from Birthmark, because the program may run in another environment. A sitecustomize that this file
shadows is run too. Settings are environment variables: BIRTHMARK_EXEC_{MODULE,ENGINE,TOKEN,KEYS,PIN_FILE,EXPLAIN}.

Mechanism: the SSL_CTX behind an SSLContext is its first C field (CPython 3.8 to 3.14, Modules/_ssl.c), and
SSL_CTX_use_PrivateKey takes the engine's EVP_PKEY. The interpreter and the engine must share one libssl; otherwise
loading the key is refused with the reason.
"""

import base64
import contextlib
import importlib.machinery
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

_MAX_BYTES = 64 * 1024
_MAGIC = bytes.fromhex("A5A6B5B6A5A6B5B6")
_RSA_MAGIC = 0xA5A6B5B6
_EC_OID = bytes.fromhex("2a8648ce3d0201")
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30
_BLOCK = re.compile(
    rb"-----BEGIN ((?:EC |RSA )?PRIVATE KEY|PKCS#11 PROVIDER URI)-----([A-Za-z0-9+/=\s]*)-----END \1-----"
)
_SYSTEM = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/")
_ENGINE_DYNAMIC = 0x400
_LOAD_CONFIG = 0x40


# ---- key file and PIN file content


def _pin_in(raw: bytes) -> bytes:
    """Return the first line as UTF-8, as `birthmark.text_file_encodings` does: a wrong PIN costs an attempt."""
    codec = "utf-16-le" if raw[1:2] == b"\0" else "utf-16-be" if raw[:1] == b"\0" else "utf-8-sig"
    text = raw.decode("utf-16" if raw[:2] in {b"\xff\xfe", b"\xfe\xff"} else codec)
    return text.removeprefix("\ufeff").encode().splitlines()[0]


def _values(der: bytes) -> list[tuple[int, bytes]]:
    """Split DER into (tag, content) pairs. Raise ValueError if it is malformed."""
    out, at = [], 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1] if at + 1 < len(der) else 256, at + 2
        if length & 0x80:
            size = length & 0x7F
            if not 0 < size <= 3:  # noqa: PLR2004 (a key file never has over three length bytes)
                raise ValueError("length")
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        if at + length > len(der):
            raise ValueError("end")
        out.append((tag, der[at : at + length]))
        at += length
    return out


def _object_id(label: bytes, der: bytes) -> "int | None":
    """Return the SE050 object ID in a reference key, None for any other key (format: keys.reference)."""
    ((_tag, body),) = _values(der)
    fields = _values(body)
    is_ec = label.startswith(b"EC")
    if label == b"PRIVATE KEY":
        is_ec = _EC_OID in fields[1][1]
        fields = _values(_values(fields[2][1])[0][1])
    if is_ec:
        scalar = fields[1][1]
        return int.from_bytes(scalar[-14:-10], "big") if scalar[-10:-2] == _MAGIC else None
    numbers = [int.from_bytes(value, "big") for tag, value in fields if tag == _INTEGER]
    if numbers[8:9] != [_RSA_MAGIC] or 1 not in numbers[4:6]:
        return None
    return numbers[5 if numbers[4] == 1 else 4] & 0xFFFFFFFF


def _uris(text: bytes) -> "list[str]":
    """Return the URIs to try for this key file; empty for an ordinary key."""
    if text.lstrip().startswith(b"pkcs11:"):
        return [_with_token(text.strip().decode("ascii", "replace"))]
    for block in _BLOCK.finditer(text):
        try:
            der = base64.b64decode(block[2])
            if block[1].startswith(b"PKCS#11"):
                ((_tag, body),) = _values(der)
                return [_with_token(_values(body)[1][1].decode())]
            object_id = _object_id(block[1], der)
        except (ValueError, IndexError):  # bad base64 is a ValueError, too
            continue
        if object_id is not None:
            return _uris_of(object_id)
    return []


def _uris_of(object_id: int) -> "list[str]":
    plain = object_id.to_bytes(4, "big")
    labels = [f"sss:{raw.hex().upper()}" for raw in (plain, plain[::-1])]
    known = dict(pair.split("=", 1) for pair in os.environ.get("BIRTHMARK_EXEC_KEYS", "").split(",") if "=" in pair)
    name = f"{object_id:08X}"
    if name in known:
        labels = [known[name]]
    return [_with_token(f"pkcs11:object={quote(label, '')};type=private") for label in labels]


def _with_token(uri: str) -> str:
    """Return the URI with the token and without the query, which is for internal use."""
    path = uri.split("?", 1)[0].removeprefix("pkcs11:")
    token = os.environ.get("BIRTHMARK_EXEC_TOKEN")
    has_token = any(part.startswith(("token=", "serial=")) for part in path.split(";"))
    parts = [path] if has_token or not token else [f"token={quote(token, '')}", path]
    if "type=" not in path:
        parts.append("type=private")
    return "pkcs11:" + ";".join(parts)


# ---- engine


class _Engine:
    """libssl, libcrypto and the engine of this process, loaded at the first token key."""

    def __init__(self) -> None:
        import ctypes
        import threading

        self.lock = threading.Lock()
        self.c = ctypes
        ssl_path, crypto_path = _shared_libraries()
        self.ssl, self.crypto = ctypes.CDLL(ssl_path), ctypes.CDLL(crypto_path)
        self._declare()
        self.engine = self._load()

    def _declare(self) -> None:
        pointer, text, number = self.c.c_void_p, self.c.c_char_p, self.c.c_int
        signatures: tuple[tuple[Any, str, Any, list[Any]], ...] = (
            (self.crypto, "OPENSSL_init_crypto", number, [self.c.c_uint64, pointer]),
            (self.crypto, "ENGINE_by_id", pointer, [text]),
            (self.crypto, "ENGINE_ctrl_cmd_string", number, [pointer, text, text, number]),
            (self.crypto, "ENGINE_init", number, [pointer]),
            (self.crypto, "ENGINE_load_private_key", pointer, [pointer, text, pointer, pointer]),
            (self.crypto, "EVP_PKEY_free", None, [pointer]),
            (self.crypto, "ERR_get_error", self.c.c_ulong, []),
            (self.crypto, "ERR_clear_error", None, []),
            (self.crypto, "ERR_error_string_n", None, [self.c.c_ulong, text, self.c.c_size_t]),
            (self.ssl, "SSL_CTX_use_certificate_chain_file", number, [pointer, text]),
            (self.ssl, "SSL_CTX_use_PrivateKey", number, [pointer, pointer]),
            (self.ssl, "SSL_CTX_check_private_key", number, [pointer]),
            (self.ssl, "SSL_CTX_get_options", self.c.c_uint64, [pointer]),
        )
        for library, name, result, arguments in signatures:
            try:
                function = getattr(library, name)
            except AttributeError:
                raise RuntimeError("this OpenSSL has no engines any more") from None
            function.restype, function.argtypes = result, arguments

    def _load(self) -> Any:
        self.crypto.OPENSSL_init_crypto(_ENGINE_DYNAMIC | _LOAD_CONFIG, None)
        engine = self.crypto.ENGINE_by_id(b"dynamic")
        if not engine:
            raise RuntimeError(f"OpenSSL cannot load engines ({self.problem()})")
        commands: list[tuple[bytes, bytes | None]] = [
            (b"SO_PATH", os.fsencode(os.environ["BIRTHMARK_EXEC_ENGINE"])),
            (b"ID", b"pkcs11"),
            (b"LOAD", None),
            (b"MODULE_PATH", os.fsencode(os.environ["BIRTHMARK_EXEC_MODULE"])),
        ]
        pin_file = os.environ.get("BIRTHMARK_EXEC_PIN_FILE")
        if pin_file:
            commands.append((b"PIN", _pin_in(Path(pin_file).read_bytes())))
        for name, value in commands:
            if not self.crypto.ENGINE_ctrl_cmd_string(engine, name, value, 0):
                raise RuntimeError(f"the PKCS#11 engine refused {name.decode()} ({self.problem()})")
        if not self.crypto.ENGINE_init(engine):
            raise RuntimeError(f"the PKCS#11 engine does not start ({self.problem()})")
        return engine

    def problem(self) -> str:
        """Return and clear OpenSSL's last error, which would otherwise affect the next call."""
        code = self.crypto.ERR_get_error()
        self.crypto.ERR_clear_error()
        text = self.c.create_string_buffer(256)
        self.crypto.ERR_error_string_n(code, text, 256)
        return text.value.decode("ascii", "replace") if code else "no reason given"

    def use(self, context: Any, certfile: Any, uris: "list[str]") -> str:
        """Set certificate and token key on the context and return the URI that was found."""
        with self.lock:
            raw = self._context(context)
            if self.ssl.SSL_CTX_use_certificate_chain_file(raw, os.fsencode(certfile)) != 1:
                raise RuntimeError(f"the certificate {os.fsdecode(certfile)} cannot be read ({self.problem()})")
            for uri in uris:
                key = self.crypto.ENGINE_load_private_key(self.engine, uri.encode(), None, None)
                if not key:
                    continue
                try:
                    # OpenSSL accepts a key that does not match the certificate, and then sends no certificate.
                    is_taken = self.ssl.SSL_CTX_use_PrivateKey(raw, key) == 1
                    if not is_taken or self.ssl.SSL_CTX_check_private_key(raw) != 1:
                        raise RuntimeError(f"the certificate is not of the key {uri} ({self.problem()})")
                finally:
                    self.crypto.EVP_PKEY_free(key)
                self.crypto.ERR_clear_error()
                return uri
            raise RuntimeError(f"the token has no key {' or '.join(uris)} ({self.problem()})")

    def _context(self, context: Any) -> int:
        raw = self.c.c_void_p.from_address(id(context) + object.__basicsize__).value
        # A wrong pointer would be fatal, so compare a known value from libssl.
        if not raw or (self.ssl.SSL_CTX_get_options(raw) ^ int(context.options)) & 0xFFFFFFFF:
            raise RuntimeError("the TLS context of this Python has an unknown memory layout")
        return int(raw)


def _shared_libraries() -> "tuple[str, str]":
    """Return the paths of the libssl and libcrypto that this interpreter uses, if they are the system's."""
    import _ssl

    module = getattr(_ssl, "__file__", None)
    if module is None or b"libssl.so" not in Path(module).read_bytes():
        raise RuntimeError("this Python has its own OpenSSL built in; use the system's Python")
    found: dict[str, set[str]] = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        for name in ("libssl.so", "libcrypto.so"):
            if path.startswith("/") and os.path.basename(path).startswith(name):  # noqa: PTH119 (paths are text here)
                found.setdefault(name, set()).add(path)
    if sorted(map(len, found.values())) != [1, 1]:
        raise RuntimeError("this process has loaded several OpenSSL libraries, or none")
    ((ssl_path,), (crypto_path,)) = found["libssl.so"], found["libcrypto.so"]
    if not os.path.realpath(ssl_path).startswith(_SYSTEM):
        raise RuntimeError(f"this Python uses {ssl_path}, which the system's PKCS#11 engine does not fit")
    return ssl_path, crypto_path


# ---- installation


def _install() -> None:
    import ssl

    original = ssl.SSLContext.load_cert_chain
    state: dict[str, _Engine] = {}

    def load_cert_chain(self: Any, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
        source = certfile if keyfile is None else keyfile
        key_text = _text_of(source)
        if keyfile is not None and b"CERTIFICATE-----" in key_text and b"PRIVATE KEY-----" in _text_of(certfile):
            names = f"{os.fsdecode(certfile)} is a private key and {os.fsdecode(keyfile)} a certificate"
            raise ssl.SSLError(1, f"birthmark: the two files are swapped: {names}; exchange the names")
        uris = _uris(key_text)
        if not uris:
            return original(self, certfile, keyfile, password)
        try:
            if "engine" not in state:
                state["engine"] = _Engine()
            uri = state["engine"].use(self, certfile, uris)
        except (RuntimeError, OSError, IndexError) as error:
            raise ssl.SSLError(1, f"birthmark: {os.fsdecode(source)} names a key in a chip, and {error}") from error
        if os.environ.get("BIRTHMARK_EXEC_EXPLAIN"):
            print(f"birthmark: {os.fsdecode(source)} -> {uri}", file=sys.stderr)  # noqa: T201 (asked for)
        return None

    ssl.SSLContext.load_cert_chain = load_cert_chain  # type: ignore[method-assign]  # intended


def _text_of(source: Any) -> bytes:
    """Return the start of a file, or nothing; the original function reports errors."""
    try:
        with open(source, "rb") as file:  # noqa: PTH123 (accepts bytes, text and paths)
            return file.read(_MAX_BYTES)
    except (OSError, TypeError):
        return b""


def _run_shadowed() -> None:
    """Run the `sitecustomize` that this one shadows."""
    here = os.path.realpath(os.path.dirname(__file__))  # noqa: PTH120 (pathlib's resolve has more imports)
    others = [path for path in sys.path if os.path.realpath(path or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


if os.environ.get("BIRTHMARK_EXEC_MODULE"):
    with contextlib.suppress(ImportError):  # without ssl the hook has no use
        _install()
if __name__ == "sitecustomize":  # the proxy of `chip exec` uses another name
    _run_shadowed()
