"""Private keys of the agent: PEM files, or token keys that a file references by `pkcs11:` URI.

After a proven renewal, a key's file moves to another ID; for a token, the URI moves and the key stays. Token operations
are recorded in advance: a key's name before it is generated, and before it is destroyed. All leftovers of an
interruption in a token are therefore known by name, and `sweep` removes them. Keys of other owners are never touched.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import Mechanism

from birthmark.agent.config.model import KeyLocation, TokenLocation, TokenSettings
from birthmark.agent.state_directory import AgentPaths, move_file, next_of, remove_file, write_file
from birthmark.clock_and_entropy import Entropy
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.keys.errors import (
    KeyFileInvalidError,
    KeyFileMissingError,
    KeyNotFoundError,
    ModuleMissingError,
    PinMissingError,
    PublicKeyMissingError,
    TokenFailedError,
    TokenNotFoundError,
)
from birthmark.keys.file_key import FileKey, read_key_file
from birthmark.keys.key_handle import PrivateKey
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_key import TokenKey
from birthmark.keys.pkcs11_library_lifecycle import LOCK, stop_library
from birthmark.keys.pkcs11_token import Pkcs11Token
from birthmark.keys.pkcs11_uri import SCHEME, Pkcs11Uri, parse_pkcs11_uri
from birthmark.keys.pkcs11_uri_files import uri_in
from birthmark.secure_elements.chip_profiles import Algorithm
from birthmark.secure_elements.token_object_management import destroy, generate, has_key


class AgentTokenError(UnavailableError):
    """The token cannot be used."""

    code = "agent.token_unusable"
    cause = "The token in the agent's configuration cannot be used: {detail}"
    fix = (
        "List tokens: `birthmark chip ls --module {module}`. Under [aziot_keys] in the configuration, set the chip's "
        "library with `pkcs11_lib_path`. Set the token and the PIN as in this example: `pkcs11_base_slot = "
        '"pkcs11:token=TOKEN?pin-source=file:///etc/aziot/pin"`.'
    )
    detail: str
    module: Path


TOKEN_TROUBLE = (AgentTokenError, KeyNotFoundError, PinMissingError, TokenFailedError, TokenNotFoundError)
"""Errors of a token that is missing or was reset, or that returned but is unknown to the library."""

_LABEL_BYTES = 4
_ID_BYTES = 8
_DOOMED_AT_ONCE = 16
_MAX_DOOMED_BYTES = 1024 * 1024
_RSA_BITS = {Algorithm.RSA2048: 2048, Algorithm.RSA3072: 3072, Algorithm.RSA4096: 4096}


@dataclass(frozen=True, slots=True)
class HeldKey:
    """An open key, and the PIN that TLS requires with it."""

    handle: FileKey | TokenKey
    pin: Pin | None = None


@dataclass(frozen=True, slots=True)
class KeyStore:
    """Opens, generates, and moves keys by ID. Tokens stay open until `close`: their login belongs to the process."""

    places: AgentPaths
    settings: TokenSettings | None
    preloaded: Mapping[str, KeyLocation]
    entropy: Entropy
    algorithm: Algorithm = Algorithm.P256
    _open: dict[str, HeldKey] = field(default_factory=dict, init=False)

    def is_preloaded(self, key_id: str) -> bool:
        """Return whether the key is preloaded by the configuration and so never generated."""
        return key_id in self.preloaded

    def exists(self, key_id: str) -> bool:
        return key_id in self.preloaded or self.places.key(key_id).exists()

    def find(self, key_id: str) -> HeldKey | None:
        """Return the key; None for a missing file, a missing object in a present token, or a damaged key.

        A missing token raises its error instead, as the key may return with it.
        """
        if not self.exists(key_id):
            return None
        try:
            return self.open(key_id)
        except (KeyFileMissingError, KeyNotFoundError, PublicKeyMissingError):
            if self.is_preloaded(key_id):
                raise
            return None
        except KeyFileInvalidError:
            if self.is_preloaded(key_id) or not os.access(self.places.key(key_id), os.R_OK):
                raise
            return None

    def open(self, key_id: str) -> HeldKey:
        """Return the key. Raise one of `keys.errors`."""
        if (location := self.preloaded.get(key_id)) is not None:
            return self.open_at(location)
        if (uri := self._uri_of(key_id)) is None:
            return HeldKey(FileKey.load(self.places.key(key_id)))
        return self.open_at(TokenLocation(uri, self._base_pin()))

    def open_at(self, location: KeyLocation) -> HeldKey:
        """Return the key at a configured location."""
        if isinstance(location, Path):
            return HeldKey(FileKey.load(location))
        name = str(location.uri)
        if (held := self._open.get(name)) is None:
            token, pin = self._token(location)
            try:
                held = HeldKey(TokenKey.find(token, label=location.uri.object, key_id=location.uri.id), pin)
            except BirthmarkError:
                token.close()
                raise
            self._open[name] = held
        return held

    def signs_by_secret(self, location: TokenLocation) -> Callable[[bytes], bytes]:
        """Return a function that signs (HMAC-SHA256) with a secret key in a token.

        Raise `KeyNotFoundError`.
        """
        name = location.uri.object or ""

        def sign(data: bytes) -> bytes:
            token, _pin = self._token(location)
            with contextlib.closing(token), token.session() as session:
                wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: name}
                found: list[Any] = list(session.get_objects(wanted))
                for key in found:
                    return bytes(key.sign(data, mechanism=Mechanism.SHA256_HMAC))
                raise KeyNotFoundError(token=token.info.label, wanted=f"secret key '{name}'", found="no such object")

        return sign

    def create(self, key_id: str) -> HeldKey:
        """Generate a key in the token configured for new keys, or in a file, and replace an existing key."""
        self.remove(key_id)
        self.sweep(key_id)
        path = self.places.key(key_id)
        if self.settings is None or self.settings.base_slot is None:
            key = _made(self.algorithm)
            write_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            return HeldKey(FileKey.load(path))
        label = f"{_owner(key_id)}-{self.entropy.token(_LABEL_BYTES).hex()}"
        token, pin = self._token(self.settings.base_slot)
        with contextlib.closing(token):
            uri = Pkcs11Uri(token=token.info.label, serial=token.info.serial, object=label, type="private")
            write_file(path, f"{uri}\n".encode())
            with token.session() as session:
                generate(session, label, self.algorithm, self.entropy.token(_ID_BYTES))
        return self.open_at(TokenLocation(uri, pin))

    def move(self, source: str, target: str) -> None:
        """Replace the key of one ID with another's.

        After an interruption one of both exists, and `sweep` removes the rest.
        """
        self._mark_for_destruction(target)
        move_file(self.places.key(source), self.places.key(target))

    def remove(self, key_id: str) -> None:
        """Remove an agent key; the next `sweep` destroys a token key."""
        self._mark_for_destruction(key_id)
        remove_file(self.places.key(key_id))

    def sweep(self, key_id: str) -> None:
        """Destroy replaced or discarded keys in the token; unreachable ones are retried next time."""
        path = self._doomed_at(key_id)
        if not path.exists():
            return
        owner = _owner(key_id)
        kept = {self._uri_of(owner), self._uri_of(next_of(owner))}
        doomed = self._load_keys_to_destroy(path)
        now, later = doomed[:_DOOMED_AT_ONCE], doomed[_DOOMED_AT_ONCE:]
        left = later + [uri for uri in now if uri not in kept and not self._is_destroyed(uri, kept)]
        if left == doomed:
            return
        if left:
            write_file(path, "".join(f"{uri}\n" for uri in left).encode())
        else:
            remove_file(path)

    def look(self) -> str:
        """Open each preloaded key and the token for new keys; return a description."""
        seen = [self.open(key_id).handle.describe() for key_id in self.preloaded]
        if self.settings is not None and self.settings.base_slot is not None:
            token, _ = self._token(self.settings.base_slot)
            with contextlib.closing(token), token.session():
                seen.append(f"new keys are created in token {token.info.label}")
        return "; ".join(seen)

    def restart_library(self) -> None:
        """Close all tokens and the library; only a restarted library detects a reinserted token."""
        with LOCK:
            self.close()
            stop_library()

    def close(self) -> None:
        for held in self._open.values():
            held.handle.close()
        self._open.clear()

    # ---- inside

    def _uri_of(self, key_id: str) -> Pkcs11Uri | None:
        path = self.places.key(key_id)
        if not path.exists() or (text := uri_in(read_key_file(path)[0])) is None:
            return None
        return parse_pkcs11_uri(text)

    def _doomed_at(self, key_id: str) -> Path:
        return self.places.key(f"{_owner(key_id)}-old")

    def _load_keys_to_destroy(self, path: Path) -> list[Pkcs11Uri]:
        """Return the keys to be destroyed, one per line."""
        if not path.exists():
            return []
        with path.open("rb") as file:
            lines = file.read(_MAX_DOOMED_BYTES).decode("ascii", "replace").splitlines(keepends=True)
        return [parse_pkcs11_uri(line.strip()) for line in lines if line.startswith(SCHEME) and line.endswith("\n")]

    def _mark_for_destruction(self, key_id: str) -> None:
        """Record that a token key is to be destroyed, before the last reference to it is removed."""
        if (uri := self._uri_of(key_id)) is None:
            return
        path = self._doomed_at(key_id)
        doomed = self._load_keys_to_destroy(path)
        if uri not in doomed:
            write_file(path, "".join(f"{one}\n" for one in (*doomed, uri)).encode())

    def _is_destroyed(self, uri: Pkcs11Uri, kept: Collection[Pkcs11Uri | None]) -> bool:
        """Destroy a key pair; return whether it no longer exists.

        A library may report that all objects of a removed token are gone; it then knows none of the kept keys.
        """
        others = [one.object for one in kept if one is not None and one.serial == uri.serial and one.object]
        if (held := self._open.pop(str(uri), None)) is not None:
            held.handle.close()
        with contextlib.suppress(BirthmarkError):
            token, _pin = self._token(TokenLocation(uri, self._base_pin()))
            with contextlib.closing(token), token.session() as session:
                destroy(session, uri.object or "")
                return not others or any(has_key(session, one) for one in others)
        return False

    def _base_pin(self) -> Pin | None:
        base = None if self.settings is None else self.settings.base_slot
        return None if base is None else _pin_of(base)

    def _token(self, location: TokenLocation) -> tuple[Pkcs11Token, Pin | None]:
        if self.settings is None:  # the configuration changed after the key file named a token
            raise ModuleMissingError(path="([aziot_keys] pkcs11_lib_path)")
        uri, pin = location.uri, _pin_of(location)
        module = uri.module_path or self.settings.module
        label = None if uri.slot_id is not None else uri.token  # aziot: slot number comes first
        try:
            return Pkcs11Token.open(module, label=label, serial=uri.serial, slot_id=uri.slot_id, pin=pin), pin
        except (ModuleMissingError, PinMissingError, TokenNotFoundError) as error:
            told = error.explain_cause()
            raise AgentTokenError(module=module, detail=told) from error


def _made(algorithm: Algorithm) -> PrivateKey:
    if algorithm in _RSA_BITS:
        return rsa.generate_private_key(65537, _RSA_BITS[algorithm])
    return ec.generate_private_key(ec.SECP384R1() if algorithm is Algorithm.P384 else ec.SECP256R1())


def _owner(key_id: str) -> str:
    """Return the ID for which `key_id` may be the next key."""
    return key_id.removesuffix("-temp")


def _pin_of(location: TokenLocation) -> Pin | None:
    if location.pin is not None or location.uri.pin_source is None:
        return location.pin
    return Pin.from_file(location.uri.pin_source)
