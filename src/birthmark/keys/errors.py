"""Key errors with cause and fix."""

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
from birthmark.text_file_encodings import copy_of

# ---- key files


class KeyFileMissingError(NotFoundError):
    """The key file does not exist."""

    code = "keys.file_missing"
    cause = "The key file {path} does not exist."
    fix = (
        "Check the path. To use the files from the environment variables: `birthmark device register --cert "
        '"$X509_CERT_FILE" --key "$X509_KEY_FILE"`.'
    )
    path: Path


class KeyFileInvalidError(InvalidRequestError):
    """The key file cannot be read."""

    code = "keys.file_invalid"
    cause = "{path} is not a private key in PEM or DER format: {detail}."
    fix = (
        "Use a private key (EC P-256, P-384 or P-521, or RSA). To create a key and a certificate from your own CA: "
        "`birthmark ca issue device-1 --dir ca`."
    )
    path: Path
    detail: object = ""


class KeyFileIsPkcs12Error(KeyFileInvalidError):
    """The file is PKCS#12."""

    code = "keys.file_is_pkcs12"
    cause = "{path} is a PKCS#12 (PFX) file, which contains the certificate and the key in one password-protected file."
    fix = (
        "Extract the key: `(umask 077; set -C; made=$(openssl pkcs12{options} -in {path} -nocerts -noenc) && printf "
        "'%s\\n' \"$made\" > {copy}.key)`. Then extract the certificate: `(set -C; made=$(openssl pkcs12{options} "
        "-in {path} -nokeys) && printf '%s\\n' \"$made\" > {copy}.pem)`."
    )
    options: str = ""
    """`-legacy` for algorithms from before OpenSSL 3."""

    @property
    def copy(self) -> Path:
        """Path of the extracted copy, without its extension."""
        return copy_of(self.path)


class SharedKeyFileInvalidError(KeyFileInvalidError):
    """The file contains no symmetric key."""

    code = "keys.shared_key_invalid"
    cause = "{path} contains no symmetric key. A symmetric key file has one line of base64, as the service shows it."
    fix = "Write the device's primary key to that file, exactly as the portal and `birthmark hub device key` show it."


class KeyFileIsCertificateError(KeyFileInvalidError):
    """The file is a certificate."""

    code = "keys.file_is_certificate"
    cause = "{path} contains a certificate instead of the private key."
    fix = (
        "Use the file with the private key. If the two variables are swapped, swap them back: `export "
        'X509_CERT_FILE="$X509_KEY_FILE" X509_KEY_FILE="$X509_CERT_FILE"`.'
    )


class KeyFileExposedError(PolicyError):
    """Other users can read or write the key."""

    code = "keys.file_exposed"
    cause = "Other users of this machine can access {path} (mode {mode}), so the key does not prove an identity."
    fix = "Restrict the permissions: `chmod 0600 {path}`. If others had access, create a new key and certificate."
    mode: str
    path: Path


class PassphraseWrongError(UnauthenticatedError):
    """The passphrase of the key is missing or wrong."""

    code = "keys.passphrase_wrong"
    cause = "{path} is encrypted, and the passphrase is missing or wrong."
    fix = (
        "For the device commands, set the passphrase in the environment without displaying it: `stty -echo; read -r "
        "PASS_PHRASE; stty echo; export PASS_PHRASE`. The agent requires a key without a passphrase. To create an "
        "unencrypted copy: `(umask 077; set -C; made=$(openssl pkey -in {path}) && printf '%s\\n' \"$made\" > "
        "{copy}.plain)`."
    )
    path: Path

    @property
    def copy(self) -> Path:
        """Path of the key without a passphrase, without its extension."""
        return copy_of(self.path)


class ReferenceKeyError(PolicyError):
    """The file is a reference key."""

    code = "keys.reference_key"
    cause = (
        "{path} is a reference key for object {object_id} of a secure element. The private key is in the chip, but "
        "the program that must sign does not use the chip."
    )
    fix = "Use the key in the chip: `{again} --chip`. To run your own program: `birthmark chip exec -- PROGRAM`."
    again: str = ""
    object_id: str
    path: Path


# ---- tokens


class ModuleMissingError(UnavailableError):
    """The PKCS#11 library does not exist."""

    code = "keys.module_missing"
    cause = "The PKCS#11 library {path} does not exist."
    fix = (
        "Install the chip's PKCS#11 library, and specify its path with --module or BIRTHMARK_PKCS11_MODULE. To use a "
        'simulated secure element: `eval "$(birthmark chip simulate chip)"`.'
    )
    path: object = ""


class SoftHsmMissingError(ModuleMissingError):
    """SoftHSM is not installed."""

    code = "keys.softhsm_missing"
    cause = "SoftHSM's PKCS#11 library was not found in any of these locations: {looked_in}."
    fix = (
        "Install SoftHSM (apt-get install softhsm2), or specify another library with --module or "
        "BIRTHMARK_PKCS11_MODULE."
    )
    for_a_person = "you must install a system package"
    looked_in: str


class ModuleBrokenError(UnavailableError):
    """The PKCS#11 library cannot be loaded."""

    code = "keys.module_broken"
    cause = "The PKCS#11 library {path} cannot be loaded: {detail}."
    fix = (
        "Check that the library is built for this machine's architecture and that the library's settings refer to "
        'the chip. To use a simulated secure element: `eval "$(birthmark chip simulate chip)"`.'
    )
    detail: str
    path: Path


class TokenNotFoundError(NotFoundError):
    """The token does not exist."""

    code = "keys.token_not_found"
    cause = "No token matches {wanted}; the library reports: {found}."
    fix = (
        "Select an existing token with --token, --slot or BIRTHMARK_TOKEN; `birthmark doctor --offline` prints the "
        "command. If no token exists, set BIRTHMARK_PKCS11_MODULE to the chip's library, or use a simulated secure "
        'element: `eval "$(birthmark chip simulate chip)"`.'
    )
    found: str
    wanted: str


class TokenAmbiguousError(ConflictError):
    """Several tokens match."""

    code = "keys.token_ambiguous"
    cause = "Several tokens match {wanted}: {found}."
    fix = "Select one token with --token or --slot. List tokens: `birthmark chip ls`."
    found: str
    wanted: str


class TokenFailedError(UnavailableError):
    """The token rejected the operation or failed."""

    code = "keys.token_failed"
    cause = "The token rejected the operation or failed: {detail}."
    fix = "Check that the chip is connected and that no other process uses the chip. Then retry."
    for_a_person = "you must check the chip"
    detail: str


class PinMissingError(UnauthenticatedError):
    """The token requires a PIN."""

    code = "keys.pin_missing"
    cause = "Token {token} requires a PIN, and none was provided."
    fix = (
        "To write the PIN to a file that only you can read, run `(umask 077; set -C; cat > pin)`, type the PIN, and "
        'press Enter and Ctrl-D. Then set the path to the file: `export BIRTHMARK_PIN_FILE="$PWD/pin"`.'
    )
    token: str


class PinWrongError(UnauthenticatedError):
    """The PIN is wrong."""

    code = "keys.pin_wrong"
    cause = "The PIN for token {token} is wrong."
    fix = "Check the PIN file. Hardware tokens lock after a few wrong PINs: do not guess."
    for_a_person = "only the owner knows the PIN"
    token: str


class PinLockedError(ForbiddenError):
    """The token is locked."""

    code = "keys.pin_locked"
    cause = "Token {token} is locked after too many wrong PINs, or its PIN was never set."
    fix = "Unlock the token with the vendor's tool and the PIN of the security officer."
    for_a_person = "only the security officer's PIN and the vendor's tool can unlock the token"
    token: str


class PinFileError(PolicyError):
    """The PIN file cannot be used."""

    code = "keys.pin_file"
    cause = "The PIN or password file {path} {detail}."
    fix = "Make the file readable only by you: `chmod 0600 {path}`. The file must contain one line of text."
    detail: str
    path: object = ""


class PinFileMissingError(PinFileError):
    """The PIN file cannot be read."""

    code = "keys.pin_file_missing"
    cause = "The PIN or password file {path} cannot be read: {detail}."
    fix = (
        "To create a file that only you can read, run `(umask 077; set -C; cat > {path})`, type the PIN, and press "
        "Enter and Ctrl-D."
    )


class KeyNotFoundError(NotFoundError):
    """The key does not exist."""

    code = "keys.key_not_found"
    cause = "Token {token} has no private key {wanted}. Keys found: {found}."
    fix = (
        "Select one of these keys. List labels and IDs: `birthmark chip ls`. If the PIN is wrong, private keys "
        "are not visible."
    )
    found: str
    token: str
    wanted: str


class KeyAmbiguousError(ConflictError):
    """Several private keys match."""

    code = "keys.key_ambiguous"
    cause = "Several private keys in token {token} match {wanted}: {found}."
    fix = "Select one key by its label or ID. List keys: `birthmark chip ls`."
    found: str
    token: str
    wanted: str


class KeyUnsupportedError(InvalidRequestError):
    """The key type is not supported."""

    code = "keys.key_unsupported"
    cause = "{where} is not an EC (P-256, P-384, P-521) or RSA key, or cannot sign with {scheme}."
    fix = (
        "Use an EC or RSA key. To create a key and a certificate from your own CA: `birthmark ca issue device-1 "
        "--dir ca`."
    )
    scheme: str
    where: str


class PublicKeyMissingError(NotFoundError):
    """The token does not provide the public key."""

    code = "keys.public_key_missing"
    cause = (
        "The token does not provide the public key of {where}: the token has neither a public key object nor a "
        "certificate for that key."
    )
    fix = "On an ATECC608, set the slot's PubInfo bit, or store the certificate with the key."
    for_a_person = "you must configure the chip"
    where: str


class UriInvalidError(InvalidRequestError):
    """Not a PKCS#11 URI (RFC 7512)."""

    code = "keys.uri_invalid"
    message = "The PKCS#11 URI is not valid: {detail}"
    cause = "'{text}' is not a valid PKCS#11 URI: {detail}."
    fix = (
        "Use the form `pkcs11:token=SSS_PKCS11;object=sss:F0000100;type=private`. To print the URI of "
        "your chip's key: `birthmark chip refkey --uri`."
    )
    detail: str = ""
    text: str


class PinInUriError(UriInvalidError):
    """The PKCS#11 URI contains a PIN."""

    code = "keys.pin_in_uri"
    cause = "The PKCS#11 URI contains the PIN (pin-value). URIs appear in logs and process lists."
    fix = (
        "Remove the PIN from the URI: `{uri}`. To use a PIN file instead, run `(umask 077; set -C; cat > pin)`, type "
        'the PIN, and press Enter and Ctrl-D. Then set the path to the file: `export BIRTHMARK_PIN_FILE="$PWD/pin"`. '
        "If others may have seen the PIN, change it."
    )
    uri: str


class PinSourceInPathError(UriInvalidError):
    """The PKCS#11 URI has its PIN file in the wrong part."""

    code = "keys.pin_source_in_path"
    cause = "'{text}' has pin-source among the key's attributes, but pin-source belongs after '?'."
    fix = "Use the URI `{uri}`."
    uri: str
