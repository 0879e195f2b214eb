"""TPM registration: challenges, and the storage root keys that may answer.

A client sends its keys with the request for a challenge, not with the answer. Without a registered root key, the last
few per address that were sent with the enrolled endorsement key are stored until one is proven.
"""

import base64
from collections.abc import Callable
from typing import Any

from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.dps import store
from birthmark.dps.model import Claim, Instance, Registration, TpmKeys
from birthmark.dps.rules import tpm_attestation
from birthmark.errors import ConflictError
from birthmark.net.quota_key import share_of
from birthmark.pki.tpm_importable_key import seal_hmac_key
from birthmark.pki.tpm_public_key import TpmPublic, parse_tpm_public
from birthmark.store import Changes, Database, retry_on_conflict

_ROOT = "storage root key"
_HUB_KEY_BYTES = 32


class Tpms:
    """TPM attestation at all provisioning services."""

    def __init__(self, database: Database, clock: Clock, entropy: Entropy) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy

    async def challenge(
        self,
        instance: Instance,
        keys: TpmKeys,
        present: Registration | None,
        claim: Claim,
        *,
        before_writing: Callable[[], None],
    ) -> bytes:
        """Return a sealed key that only the enrolled TPM can open, to sign its next request with.

        Raise `AttestationError`.
        """
        known = _on_record(keys, present)
        root = tpm_attestation.check_claimed(known, claim)
        if known.storage_root is None:
            await retry_on_conflict(
                lambda: self._remember(instance, claim, root, before_writing), after=ConflictError, attempts=4
            )
        now_s = self._clock.now().timestamp()
        key = tpm_attestation.challenge_key(instance, claim.registration_id, keys.endorsement, root, now_s)
        return seal_hmac_key(key, keys.endorsement, root, self._entropy)

    def seal_useless_key(self, claimed: TpmKeys) -> bytes:
        """Return a sealed random key for a TPM that is refused; no token signed with it is accepted."""
        assert claimed.storage_root is not None  # noqa: S101 - the caller requires both keys
        return seal_hmac_key(
            self._entropy.token(_HUB_KEY_BYTES), claimed.endorsement, claimed.storage_root, self._entropy
        )

    async def check(self, instance: Instance, keys: TpmKeys, present: Registration | None, claim: Claim) -> TpmKeys:
        """Return the keys of the TPM that signed the claim's token. Raise `UnauthenticatedError`."""
        known = _on_record(keys, present)
        roots = [known.storage_root] if known.storage_root else await self._roots(instance, claim)
        found = tpm_attestation.check_answer(instance, keys.endorsement, roots, claim, self._clock.now())
        return TpmKeys(keys.endorsement, found)

    def hub_key(self, proven: TpmKeys) -> tuple[bytes, dict[str, Any]]:
        """Return a new key for the hub, and the TPM data that the registration stores.

        Only that TPM can open the key.
        """
        assert proven.storage_root is not None  # noqa: S101 (proof requires one)
        key = self._entropy.token(_HUB_KEY_BYTES)
        sealed = seal_hmac_key(key, proven.endorsement, proven.storage_root, self._entropy)
        kept = {"endorsement_key": proven.endorsement.tpm2b, "storage_root_key": proven.storage_root.tpm2b}
        return key, kept | {"authentication_key": sealed}

    def drop_candidate_roots(self, instance: Instance, registration_id: str) -> Changes:
        """Return the changes that delete the candidate root keys, after one is proven."""
        return Changes().run(store.DROP_ROOTS, scope=instance.id_scope, registration_id=registration_id.lower())

    async def _roots(self, instance: Instance, claim: Claim) -> list[TpmPublic]:
        kept = await self._remembered(instance, claim) or ()
        return [_parsed(text) for text in dict.fromkeys(map(tpm_attestation.root_of, kept))]

    async def _remembered(self, instance: Instance, claim: Claim) -> tuple[str, ...] | None:
        row = await self._database.one(
            store.GET_ROOTS, scope=instance.id_scope, registration_id=claim.registration_id.lower()
        )
        return None if row is None else tuple(row["storage_root_keys"].split())

    async def _remember(
        self, instance: Instance, claim: Claim, root: TpmPublic, before_writing: Callable[[], None]
    ) -> None:
        text, before = root.base64, await self._remembered(instance, claim)
        address = share_of(claim.address)
        if before is not None and f"{address}|{text}" in before:
            return
        before_writing()
        after = " ".join(tpm_attestation.add_candidate_root(before or (), address, text))
        whose: dict[str, Any] = {"scope": instance.id_scope, "registration_id": claim.registration_id.lower()}
        if before is None:
            changes = Changes().run(store.ADD_ROOTS, **whose, storage_root_keys=after)
        else:
            as_read: dict[str, Any] = {f"key_{name}": value for name, value in whose.items()}
            changes = Changes().run(
                store.REPLACE_ROOTS,
                expect=1,
                key_storage_root_keys=" ".join(before),
                storage_root_keys=after,
                **as_read,
            )
        await self._database.commit(changes)


def _on_record(keys: TpmKeys, present: Registration | None) -> TpmKeys:
    """Return the enrollment's keys; if it names no root key, with the one that was proven before."""
    if keys.storage_root is not None or present is None or present.storage_root_key is None:
        return keys
    if present.endorsement_key != keys.endorsement.tpm2b:  # the enrollment now names another TPM
        return keys
    return TpmKeys(keys.endorsement, parse_tpm_public(present.storage_root_key, _ROOT))


def _parsed(text: str) -> TpmPublic:
    return parse_tpm_public(base64.b64decode(text), _ROOT)
