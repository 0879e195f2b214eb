"""TPM attestation: a challenge that only the enrolled TPM can open, and the token that it signs.

The challenge is a key derived from a secret of the service, the registration ID, the TPM's two keys and the time.
Requests therefore leave no state, at any rate, and any worker can verify the answer.
"""

import contextlib
import hashlib
import hmac
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from birthmark.auth.sas import SasSignatureError, check_resource, check_sas, parse_sas
from birthmark.dps.model import Claim, Instance, TpmKeys
from birthmark.dps.rules.attestation import AttestationError, NoProofError, NotEnrolledError
from birthmark.pki.tpm_public_key import TpmPublic

CHALLENGE_S = 600
MAX_ROOTS, MAX_ROOTS_OF_ONE = 64, 4
"""Maximum number of storage root keys stored for a TPM, and of these from one address."""
_POLICY = "provisioningserviceowner"


class TpmNotEnrolledError(NotEnrolledError):
    """The TPM is not enrolled."""

    code = "dps.tpm_not_enrolled"
    cause = "The device presented a TPM, but scope {scope} has no individual enrollment {registration_id}."
    fix = (
        "If the TPM is yours, enroll it: `birthmark device enroll {registration_id} --endorsement-key "
        "{endorsement_key}{options}`"
    )
    endorsement_key: str
    issuer: str = "-"


class TpmMismatchError(AttestationError):
    """The device's TPM is not the enrolled one."""

    code = "dps.tpm_mismatch"
    cause = (
        "The {what} that {registration_id} presented is not the enrolled one. The request came from another device, "
        "or the device's TPM was replaced or cleared."
    )
    fix = (
        "If the device was repaired, enroll its current keys: `birthmark device enroll {registration_id} "
        "--endorsement-key {endorsement_key} --storage-root-key {storage_root_key}{options} --update`"
    )
    endorsement_key: str
    registration_id: str
    options: str = ""
    storage_root_key: str
    what: str


def challenge_key(
    instance: Instance, registration_id: str, endorsement: TpmPublic, root: TpmPublic, moment_s: float
) -> bytes:
    """Return the key that a TPM signs with, valid from `moment_s` until the end of the next period."""
    secret, _ = instance.policies[_POLICY]
    who = f"tpm challenge {instance.id_scope} {registration_id.lower()} {int(moment_s) // CHALLENGE_S} ".encode()
    return hmac.digest(secret, who + endorsement.name + root.name, hashlib.sha256)


def check_claimed(on_record: TpmKeys, claim: Claim) -> TpmPublic:
    """Return the storage root key of a TPM that may be challenged. Raise `TpmMismatchError`."""
    told = claim.tpm
    if told is None or told.storage_root is None:
        raise NoProofError(
            registration_id=claim.registration_id, presented="no storage root key", wanted="both keys of a TPM"
        )
    for ours, theirs, what in (
        (on_record.endorsement, told.endorsement, "endorsement key"),
        (on_record.storage_root, told.storage_root, "storage root key"),
    ):
        if ours is not None and ours.area != theirs.area:
            raise TpmMismatchError(
                registration_id=claim.registration_id,
                what=what,
                endorsement_key=told.endorsement.base64,
                storage_root_key=told.storage_root.base64,
            )
    return told.storage_root


def add_candidate_root(before: Sequence[str], address: str, root: str) -> tuple[str, ...]:
    """Return the candidate root keys after `root` arrived from an address: `address|key`, oldest first.

    A client that sends other keys for a TPM evicts its own entries, not those of the TPM itself.
    """
    kept = [*before, f"{address}|{root}"]
    while len(kept) > MAX_ROOTS or _most(kept)[1] > MAX_ROOTS_OF_ONE:
        whose = _most(kept)[0]
        kept.remove(next(one for one in kept if _address_of(one) == whose))
    return tuple(kept)


def root_of(stored: str) -> str:
    """Return the key of a stored candidate entry; earlier versions stored only the key."""
    return stored.rpartition("|")[2]


def _most(kept: Sequence[str]) -> tuple[str, int]:
    return Counter(map(_address_of, kept)).most_common(1)[0]


def _address_of(stored: str) -> str:
    return stored.rpartition("|")[0]


def check_answer(
    instance: Instance, endorsement: TpmPublic, roots: Sequence[TpmPublic], claim: Claim, now: datetime
) -> TpmPublic:
    """Return the storage root key of the TPM that signed the claim's token; `roots` are the candidates.

    Raise `UnauthenticatedError`.
    """
    if not claim.token:
        raise NoProofError(
            registration_id=claim.registration_id, presented="no token", wanted="a token signed by its TPM"
        )
    token, seconds = parse_sas(claim.token), now.timestamp()
    check_resource(token, [f"{claim.id_scope}/registrations/{claim.registration_id}"])
    for root in roots:
        moments = (seconds, seconds - CHALLENGE_S)
        keys = [challenge_key(instance, claim.registration_id, endorsement, root, moment) for moment in moments]
        with contextlib.suppress(SasSignatureError):
            check_sas(token, keys, now)
            return root
    raise SasSignatureError(resource=token.resource)
