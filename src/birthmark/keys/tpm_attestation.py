"""TPM 2.0 of a device: the two keys that identify it, and the symmetric key from its cloud, which is never read.

A call takes some milliseconds, and some seconds if the TPM must first create its keys. Each call opens and closes the
TPM, so that other programs can use it without a resource manager.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from birthmark.errors import ConflictError, UnavailableError
from birthmark.keys.native_library_lock import NativeLock
from birthmark.pki.tpm_importable_key import parse_sealed
from birthmark.untrusted_json_and_text import printable

PERSISTENT = 0x81000000
MAX_KEY_INDEX = 0x7FFFFF
_ELSEWHERE = (0x101, 0x102)
_LOCK = NativeLock()


class TpmUnavailableError(UnavailableError):
    """The TPM is not available."""

    code = "keys.tpm_unavailable"
    cause = "The TPM at {tcti} cannot be used: {detail}."
    fix = (
        "Check which devices exist (the TPM is usually tpmrm0): `ls -l /dev`. Add the agent's user to the group tss. "
        'To use another device, set `tcti` under `[tpm]`. To install the library: `pip install "birthmark[tpm]"`.'
    )
    detail: str
    tcti: str


class TpmPlaceTakenError(ConflictError):
    """The TPM handle holds another program's key."""

    code = "keys.tpm_place_taken"
    cause = (
        "The TPM at {tcti} already holds another program's key at handle {handle}, which the agent's configuration "
        "assigns to the cloud's key. The agent does not overwrite the other program's key."
    )
    fix = (
        "Choose a handle that `tpm2_getcap handles-persistent` does not list, and set it under `[tpm]` in the "
        "agent's configuration: `auth_key_index = {other}`"
    )
    handle: str
    other: str
    tcti: str


@dataclass(frozen=True, slots=True)
class TpmSettings:
    """`[tpm]`: TPM connection, handle of the key, and passwords of the hierarchies."""

    tcti: str = "device"
    key_index: int = 0x000100
    endorsement: str = field(default="", repr=False)
    owner: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Tpm:
    """A TPM. All methods raise `TpmUnavailableError`; those that use the stored key also `TpmPlaceTakenError`."""

    settings: TpmSettings

    @property
    def handle(self) -> int:
        """Persistent handle of the cloud's key."""
        return PERSISTENT + self.settings.key_index

    def public_keys(self) -> tuple[bytes, bytes]:
        """Return endorsement key and storage root key, each as TPM2B_PUBLIC; missing keys are created."""
        with self._opened() as (tss, tpm):
            endorsement, root = tss.primaries(tpm)
            return tss.public_of(tpm, endorsement), tss.public_of(tpm, root)

    def sign_with(self, sealed: bytes, data: bytes) -> bytes:
        """Return HMAC-SHA-256 of `data` with a transient key. Raise `TpmKeyInvalidError`."""
        parsed = parse_sealed(sealed)
        with self._opened() as (tss, tpm), tss.loaded(tpm, parsed) as key:
            return bytes(tss.hmac(tpm, key, data))

    def store_key(self, sealed: bytes) -> None:
        """Store the key persistently in place of the previous one. Raise `TpmKeyInvalidError`."""
        parsed = parse_sealed(sealed)
        with self._opened() as (tss, tpm), tss.loaded(tpm, parsed) as key:
            self._find_stored_key(tss, tpm)
            tss.store_key(tpm, key, self.handle)

    def sign(self, data: bytes) -> bytes:
        """Return HMAC-SHA-256 of `data` with the stored key."""
        with self._opened() as (tss, tpm):
            if (key := self._find_stored_key(tss, tpm)) is None:
                raise self._unavailable(f"it has no key at {self.handle:#x}, and the device must register again")
            return bytes(tss.hmac(tpm, key, data))

    def has_key(self) -> bool:
        """Return whether a key is stored."""
        with self._opened() as (tss, tpm):
            return self._find_stored_key(tss, tpm) is not None

    def _find_stored_key(self, tss: Any, tpm: Any) -> Any:
        """Return the cloud's stored key, or None. Raise `TpmPlaceTakenError`."""
        if (key := tss.find_object(tpm, self.handle)) is not None and not tss.is_hub_key(tpm, key):
            other = next(index for index in _ELSEWHERE if index != self.settings.key_index)
            raise TpmPlaceTakenError(
                handle=f"{self.handle:#x}", other=f"{other:#x}", tcti=printable(self.settings.tcti)
            )
        return key

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Open the TPM and yield the commands module and the ESAPI connection."""
        given = self.settings
        try:
            from birthmark.keys import tpm_commands  # noqa: PLC0415 - optional extra
        except (ImportError, OSError, NotImplementedError) as error:
            raise self._unavailable(f"its library tpm2-pytss is missing ({error})") from error
        with _LOCK:
            try:
                with tpm_commands.opened(given.tcti, given.endorsement.encode(), given.owner.encode()) as tpm:
                    yield tpm_commands, tpm
            except tpm_commands.REFUSALS as error:
                raise self._unavailable(str(error)) from error

    def _unavailable(self, detail: str) -> TpmUnavailableError:
        return TpmUnavailableError(tcti=printable(self.settings.tcti), detail=printable(detail).rstrip("."))
