"""Options of commands that act as a device: key, certificate and trust."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Self

import typer

from birthmark.cli.input_files import FileMissingError, about, read_file
from birthmark.cli.option_checks_and_confirmation import only_typed
from birthmark.cli.options.chip_and_pin import CHIP_OPTIONS, ChipOptions
from birthmark.cli.output.command_output import UsageError, again
from birthmark.device_transports.identity_and_trust import Identity, ServerTrust, identity_of
from birthmark.errors import NotFoundError
from birthmark.keys.file_key import FileKey, read_key_file
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_uri import find_pkcs11_uri, parse_pkcs11_uri
from birthmark.keys.pkcs11_uri_files import uri_in
from birthmark.keys.se050_reference_keys import parse_reference_key
from birthmark.pki.certificates import Certificate, parse_bundle
from birthmark.secure_elements.backends import check_tls
from birthmark.secure_elements.element_session import Element
from birthmark.untrusted_json_and_text import reason_of


class KeyNotNamedError(UsageError):
    """No private key was specified."""

    code = "device.key_not_named"
    cause = "The device's private key is not specified."
    fix = "Use {key}: `{command}`."
    command: str
    key: str

    @classmethod
    def in_environment(cls, environment: Mapping[str, str]) -> Self:
        """Return the error with the key that the environment refers to: in a secure element, or in a file."""
        if environment.get("BIRTHMARK_PKCS11_MODULE"):
            return cls(key="the key in the secure element", command=f"{again()} --chip")
        return cls(key="the key's file", command=f'{again()} --key "$X509_KEY_FILE"')


class CertificateNotNamedError(UsageError):
    """No certificate was specified."""

    code = "device.certificate_not_named"
    cause = "The key's certificate is not specified."
    fix = 'Specify the certificate file: `{again} --cert "$X509_CERT_FILE"`.'
    again: str = "birthmark device register"


class CaFileMissingError(NotFoundError):
    """The CA file cannot be read."""

    code = "device.ca_file_missing"
    cause = "The trusted CA file {path} cannot be read: {reason}."
    fix = 'Correct --ca-file or SSL_CERT_FILE. To set SSL_CERT_FILE for a Birthmark server: `eval "$(birthmark env)"`'
    path: object
    reason: str


class CertificateFileMissingError(FileMissingError):
    """The certificate cannot be read."""

    code = "device.certificate_missing"
    cause = "The certificate {path} cannot be read: {reason}."
    fix = (
        "Check the path. To use the files that the environment specifies: `birthmark device register --cert "
        '"$X509_CERT_FILE" --key "$X509_KEY_FILE"`.'
    )


@dataclass(frozen=True, slots=True)
class OpenedIdentity:
    """An opened device identity: key, certificate and trust."""

    identity: Identity
    element: Element | None
    trust: ServerTrust


@dataclass(frozen=True, slots=True)
class IdentityOptions:
    """Identity options as given."""

    cert: Annotated[
        Path | None,
        typer.Option(envvar="X509_CERT_FILE", help="File with the device's certificate and intermediate CAs: PEM."),
    ] = None
    key: Annotated[
        str | None,
        typer.Option(envvar="X509_KEY_FILE", help="Key file, pkcs11: URI, or an object's name with --chip."),
    ] = None
    is_element: Annotated[
        bool,
        typer.Option("--chip", help="Use a key in a secure element, and its certificate unless --cert is given."),
    ] = False
    ca_file: Annotated[
        Path | None, typer.Option(help="Trusted CAs in PEM. Default: SSL_CERT_FILE, otherwise the system's.")
    ] = None
    chip: ChipOptions = field(default_factory=ChipOptions)

    @contextmanager
    def opened(self) -> Iterator[OpenedIdentity]:
        """Open key, certificate and trust; the token remains open inside the context."""
        with ExitStack() as stack:
            trust = self._trust()
            if not self.is_element and self.key is None:
                raise KeyNotNamedError.in_environment(os.environ)
            uri = self._uri()
            if not self.is_element and uri is None:
                only_typed(False, "for a key in a secure element", *CHIP_OPTIONS)
                yield self._from_files(trust)
                return
            element, pin = self._element(uri)
            check_tls(stack.enter_context(element))
            selector = self._named_object() if uri is None else _selector(uri)
            chain = element.chain(selector) if self.cert is None else read_certificates(self.cert)
            yield OpenedIdentity(identity_of(element.key(selector), chain, pin=pin), element, trust)

    def _trust(self) -> ServerTrust:
        path = self.ca_file or os.environ.get("SSL_CERT_FILE")
        try:
            with about(Path(path or "the system's CAs")):
                return ServerTrust.default(os.environ) if self.ca_file is None else ServerTrust.of([self.ca_file])
        except OSError as error:
            raise CaFileMissingError(path=path, reason=reason_of(error)) from error

    def _uri(self) -> str | None:
        """Return the URI in --key, or in the file that it names."""
        if self.key is None:
            return None
        if (uri := find_pkcs11_uri(self.key)) is not None:
            return uri
        return None if self.is_element else uri_in(read_key_file(Path(self.key))[0])

    def _named_object(self) -> str | None:
        """Return the object that `--key` selects, also through a reference key file."""
        if self.key is None or not Path(self.key).is_file():
            return self.key
        object_id = parse_reference_key(read_key_file(Path(self.key))[0])
        return self.key if object_id is None else f"0x{object_id:08X}"

    def _from_files(self, trust: ServerTrust) -> OpenedIdentity:
        if self.cert is None:
            raise CertificateNotNamedError
        phrase = os.environ.get("PASS_PHRASE") or os.environ.get("X509_PASS_PHRASE")
        passphrase = None if phrase is None else Pin(phrase)
        key = FileKey.load(Path(self.key or ""), passphrase)
        return OpenedIdentity(identity_of(key, read_certificates(self.cert), passphrase=passphrase), None, trust)

    def _element(self, uri: str | None) -> tuple[Element, Pin | None]:
        chip = self.chip
        if uri is not None and find_pkcs11_uri(uri) is not None:
            named = parse_pkcs11_uri(uri)
            chip = replace(
                chip,
                module=named.module_path or chip.module,
                token=named.token,
                slot=named.slot_id,
                pin_file=chip.pin_file or named.pin_source,
            )
        return chip.open_by(chip.pin())


def _selector(text: str) -> str | None:
    uri = parse_pkcs11_uri(text)
    return uri.object or (None if uri.id is None else f"id:{uri.id.hex()}")


def read_certificates(path: Path) -> tuple[Certificate, ...]:
    """Return the certificates of a PEM file. Raise `CertificateFileMissingError` or `CertificateInvalidError`."""
    raw = read_file(path, missing=CertificateFileMissingError)
    with about(path):
        return parse_bundle(raw)
