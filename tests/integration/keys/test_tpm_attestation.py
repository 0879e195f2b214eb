"""A TPM by its real library: what is sealed for it opens in it, in no other, and signs after a restart."""

import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.keys.tpm_attestation import Tpm, TpmPlaceTakenError, TpmSettings, TpmUnavailableError
from birthmark.pki.tpm_importable_key import seal_hmac_key
from birthmark.pki.tpm_public_key import TpmKeyInvalidError
from support.chips.tpms import SoftwareTpm, a_tpm
from support.fakes import SeededEntropy

pytestmark = pytest.mark.integration
KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture
def tpm() -> Iterator[SoftwareTpm]:
    with a_tpm() as running:
        yield running


def sealed_for(tpm: SoftwareTpm, key: bytes = KEY) -> bytes:
    keys = tpm.keys
    assert keys.storage_root is not None
    return seal_hmac_key(key, keys.endorsement, keys.storage_root, SeededEntropy())


def test_a_sealed_key_signs_and_is_forgotten(tpm: SoftwareTpm) -> None:
    signed = tpm.device.sign_with(sealed_for(tpm), b"data")
    assert signed == hmac.digest(KEY, b"data", hashlib.sha256)
    assert not tpm.device.has_key()


def test_a_key_that_is_kept_signs_after_a_restart_until_another_takes_its_place(tmp_path: Path) -> None:
    with a_tpm(tmp_path) as tpm:
        tpm.device.store_key(sealed_for(tpm, OTHER))
        tpm.device.store_key(sealed_for(tpm))
    with a_tpm(tmp_path) as again:
        assert again.device.sign(b"data") == hmac.digest(KEY, b"data", hashlib.sha256)


def test_a_key_of_another_program_stays_where_it_is(tpm: SoftwareTpm) -> None:
    tpm.device.public_keys()  # makes the storage root key
    on_it = Tpm(TpmSettings(tpm.tcti, key_index=0x000001))
    with pytest.raises(TpmPlaceTakenError):
        on_it.store_key(sealed_for(tpm))
    with pytest.raises(TpmPlaceTakenError):
        on_it.sign(b"data")
    with pytest.raises(TpmPlaceTakenError):
        on_it.has_key()
    tpm.device.store_key(sealed_for(tpm))  # for which the storage root key has to be there still


def test_another_tpm_opens_nothing(tpm: SoftwareTpm) -> None:
    with a_tpm() as another, pytest.raises(TpmUnavailableError):
        another.device.sign_with(sealed_for(tpm), b"data")


@pytest.mark.parametrize("place", [10, 70, 330, 400, 480])
def test_a_sealed_key_that_was_changed_on_its_way_is_refused_and_the_one_kept_stays(
    tpm: SoftwareTpm, place: int
) -> None:
    tpm.device.store_key(sealed_for(tpm))
    spoiled = bytearray(sealed_for(tpm, OTHER))
    spoiled[place] ^= 1
    for _ in range(5):  # and nothing is left behind in the few places of a TPM
        with pytest.raises((TpmUnavailableError, TpmKeyInvalidError)):
            tpm.device.store_key(bytes(spoiled))
    assert tpm.device.sign(b"data") == hmac.digest(KEY, b"data", hashlib.sha256)


def test_a_tpm_without_a_key_says_so(tpm: SoftwareTpm) -> None:
    with pytest.raises(TpmUnavailableError) as refused:
        tpm.device.sign(b"data")
    assert "has no key at 0x81000100" in refused.value.explain_cause()


@pytest.mark.parametrize("tcti", ["device:/dev/nowhere", "nothing", "swtpm:host=127.0.0.1,port=1", ""])
def test_a_tpm_that_is_not_there_is_told_by_its_place(tcti: str) -> None:
    with pytest.raises(TpmUnavailableError) as refused:
        Tpm(TpmSettings(tcti)).public_keys()
    assert tcti in refused.value.explain_cause()


def test_passwords_of_the_hierarchies_are_not_shown() -> None:
    assert "secret" not in repr(Tpm(TpmSettings(endorsement="secret-1", owner="secret-2")))
