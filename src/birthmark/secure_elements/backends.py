"""Secure element backend by library: PKCS#11 by its path, or Microchip's own by the name `cryptoauthlib`."""

from pathlib import Path

from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_token import Pkcs11Token, TokenInfo, list_tokens
from birthmark.secure_elements.atecc.emulated_pkcs11_token import AteccToken, is_atecc, list_atecc
from birthmark.secure_elements.element_session import Element
from birthmark.secure_elements.errors import ChipWithoutTlsError


def list_chips(module: Path) -> tuple[TokenInfo, ...]:
    """Return the tokens of the library, without login."""
    return list_atecc(module) if is_atecc(module) else list_tokens(module)


def open_chip(module: Path, *, label: str | None, slot_id: int | None, pin: Pin | None) -> Element:
    """Open the only matching element. Raise `TokenNotFoundError`, `TokenAmbiguousError` or a PIN error."""
    if is_atecc(module):
        return Element(AteccToken.at(module, label=label, slot_id=slot_id))
    return Element(Pkcs11Token.open(module, label=label, slot_id=slot_id, pin=pin))


def check_tls(element: Element) -> Element:
    """Return the element if TLS can use its key. Raise `ChipWithoutTlsError`: cryptoauthlib is no PKCS#11 library."""
    if is_atecc(element.token.module):
        raise ChipWithoutTlsError
    return element
