"""A device's TPM 2.0: the two keys that name it, and the key its cloud gave it, which signs and is never read.

What is called here takes some milliseconds, and some seconds where the TPM has to make its keys first. Each call opens
the TPM and closes it again, so that others get their turn where no resource manager stands in between.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from birthmark.errors import ConflictError, UnavailableError
from birthmark.keys.native_lock import NativeLock
from birthmark.pki.tpm_sealing import parse_sealed
from birthmark.untrusted_text import printable

PERSISTENT = 0x81000000
MAX_KEY_INDEX = 0x7FFFFF
_ELSEWHERE = (0x101, 0x102)
_LOCK = NativeLock()


class TpmUnavailableError(UnavailableError):
    """The TPM is not available."""

    code = "keys.tpm_unavailable"
    cause = "The TPM at {tcti} cannot be used: {detail}."
    fix = (
        "Check which devices exist, usually tpmrm0: `ls -l /dev`. The agent's user needs the group tss. "
        "Set another device with `tcti` under `[tpm]`. To install the library: `pip install "
        '"birthmark[tpm]"`.'
    )
    detail: str
    tcti: str


class TpmPlaceTakenError(ConflictError):
    """The TPM handle holds another program's key."""

    code = "keys.tpm_place_taken"
    cause = (
        "The TPM at {tcti} already holds a key of another program at handle {handle}, which the agent's "
        "configuration sets for the cloud's key. The agent does not overwrite it."
    )
    fix = (
        "Set another handle, one that `tpm2_getcap handles-persistent` does not list, below `[tpm]` of "
        "the agent's configuration: `auth_key_index = {other}`"
    )
    handle: str
    other: str
    tcti: str


@dataclass(frozen=True, slots=True)
class TpmSettings:
    """`[tpm]`: how the TPM is reached, where its key is kept, and the passwords of its hierarchies."""

    tcti: str = "device"
    key_index: int = 0x000100
    endorsement: str = field(default="", repr=False)
    owner: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Tpm:
    """One TPM. Every method raises `TpmUnavailableError`, those about the kept key `TpmPlaceTakenError` too."""

    settings: TpmSettings

    @property
    def handle(self) -> int:
        """Where the key of the cloud is kept."""
        return PERSISTENT + self.settings.key_index

    def public_keys(self) -> tuple[bytes, bytes]:
        """Return endorsement key and storage root key, each as TPM2B_PUBLIC; those that are missing are made."""
        with self._opened() as (tss, tpm):
            endorsement, root = tss.primaries(tpm)
            return tss.public_of(tpm, endorsement), tss.public_of(tpm, root)

    def sign_with(self, sealed: bytes, data: bytes) -> bytes:
        """Return HMAC-SHA-256 of `data` under a key that is forgotten again. Raise `TpmKeyInvalidError`."""
        parsed = parse_sealed(sealed)
        with self._opened() as (tss, tpm), tss.loaded(tpm, parsed) as key:
            return bytes(tss.hmac(tpm, key, data))

    def keep(self, sealed: bytes) -> None:
        """Keep the key from now on, in the place of the one before. Raise `TpmKeyInvalidError`."""
        parsed = parse_sealed(sealed)
        with self._opened() as (tss, tpm), tss.loaded(tpm, parsed) as key:
            self._kept(tss, tpm)
            tss.keep(tpm, key, self.handle)

    def sign(self, data: bytes) -> bytes:
        """Return HMAC-SHA-256 of `data` under the key that is kept."""
        with self._opened() as (tss, tpm):
            if (key := self._kept(tss, tpm)) is None:
                raise self._unavailable(f"it has no key at {self.handle:#x}, and the device must register again")
            return bytes(tss.hmac(tpm, key, data))

    def has_key(self) -> bool:
        """Say whether a key is kept."""
        with self._opened() as (tss, tpm):
            return self._kept(tss, tpm) is not None

    def _kept(self, tss: Any, tpm: Any) -> Any:
        """Return the key of the cloud that is kept, or None. Raise `TpmPlaceTakenError`."""
        if (key := tss.at(tpm, self.handle)) is not None and not tss.is_hub_key(tpm, key):
            other = next(index for index in _ELSEWHERE if index != self.settings.key_index)
            raise TpmPlaceTakenError(
                handle=f"{self.handle:#x}", other=f"{other:#x}", tcti=printable(self.settings.tcti)
            )
        return key

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Open the TPM: yield what is asked of it, and whom."""
        given = self.settings
        try:
            from birthmark.keys import tpm_commands  # noqa: PLC0415 - an extra, not on every machine
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
