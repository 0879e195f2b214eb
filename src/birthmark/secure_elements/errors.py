"""Errors of secure elements."""

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
    cause = "Token {token} contains no certificate for key '{key}'."
    fix = "Issue one with your own CA in the directory ca, and write it to the chip: " + _ISSUE
    key: str
    token: str
    options: str = ""


class ElementDataMissingError(NotFoundError):
    """The data object does not exist."""

    code = "elements.data_missing"
    cause = "Token {token} contains no data object '{label}'."
    fix = "Check the label with `birthmark chip ls`; a new chip has no stored data."
    label: str
    token: str


class ElementDataTooLargeError(InvalidRequestError):
    """The data is too large for the data object."""

    code = "elements.data_too_large"
    cause = "{size} bytes do not fit into '{label}', whose maximum is {limit} bytes."
    fix = (
        "Store the data in a file and only its digest on the chip: `sha256sum {file} | birthmark chip write "
        "/dev/stdin --object {label}{options}`."
    )
    file: str = "?"
    label: str
    limit: int
    options: str = ""
    size: int


class ElementMemoryInvalidError(InvalidRequestError):
    """The chip's memory contains other data."""

    code = "elements.memory_invalid"
    cause = "The chip's memory does not contain a Birthmark assignment: {detail}."
    fix = (
        "If no other program needs the data, register again to overwrite it: `birthmark device register "
        "--chip --remember --replace-data{options}`. Otherwise, set the hub with --hub."
    )
    detail: str
    options: str = ""


class ElementNoMemoryError(PolicyError):
    """The chip has no memory for the assignment."""

    code = "elements.no_memory"
    cause = "A chip with the profile '{profile}' has no data object large enough for the device's assignment."
    fix = "Register with DPS at each start: `{without}`."
    profile: str
    without: str = "?"


class ElementNotReferableError(PolicyError):
    """The key has no NXP object id."""

    code = "elements.no_reference_key"
    cause = "Key {key} has no SE050 object ID (label sss:XXXXXXXX), so a reference key cannot refer to it."
    fix = "Use the key's URI instead: `birthmark chip refkey --uri` writes a file for `chip exec`."
    key: str


class ElementKeyExistsError(ConflictError):
    """The key already exists."""

    code = "elements.key_exists"
    cause = "Token {token} already has a private key '{label}'."
    fix = "A chip's identity key is never replaced. Choose another label: `birthmark chip keygen {label}-2`."
    label: str
    token: str


class ElementCertificateMismatchError(PolicyError):
    """The certificate belongs to another key."""

    code = "elements.certificate_mismatch"
    cause = "The certificate of '{subject}' does not contain the public key of '{key}'."
    fix = "Write the certificate for this chip's own request, for example from your own CA: " + _ISSUE
    key: str
    subject: str
    options: str = ""


class ElementProofInvalidError(PolicyError):
    """The proof of possession is not valid."""

    code = "elements.proof_invalid"
    message = "The proof is not valid: {detail}"
    fix = (
        "Request a new proof for this nonce: `mv --backup=t {path} {path}.old && birthmark chip prove "
        "--nonce {nonce} > {path}`."
    )
    detail: str
    nonce: str = "?"
    path: str = "?"


class SelectorInvalidError(InvalidRequestError):
    """Not an object selector."""

    code = "elements.selector_invalid"
    cause = "'{text}' is not an object selector: use an object ID (0xF0000100), a label, or id: followed by hex digits."
    fix = "To list the objects: `birthmark chip ls`."
    text: str


class ElementDataOccupiedError(ConflictError):
    """The data object holds another program's data."""

    code = "elements.data_occupied"
    cause = (
        "Data object '{label}' of token {token} contains {size} bytes ({held}). Birthmark does not overwrite this "
        "data without confirmation."
    )
    fix = (
        "Check the data: `birthmark chip show --object {label}{options}`. If no program needs the data, overwrite "
        "it: `{again} --replace-data`"
    )
    again: str = "?"
    held: str
    label: str
    options: str = ""
    size: int
    token: str


class ElementLayoutTooSmallError(InvalidRequestError):
    """The how-to's layout is too small for the value."""

    code = "elements.layout_too_small"
    cause = "The {what} '{text}' does not fit into the how-to's layout, which allows {limit} characters of plain ASCII."
    fix = "Use the layout without this limit: `{without} --layout birthmark`"
    limit: int
    text: str
    what: str
    without: str = "?"


class ElementExistsError(ConflictError):
    """A simulated secure element already exists."""

    code = "elements.software_exists"
    cause = "{directory} contains an incomplete simulated secure element because its creation was interrupted."
    fix = "Move the directory: `mv -nT {directory} {aside}`. Then create the simulated secure element again."
    directory: Path

    @property
    def aside(self) -> Path:
        """Suggested path for the file."""
        return atomic_files.backup_path(self.directory)


class EngineMissingError(UnavailableError):
    """OpenSSL's PKCS#11 engine is not installed."""

    code = "elements.engine_missing"
    cause = "OpenSSL's PKCS#11 engine is not installed. Birthmark searched {looked_in}."
    fix = "Install the engine: apt-get install libengine-pkcs11-openssl."
    for_a_person = "a system package has to be installed"
    looked_in: str


class ProgramMissingError(NotFoundError):
    """The program does not exist."""

    code = "elements.program_missing"
    cause = "The program '{program}' does not exist."
    fix = (
        "Check the program name after --; Birthmark searches for it on PATH. To run a Python file, specify its "
        "interpreter: `{command}`."
    )
    command: str
    program: str


class ProgramUnsupportedError(PolicyError):
    """The program cannot use the chip's key."""

    code = "elements.program_unsupported"
    cause = "{program} cannot use the chip's key: {detail}."
    fix = "{advice}: `{command}`."
    advice: str
    command: str
    detail: str
    program: str


class ChipWithoutTlsError(PolicyError):
    """The library can sign but does not support TLS."""

    code = "elements.no_tls"
    cause = (
        "The chip is accessed through cryptoauthlib, which can sign but is not a PKCS#11 library, so TLS cannot use "
        "it. For TLS, set Microchip's PKCS#11 library with --module, for example /usr/lib/libcryptoauth.so from an "
        "image that contains it."
    )
    fix = 'Check that the chip holds its key: `birthmark chip prove --nonce "$(openssl rand -hex 16)"`.'
