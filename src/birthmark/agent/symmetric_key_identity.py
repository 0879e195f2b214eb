"""Symmetric key attestation: signed SAS tokens instead of a certificate.

The key is in the configuration, in a file, or in a PKCS#11 token that signs itself. Each registration and connection
uses a new SAS token. The hub ends a connection when its SAS token expires, and the agent reconnects.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from birthmark.agent.config.model import SymmetricKeySource
from birthmark.agent.config.provisioning import secret_of
from birthmark.agent.key_store import KeyStore
from birthmark.auth.sas import hmac_sha256, render_sas
from birthmark.device_transports.ports import HttpsClient
from birthmark.dps.client import DpsTarget, HubAssignment, register_by_https
from birthmark.keys.errors import SharedKeyFileInvalidError
from birthmark.keys.file_key import read_key_file

LIFETIME = timedelta(hours=1)
_POLICY = "registration"


@dataclass(frozen=True, slots=True)
class SharedIdentity:
    """Signs for a device with a symmetric key; only `describe` shows its location."""

    sign: Callable[[bytes], bytes] = field(repr=False)
    describe: str
    mark: str = "symmetric key"
    """Value in the state instead of a certificate's thumbprint."""

    lifetime: timedelta = LIFETIME

    async def register(self, client: HttpsClient, target: DpsTarget, payload: object, now: datetime) -> HubAssignment:
        """Register at DPS with a shared access signature."""
        authorization = self.for_dps(target.id_scope, target.registration_id, now)
        return await register_by_https(client, target, authorization=authorization, payload=payload)

    @property
    def is_ready(self) -> bool:
        """Whether the key is available; a missing key raises its error when it signs."""
        return True

    def for_dps(self, id_scope: str, registration_id: str, now: datetime) -> str:
        """Return the SAS token for DPS."""
        return self._token(f"{id_scope}/registrations/{registration_id}", now, _POLICY)

    def for_hub(self, hub: str, device_id: str, now: datetime) -> str:
        """Return the SAS token for a hub."""
        return self._token(f"{hub}/devices/{device_id}", now)

    def _token(self, resource: str, now: datetime, policy: str | None = None) -> str:
        return render_sas(resource, self.sign, now + self.lifetime, policy)


def open_shared(source: SymmetricKeySource, keys: KeyStore) -> SharedIdentity:
    """Return the symmetric key identity. Raise one of `keys.errors`."""
    if source.location is None:
        return SharedIdentity(hmac_sha256(source.value or b""), "a key in the configuration")
    if not isinstance(source.location, Path):
        return SharedIdentity(keys.signs_by_secret(source.location), f"a secret key in {source.location.uri}")
    raw, _mode = read_key_file(source.location)
    secret = secret_of(raw.decode("ascii", "replace"))
    if secret is None:
        raise SharedKeyFileInvalidError(path=source.location)
    return SharedIdentity(hmac_sha256(secret), f"file {source.location}")
