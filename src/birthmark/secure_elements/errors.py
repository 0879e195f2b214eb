"""Why an element refused, for people."""

from pathlib import Path

from birthmark import atomic_files
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError, PolicyError, UnavailableError

_ISSUE = (
    '`birthmark chip csr {key} --cn "$(hostname)" --out device.csr{options} && '
    "birthmark ca sign device.csr --dir ca --out device.pem && "
    "birthmark chip write device.pem --key {key}{options}`."
)


class ElementCertificateMissingError(NotFoundError):
    """The key has no certificate."""

    code = "elements.certificate_missing"
    cause = "Token {token} holds no certificate for key '{key}'."
    fix = "Have one issued, here by your own CA in the directory ca, and write it back: " + _ISSUE
    key: str
    token: str
    options: str = ""


class ElementDataMissingError(NotFoundError):
    """There is no such data object."""

    code = "elements.data_missing"
    cause = "Token {token} holds no data object '{label}'."
    fix = "Check the label with `birthmark chip ls`; a new chip remembers nothing yet."
    label: str
    token: str


class ElementDataTooLargeError(InvalidRequestError):
    """The data does not fit."""

    code = "elements.data_too_large"
    cause = "{size} bytes do not fit into '{label}', which takes {limit}."
    fix = (
        "Keep it in a file, and in the chip only its digest: "
        "`sha256sum {file} | birthmark chip write /dev/stdin --object {label}{options}`."
    )
    file: str = "?"
    label: str
    limit: int
    options: str = ""
    size: int


class ElementMemoryInvalidError(InvalidRequestError):
    """The chip's memory is not ours."""

    code = "elements.memory_invalid"
    cause = "The data in the chip's memory is not an assignment of ours: {detail}."
    fix = (
        "Unless another program needs what it wrote there, register again to overwrite it: "
        "`birthmark device register --element --remember --replace-data{options}`. Else name the hub with --hub."
    )
    detail: str
    options: str = ""


class ElementNoMemoryError(PolicyError):
    """This chip has no memory for it."""

    code = "elements.no_memory"
    cause = "A chip of profile '{profile}' has no data object that its assignment fits into."
    fix = "Let the device ask DPS at each start: `{without}`."
    profile: str
    without: str = "?"


class ElementNotReferableError(PolicyError):
    """The key has no NXP object id."""

    code = "elements.no_reference_key"
    cause = "Key {key} has no SE050 object id (label sss:XXXXXXXX), so no reference key can name it."
    fix = "Use the key's URI instead: `birthmark chip refkey --uri` writes a file that `chip exec` understands."
    key: str


class ElementKeyExistsError(ConflictError):
    """The key exists already."""

    code = "elements.key_exists"
    cause = "Token {token} already has a private key '{label}'."
    fix = "A chip's own identity key is never made again. Choose another label: `birthmark chip keygen {label}-2`."
    label: str
    token: str


class ElementCertificateMismatchError(PolicyError):
    """The certificate is of another key."""

    code = "elements.certificate_mismatch"
    cause = "The certificate of '{subject}' does not carry the public key of '{key}'."
    fix = "Write the certificate that was issued for this chip's own request, as here by your own CA: " + _ISSUE
    key: str
    subject: str
    options: str = ""


class ElementProofInvalidError(PolicyError):
    """The proof of possession does not hold."""

    code = "elements.proof_invalid"
    message = "The proof does not hold: {detail}."
    fix = (
        "Ask the chip for a new proof of this nonce: "
        "`mv --backup=t {path} {path}.old && birthmark chip prove --nonce {nonce} > {path}`."
    )
    detail: str
    nonce: str = "?"
    path: str = "?"


class SelectorInvalidError(InvalidRequestError):
    """This names no object."""

    code = "elements.selector_invalid"
    cause = "'{text}' names no object: use an object id (0xF0000100), a label, or id: with hex digits."
    fix = "See `birthmark chip ls`."
    text: str


class ElementDataOccupiedError(ConflictError):
    """Somebody else's data is not overwritten unasked."""

    code = "elements.data_occupied"
    cause = "Data object '{label}' of token {token} holds {held}: {size} bytes, which nobody said may go."
    fix = (
        "See what it is: `birthmark chip show --object {label}{options}`. Where nothing needs it, overwrite it: "
        "`{again} --replace-data`"
    )
    again: str = "?"
    held: str
    label: str
    options: str = ""
    size: int
    token: str


class ElementLayoutTooSmallError(InvalidRequestError):
    """The how-to's layout has no room for it."""

    code = "elements.layout_too_small"
    cause = "The {what} '{text}' is none that the how-to's layout has room for: {limit} characters of plain ASCII."
    fix = "Use the layout that takes any: `{without} --layout birthmark`"
    limit: int
    text: str
    what: str
    without: str = "?"


class ElementExistsError(ConflictError):
    """There is a software element already."""

    code = "elements.software_exists"
    cause = "{directory} holds what is left of a software element: making it was cut off."
    fix = "Move it away: `mv -nT {directory} {aside}`. Then make it anew."
    directory: Path

    @property
    def aside(self) -> Path:
        """Where it may go."""
        return atomic_files.aside(self.directory)


class EngineMissingError(UnavailableError):
    """OpenSSL's PKCS#11 engine is not installed."""

    code = "elements.engine_missing"
    cause = "OpenSSL's PKCS#11 engine is not installed; looked in {looked_in}."
    fix = "Install it: apt-get install libengine-pkcs11-openssl."
    for_a_person = "a system package has to be installed"
    looked_in: str


class ProgramMissingError(NotFoundError):
    """There is no such program."""

    code = "elements.program_missing"
    cause = "There is no program '{program}'."
    fix = "Check the name after --, which is looked up on PATH. A Python file is run by its interpreter: `{command}`."
    command: str
    program: str


class ProgramUnsupportedError(PolicyError):
    """The program cannot use the chip's key."""

    code = "elements.program_unsupported"
    cause = "{program} cannot use the chip's key like this: {detail}."
    fix = "{advice}: `{command}`."
    advice: str
    command: str
    detail: str
    program: str


class ChipWithoutTlsError(PolicyError):
    """This library signs, and no TLS library can use it."""

    code = "elements.no_tls"
    cause = (
        "The chip is reached by cryptoauthlib, which is no PKCS#11 library: it signs, and TLS cannot use it. For TLS "
        "name Microchip's PKCS#11 library with --module, as /usr/lib/libcryptoauth.so where an image has it built."
    )
    fix = 'See that the chip has its key: `birthmark chip prove --nonce "$(openssl rand -hex 16)"`.'
