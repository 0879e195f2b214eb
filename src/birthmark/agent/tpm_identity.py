"""TPM attestation: DPS sends a challenge that only this TPM can decrypt, and the key for the hub.

The TPM keeps that key and signs with it, also after a restart. If the key is lost, the device registers again.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from birthmark.agent.symmetric_key_identity import SharedIdentity
from birthmark.auth.sas import render_sas
from birthmark.device_transports.ports import HttpsClient
from birthmark.dps.client import DpsTarget, HubAssignment, challenge_by_https, register_by_https
from birthmark.dps.wire import AnswerInvalidError
from birthmark.keys.tpm_attestation import Tpm, TpmSettings


@dataclass(frozen=True, slots=True)
class TpmIdentity(SharedIdentity):
    """Symmetric key identity that signs in a TPM."""

    tpm: Tpm = field(kw_only=True)

    async def register(self, client: HttpsClient, target: DpsTarget, payload: object, now: datetime) -> HubAssignment:
        """Answer the challenge of DPS, register, and store its key. Raise also `TpmUnavailableError`."""
        keys = await asyncio.to_thread(self.tpm.public_keys)
        sealed = await challenge_by_https(client, target, *keys, payload=payload)

        def sign(data: bytes) -> bytes:
            return self.tpm.sign_with(sealed, data)

        def token() -> str:
            return render_sas(target.resource, sign, now + self.lifetime, "registration")

        authorization = await asyncio.to_thread(token)
        assigned = await register_by_https(client, target, authorization=authorization, payload=payload)
        if assigned.authentication_key is None:
            raise AnswerInvalidError(detail="it assigned a hub to a TPM but returned no key for it")
        await asyncio.to_thread(self.tpm.store_key, assigned.authentication_key)
        return assigned

    @property
    def is_ready(self) -> bool:
        """Whether the key for the hub exists; a cleared TPM has lost it."""
        return self.tpm.has_key()


def open_tpm(settings: TpmSettings) -> TpmIdentity:
    """Return the TPM identity; it does not access the TPM yet."""
    tpm = Tpm(settings)
    return TpmIdentity(tpm.sign, f"the key at {tpm.handle:#x} of the TPM {settings.tcti}", "tpm", tpm=tpm)
