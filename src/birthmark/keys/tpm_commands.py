"""TPM 2.0 commands by the library of the TPM2 software stack; imported only where there is a TPM."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_DATA,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPMT_SYM_DEF,
    TPMT_SYM_DEF_OBJECT,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
    TSS2_Exception,
)
from tpm2_pytss.constants import TPM2_RC

from birthmark.pki.tpm_importable_key import SealedKey
from birthmark.pki.tpm_public_key import sized

ENDORSEMENT_KEY, STORAGE_ROOT_KEY = 0x81010001, 0x81000001
# PolicySecret(endorsement hierarchy), required by every endorsement key of the TCG's template L-1.
_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
_KIND = "rsa2048:aes128cfb"
REFUSALS: tuple[type[Exception], ...] = (TSS2_Exception, ValueError, RuntimeError)


@contextlib.contextmanager
def opened(tcti: str, endorsement: bytes, owner: bytes) -> Iterator[ESAPI]:
    """Open the TPM with the passwords of its endorsement and owner hierarchies."""
    os.environ.setdefault("TSS2_LOG", "all+NONE")  # errors are raised; the library would also print them
    with ESAPI(tcti) as tpm:
        tpm.tr_set_auth(ESYS_TR.ENDORSEMENT, endorsement)
        tpm.tr_set_auth(ESYS_TR.OWNER, owner)
        yield tpm


def public_of(tpm: ESAPI, key: ESYS_TR) -> bytes:
    """Return a key's TPM2B_PUBLIC."""
    return bytes(tpm.read_public(key)[0].marshal())


def is_hub_key(tpm: ESAPI, key: ESYS_TR) -> bool:
    """Return whether a key can be a cloud's HMAC key: other TPM keys are RSA, ECC or symmetric ciphers."""
    return bool(tpm.read_public(key)[0].publicArea.type == TPM2_ALG.KEYEDHASH)


def store_key(tpm: ESAPI, key: ESYS_TR, handle: int) -> None:
    """Store a key at a persistent handle in place of the previous one."""
    if (old := find_object(tpm, handle)) is not None:
        tpm.evict_control(ESYS_TR.OWNER, old, handle)
    tpm.evict_control(ESYS_TR.OWNER, key, handle)


def find_object(tpm: ESAPI, handle: int) -> ESYS_TR | None:
    """Return the object at a persistent handle, or None."""
    try:
        return tpm.tr_from_tpmpublic(handle)
    except TSS2_Exception as error:
        if error.error == TPM2_RC.HANDLE:
            return None
        raise


def primaries(tpm: ESAPI) -> tuple[ESYS_TR, ESYS_TR]:
    """Return endorsement key and storage root key, at the handles that Azure's software uses."""
    shared = (
        TPMA_OBJECT.RESTRICTED
        | TPMA_OBJECT.DECRYPT
        | TPMA_OBJECT.FIXEDTPM
        | TPMA_OBJECT.FIXEDPARENT
        | TPMA_OBJECT.SENSITIVEDATAORIGIN
    )
    by_policy = {"objectAttributes": shared | TPMA_OBJECT.ADMINWITHPOLICY, "authPolicy": _POLICY}
    by_auth = {"objectAttributes": shared | TPMA_OBJECT.NODA | TPMA_OBJECT.USERWITHAUTH}
    return (
        _primary(tpm, ENDORSEMENT_KEY, ESYS_TR.ENDORSEMENT, by_policy),
        _primary(tpm, STORAGE_ROOT_KEY, ESYS_TR.OWNER, by_auth),
    )


def _primary(tpm: ESAPI, handle: int, hierarchy: ESYS_TR, template: dict[str, Any]) -> ESYS_TR:
    if (present := find_object(tpm, handle)) is not None:
        return present
    made, *_ = tpm.create_primary(TPM2B_SENSITIVE_CREATE(), TPM2B_PUBLIC.parse(_KIND, **template), hierarchy)
    try:
        return tpm.evict_control(ESYS_TR.OWNER, made, handle)
    finally:
        tpm.flush_context(made)


@contextlib.contextmanager
def loaded(tpm: ESAPI, sealed: SealedKey) -> Iterator[ESYS_TR]:
    """Load a sealed key into the TPM for the duration of the block."""
    endorsement, root = primaries(tpm)
    credential, secret = TPM2B_ID_OBJECT(sealed.credential), TPM2B_ENCRYPTED_SECRET(sealed.credential_secret)
    with _policy(tpm) as session:
        wrapping = tpm.activate_credential(root, endorsement, credential, secret, session2=session)
    cipher = TPMT_SYM_DEF_OBJECT(
        algorithm=TPM2_ALG.AES, keyBits=TPMU_SYM_KEY_BITS(aes=128), mode=TPMU_SYM_MODE(aes=TPM2_ALG.CFB)
    )
    public, _ = TPM2B_PUBLIC.unmarshal(sized(sealed.public))
    duplicate, seed = TPM2B_PRIVATE(sealed.duplicate), TPM2B_ENCRYPTED_SECRET(sealed.duplicate_secret)
    private = tpm.import_(root, TPM2B_DATA(bytes(wrapping)), public, duplicate, seed, cipher)
    key = tpm.load(root, private, public)
    try:
        yield key
    finally:
        tpm.flush_context(key)


@contextlib.contextmanager
def _policy(tpm: ESAPI) -> Iterator[ESYS_TR]:
    """Satisfy the endorsement key's policy; on success the TPM ends the session itself."""
    session = tpm.start_auth_session(
        ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
    )
    try:
        tpm.policy_secret(ESYS_TR.ENDORSEMENT, session)
        yield session
    finally:
        tpm.flush_context(session)


def hmac(tpm: ESAPI, key: ESYS_TR, data: bytes) -> bytes:
    return bytes(tpm.hmac(key, data, TPM2_ALG.SHA256))
