"""Why an element refused, for people."""

from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError, PolicyError, UnavailableError


class ElementCertificateMissingError(NotFoundError):
    """No certificate belongs to this key."""

    code = "elements.certificate_missing"
    cause = "Token {token} holds no certificate for key {key}."
    fix = "Issue one (`birthmark element csr`, `birthmark ca sign`) and write it back: `birthmark element write`."


class ElementDataMissingError(NotFoundError):
    """No such data object."""

    code = "elements.data_missing"
    cause = "Token {token} holds no data object '{label}'."
    fix = "Check the label with `birthmark element list`; a new chip remembers nothing yet."


class ElementDataTooLargeError(InvalidRequestError):
    """More bytes than the object takes."""

    code = "elements.data_too_large"
    cause = "{size} bytes do not fit into '{label}', which takes {limit}."
    fix = "Store less, or use a profile with a larger object."


class ElementMemoryInvalidError(InvalidRequestError):
    """What the chip remembers cannot be understood."""

    code = "elements.memory_invalid"
    cause = "The data in the chip's memory is not an assignment of ours: {detail}."
    fix = "Another program may own this object; register again to overwrite it."


class ElementNoMemoryError(PolicyError):
    """This profile has no object to remember things in."""

    code = "elements.no_memory"
    cause = "A chip of profile '{profile}' has no data object to remember its assignment in."
    fix = "Keep the assignment in a file instead."


class ElementNotReferableError(PolicyError):
    """Only objects with an NXP object id have reference keys."""

    code = "elements.no_reference_key"
    cause = "Key {key} has no SE050 object id (label sss:XXXXXXXX), so no reference key can name it."
    fix = "Use the key's URI instead: `birthmark element refkey --uri` writes a file that `element exec` understands."


class ElementKeyExistsError(ConflictError):
    """A key with this name is there; identity keys are never replaced."""

    code = "elements.key_exists"
    cause = "Token {token} already has a private key '{label}'."
    fix = "A chip's own identity key is never made again. Choose another label: `birthmark element keygen {label}-2`."


class ElementCertificateMismatchError(PolicyError):
    """The certificate belongs to another key."""

    code = "elements.certificate_mismatch"
    cause = "The certificate of '{subject}' does not carry the public key of {key}."
    fix = "Write the certificate that was issued for this chip's own request."


class ElementProofInvalidError(PolicyError):
    """The proof of possession does not hold."""

    code = "elements.proof_invalid"
    cause = "The proof does not hold: {detail}."
    fix = "Ask the element for a new proof of this nonce: `birthmark element prove --nonce NONCE`."


class SelectorInvalidError(InvalidRequestError):
    """Not a name for an object."""

    code = "elements.selector_invalid"
    cause = "'{shown}' names no object: use an object id (0xF0000100), a label, or id: with hex digits."
    fix = "See `birthmark element list`."


class ElementExistsError(ConflictError):
    """The directory already holds a software element."""

    code = "elements.software_exists"
    cause = "{directory} already holds a software element."
    fix = "Use it as it is, or choose another directory."


class EngineMissingError(UnavailableError):
    """OpenSSL's PKCS#11 engine is not installed."""

    code = "elements.engine_missing"
    cause = "OpenSSL's PKCS#11 engine is not installed; looked in {looked_in}."
    fix = "Install it: apt-get install libengine-pkcs11-openssl."


class ProgramMissingError(NotFoundError):
    """There is no such program."""

    code = "elements.program_missing"
    cause = "There is no program '{program}'."
    fix = "Check the name after `--`; it is looked up on PATH."


class ProgramUnsupportedError(PolicyError):
    """The program cannot be given the chip's key this way."""

    code = "elements.program_unsupported"
    cause = "{program} cannot use the chip's key: {detail}."
    fix = "{advice}"
