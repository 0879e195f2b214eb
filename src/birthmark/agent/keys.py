"""The agent's private keys: PEM files, or keys in a token that a file names by its `pkcs11:` URI.

A key's file moves from one id to another when a renewal is proven; for a token the URI moves and the key stays.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pkcs11.constants import Attribute, ObjectClass

from birthmark.agent.config.model import KeyLocation, TokenLocation, TokenSettings
from birthmark.agent.files import Places, move_file, write_file
from birthmark.clock import Entropy
from birthmark.elements.objects import generate
from birthmark.elements.profiles import Algorithm
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.keys.errors import ModuleMissingError, PinMissingError, TokenNotFoundError
from birthmark.keys.file_key import FileKey, read_key_file
from birthmark.keys.handles import uri_in
from birthmark.keys.pin import Pin
from birthmark.keys.token import Token
from birthmark.keys.token_key import TokenKey
from birthmark.keys.uri import Pkcs11Uri, parse_pkcs11_uri


class AgentTokenError(UnavailableError):
    """The token cannot be used."""

    code = "agent.token_unusable"
    cause = "The token that the agent's configuration names cannot be used: {detail}"
    fix = (
        "The tokens there are: `birthmark element list --module {module}`. Under [aziot_keys] of the configuration, "
        "`pkcs11_lib_path` names the chip's library, and token and PIN are named like "
        '`pkcs11_base_slot = "pkcs11:token=TOKEN?pin-source=file:///etc/aziot/pin"`.'
    )
    detail: str
    module: Path


_LABEL_BYTES = 4
_ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class HeldKey:
    """An open key, and the PIN that TLS needs beside it."""

    handle: FileKey | TokenKey
    pin: Pin | None = None


@dataclass(frozen=True, slots=True)
class KeyStore:
    """Opens, makes and moves keys by id. Tokens stay open until `close`: their login belongs to the process."""

    places: Places
    settings: TokenSettings | None
    preloaded: Mapping[str, KeyLocation]
    entropy: Entropy
    _open: dict[str, HeldKey] = field(default_factory=dict, init=False)

    def is_preloaded(self, key_id: str) -> bool:
        """Say whether the key is given by the configuration, and so never made again."""
        return key_id in self.preloaded

    def exists(self, key_id: str) -> bool:
        return key_id in self.preloaded or self.places.key(key_id).exists()

    def open(self, key_id: str) -> HeldKey:
        """Return the key. Raise one of `keys.errors`."""
        if (location := self.preloaded.get(key_id)) is not None:
            return self.open_at(location)
        if (uri := self._uri_of(key_id)) is None:
            return HeldKey(FileKey.load(self.places.key(key_id)))
        return self.open_at(TokenLocation(uri, self._base_pin()))

    def open_at(self, location: KeyLocation) -> HeldKey:
        """Return the key at a place the configuration names."""
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

    def create(self, key_id: str) -> HeldKey:
        """Make a key, in the token that the configuration names for new keys, else in a file; what was there goes."""
        self.remove(key_id)
        path = self.places.key(key_id)
        if self.settings is None or self.settings.base_slot is None:
            key = ec.generate_private_key(ec.SECP256R1())
            write_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            return HeldKey(FileKey.load(path))
        label = f"{key_id.removesuffix('-temp')}-{self.entropy.token(_LABEL_BYTES).hex()}"
        token, pin = self._token(self.settings.base_slot)
        with contextlib.closing(token), token.session() as session:
            generate(session, label, Algorithm.P256, self.entropy.token(_ID_BYTES))
        uri = Pkcs11Uri(token=token.info.label, serial=token.info.serial, object=label, type="private")
        write_file(path, f"{uri}\n".encode())
        return self.open_at(TokenLocation(uri, pin))

    def move(self, source: str, target: str) -> None:
        """Put the key of one id in the place of another's, which goes; an interruption leaves one of the two."""
        replaced = self._uri_of(target)
        move_file(self.places.key(source), self.places.key(target))
        if replaced is not None:
            self._destroy(replaced)

    def remove(self, key_id: str) -> None:
        """Forget a key of ours; one in a token is destroyed there."""
        uri = self._uri_of(key_id)
        self.places.key(key_id).unlink(missing_ok=True)
        if uri is not None:
            self._destroy(uri)

    def look(self) -> str:
        """Open each key that is given by the configuration, and the token of new keys; return what was seen."""
        seen = [self.open(key_id).handle.describe() for key_id in self.preloaded]
        if self.settings is not None and self.settings.base_slot is not None:
            token, _ = self._token(self.settings.base_slot)
            with contextlib.closing(token), token.session():
                seen.append(f"new keys are made in token {token.info.label}")
        return "; ".join(seen)

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

    def _destroy(self, uri: Pkcs11Uri) -> None:
        """Make room in the token. A key that cannot be destroyed does no harm: nobody names it any more."""
        if (held := self._open.pop(str(uri), None)) is not None:
            held.handle.close()
        with contextlib.suppress(BirthmarkError):
            token, _pin = self._token(TokenLocation(uri, self._base_pin()))
            with contextlib.closing(token), token.session() as session:
                for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
                    for item in list(session.get_objects({Attribute.CLASS: kind, Attribute.LABEL: uri.object})):
                        item.destroy()

    def _base_pin(self) -> Pin | None:
        base = None if self.settings is None else self.settings.base_slot
        return None if base is None else _pin_of(base)

    def _token(self, location: TokenLocation) -> tuple[Token, Pin | None]:
        if self.settings is None:  # the configuration was changed under a key file that names a token
            raise ModuleMissingError(path="([aziot_keys] pkcs11_lib_path)")
        uri, pin = location.uri, _pin_of(location)
        module = uri.module_path or self.settings.module
        label = None if uri.slot_id is not None else uri.token  # aziot: the slot's number comes first
        try:
            return Token.open(module, label=label, serial=uri.serial, slot_id=uri.slot_id, pin=pin), pin
        except (ModuleMissingError, PinMissingError, TokenNotFoundError) as error:
            told = error.explain_cause()
            raise AgentTokenError(module=module, detail=told) from error


def _pin_of(location: TokenLocation) -> Pin | None:
    if location.pin is not None or location.uri.pin_source is None:
        return location.pin
    return Pin.from_file(location.uri.pin_source)
