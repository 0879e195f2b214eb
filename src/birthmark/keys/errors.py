"""Why a key cannot be used, for people: what is wrong and what to do."""

from pathlib import Path

from birthmark.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PolicyError,
    UnauthenticatedError,
    UnavailableError,
)
from birthmark.text_files import copy_of

# ---- key files


class KeyFileMissingError(NotFoundError):
    """There is no such key file."""

    code = "keys.file_missing"
    cause = "There is no key file {path}."
    fix = (
        "Check the path. The files of the environment: "
        '`birthmark device register --cert "$X509_CERT_FILE" --key "$X509_KEY_FILE"`.'
    )
    path: Path


class KeyFileInvalidError(InvalidRequestError):
    """The key file cannot be read."""

    code = "keys.file_invalid"
    cause = "{path} is not a private key in PEM or DER form: {detail}."
    fix = (
        "Give a private key (EC P-256, P-384 or P-521, or RSA). Your own CA makes one with its certificate: "
        "`birthmark ca issue device-1 --dir ca`."
    )
    path: Path
    detail: object = ""


class KeyFileIsPkcs12Error(KeyFileInvalidError):
    """The file is PKCS#12."""

    code = "keys.file_is_pkcs12"
    cause = "{path} is PKCS#12 (PFX): certificate and key in one file, which a password protects."
    fix = (
        "Take the key out: `(umask 077; set -C; made=$(openssl pkcs12{options} -in {path} -nocerts -noenc) && "
        "printf '%s\\n' \"$made\" > {copy}.key)`, and the certificate: `(set -C; "
        "made=$(openssl pkcs12{options} -in {path} -nokeys) && printf '%s\\n' \"$made\" > {copy}.pem)`."
    )
    options: str = ""
    """`-legacy` for algorithms of before OpenSSL 3."""

    @property
    def copy(self) -> Path:
        """Where what is taken out goes, but for its ending."""
        return copy_of(self.path)


class SharedKeyFileInvalidError(KeyFileInvalidError):
    """The file holds no shared key."""

    code = "keys.shared_key_invalid"
    cause = "{path} holds no shared key: the base64 text of one line that the service shows."
    fix = "Write the device's primary key into that file, as the portal and `birthmark hub device key` show it."


class KeyFileIsCertificateError(KeyFileInvalidError):
    """The file is a certificate."""

    code = "keys.file_is_certificate"
    cause = "{path} holds a certificate where the private key belongs."
    fix = (
        "Give the key's file. If the two variables are swapped: "
        '`export X509_CERT_FILE="$X509_KEY_FILE" X509_KEY_FILE="$X509_CERT_FILE"`.'
    )


class KeyFileExposedError(PolicyError):
    """Others can read or write the key."""

    code = "keys.file_exposed"
    cause = "{path} is open to every user of this machine (mode {mode}); a key that others can read proves nothing."
    fix = "Close it: `chmod 0600 {path}`. If others had access, make a new key and certificate."
    mode: str
    path: Path


class PassphraseWrongError(UnauthenticatedError):
    """The passphrase does not open the key."""

    code = "keys.passphrase_wrong"
    cause = "{path} is encrypted, and the passphrase is missing or wrong."
    fix = (
        "The device commands take it from the environment, without showing it: "
        "`stty -echo; read -r PASS_PHRASE; stty echo; export PASS_PHRASE`. The agent takes a key that has none: "
        "`(umask 077; set -C; made=$(openssl pkey -in {path}) && printf '%s\\n' \"$made\" > {copy}.plain)`."
    )
    path: Path

    @property
    def copy(self) -> Path:
        """Where the key without a passphrase goes, but for its ending."""
        return copy_of(self.path)


class ReferenceKeyError(PolicyError):
    """The file is a reference key."""

    code = "keys.reference_key"
    cause = (
        "{path} is a reference key for object {object_id} of a secure element: the private key is in the chip, "
        "and nothing that was asked to sign talks to the chip."
    )
    fix = (
        "Say that the key is in a chip: `{again} --element`. A program of your own runs under "
        "`birthmark chip exec -- PROGRAM`."
    )
    again: str = ""
    object_id: str
    path: Path


# ---- tokens


class ModuleMissingError(UnavailableError):
    """There is no such PKCS#11 library."""

    code = "keys.module_missing"
    cause = "There is no PKCS#11 library {path}."
    fix = (
        "Install the chip's PKCS#11 library and name it with --module or BIRTHMARK_PKCS11_MODULE. A software chip "
        'instead: `eval "$(birthmark chip simulate chip)"`.'
    )
    path: object = ""


class SoftHsmMissingError(ModuleMissingError):
    """SoftHSM is not installed."""

    code = "keys.softhsm_missing"
    cause = "SoftHSM's PKCS#11 library is not installed; looked in {looked_in}."
    fix = "Install it (apt-get install softhsm2), or name another library with --module or BIRTHMARK_PKCS11_MODULE."
    for_a_person = "a system package has to be installed"
    looked_in: str


class ModuleBrokenError(UnavailableError):
    """The PKCS#11 library does not start."""

    code = "keys.module_broken"
    cause = "The PKCS#11 library {path} does not start: {detail}."
    fix = (
        "Check that it is for this machine's architecture and that its own settings point at the chip. A software chip "
        'instead: `eval "$(birthmark chip simulate chip)"`.'
    )
    detail: str
    path: Path


class TokenNotFoundError(NotFoundError):
    """There is no such token."""

    code = "keys.token_not_found"
    cause = "No token matches {wanted}; the library sees: {found}."
    fix = (
        "Name one that is there, by --token, --slot or BIRTHMARK_TOKEN: `birthmark doctor --offline` has the command. "
        "If there is none, set BIRTHMARK_PKCS11_MODULE to the chip's library, or use a software chip: "
        '`eval "$(birthmark chip simulate chip)"`.'
    )
    found: str
    wanted: str


class TokenAmbiguousError(ConflictError):
    """Several tokens match."""

    code = "keys.token_ambiguous"
    cause = "Several tokens match {wanted}: {found}."
    fix = "`birthmark chip ls` shows the tokens; name one with --token or --slot."
    found: str
    wanted: str


class TokenFailedError(UnavailableError):
    """The token refused or failed."""

    code = "keys.token_failed"
    cause = "The token refused or failed: {detail}."
    fix = "Check the chip's connection and that no other process holds it; then try again."
    for_a_person = "a chip has to be looked at"
    detail: str


class PinMissingError(UnauthenticatedError):
    """The token wants a PIN."""

    code = "keys.pin_missing"
    cause = "Token {token} asks for a PIN, and none was given."
    fix = (
        "Write it to a file, for you alone, and name that: `(umask 077; set -C; cat > pin)`, then type the PIN, Enter "
        'and Ctrl-D, then `export BIRTHMARK_PIN_FILE="$PWD/pin"`.'
    )
    token: str


class PinWrongError(UnauthenticatedError):
    """The PIN is wrong."""

    code = "keys.pin_wrong"
    cause = "The PIN does not open token {token}."
    fix = "Check the PIN file. Hardware tokens lock after a few wrong tries: do not keep guessing."
    for_a_person = "only its owner knows the PIN"
    token: str


class PinLockedError(ForbiddenError):
    """The token is locked."""

    code = "keys.pin_locked"
    cause = "Token {token} is locked after too many wrong PINs, or its PIN was never set."
    fix = "Unlock it with its security officer's PIN, by the vendor's tool."
    for_a_person = "the vendor's tool and the security officer's PIN"
    token: str


class PinFileError(PolicyError):
    """The PIN file cannot be used."""

    code = "keys.pin_file"
    cause = "The file {path}, which should hold the PIN or password, {detail}."
    fix = "Make it a file that you alone can read: `chmod 0600 {path}`, with one line of text."
    detail: str
    path: object = ""


class PinFileMissingError(PinFileError):
    """The PIN file cannot be read."""

    code = "keys.pin_file_missing"
    cause = "The file {path}, which should hold the PIN or password, cannot be read: {detail}."
    fix = "Write it, for you alone: `(umask 077; set -C; cat > {path})`, then type the PIN, Enter and Ctrl-D."


class KeyNotFoundError(NotFoundError):
    """The key is not there."""

    code = "keys.key_not_found"
    cause = "Token {token} has no private key {wanted}; it has: {found}."
    fix = "Name one of those; `birthmark chip ls` shows labels and ids. A wrong PIN file hides private keys too."
    found: str
    token: str
    wanted: str


class KeyAmbiguousError(ConflictError):
    """Several private keys match."""

    code = "keys.key_ambiguous"
    cause = "Several private keys in token {token} match {wanted}: {found}."
    fix = "`birthmark chip ls` shows the keys; name one by its label or its id."
    found: str
    token: str
    wanted: str


class KeyUnsupportedError(InvalidRequestError):
    """The key is of a kind that is not served."""

    code = "keys.key_unsupported"
    cause = "{where} is a key of another kind than EC (P-256, P-384, P-521) or RSA, or cannot sign with {scheme}."
    fix = "Use an EC or RSA key. Your own CA makes one with its certificate: `birthmark ca issue device-1 --dir ca`."
    scheme: str
    where: str


class PublicKeyMissingError(NotFoundError):
    """The token does not tell the public key."""

    code = "keys.public_key_missing"
    cause = "The token does not tell the public key of {where}: no public object, and no certificate beside it."
    fix = "On an ATECC608 set the slot's PubInfo bit, or write the certificate beside the key."
    for_a_person = "the chip has to be configured"
    where: str


class UriInvalidError(InvalidRequestError):
    """Not a PKCS#11 URI (RFC 7512)."""

    code = "keys.uri_invalid"
    message = "Not a usable PKCS#11 URI: {detail}."
    cause = "'{text}' is not a PKCS#11 URI: {detail}."
    fix = (
        "Write it like `pkcs11:token=SSS_PKCS11;object=sss:F0000100;type=private`; "
        "`birthmark chip refkey --uri` prints the one of your chip's key."
    )
    detail: str = ""
    text: str


class PinInUriError(UriInvalidError):
    """The PKCS#11 URI carries a PIN."""

    code = "keys.pin_in_uri"
    cause = "The PKCS#11 URI carries the PIN itself (pin-value); URIs end up in logs and process lists."
    fix = (
        "Leave it out, `{uri}`, and give it in a file: `(umask 077; set -C; cat > pin)`, then type the PIN, Enter and "
        'Ctrl-D, then `export BIRTHMARK_PIN_FILE="$PWD/pin"`. Change a PIN that others may have seen.'
    )
    uri: str


class PinSourceInPathError(UriInvalidError):
    """The PKCS#11 URI names its PIN file in the wrong part."""

    code = "keys.pin_source_in_path"
    cause = "'{text}' has pin-source among the attributes of the key; it belongs after '?'."
    fix = "Write the URI as `{uri}`."
    uri: str
