"""Secrets in columns: what is kept, and what comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.store.column_encryption import BYTES_BEGIN, TEXT_BEGINS, ColumnCipher, SealBrokenError, is_sealed

SEAL, OTHER = ColumnCipher.of(b"one"), ColumnCipher.of(b"another")


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.binary() | st.none())
def test_what_is_sealed_comes_back(value: str | bytes | None) -> None:
    assert SEAL.decrypt_value(SEAL.encrypt_value(value)) == value


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=12) | st.binary(min_size=12))
def test_what_is_kept_says_nothing_of_it_and_is_the_same_each_time(value: str | bytes) -> None:
    kept = SEAL.encrypt_value(value)
    assert is_sealed(kept)
    assert value not in kept[len(TEXT_BEGINS if isinstance(value, str) else BYTES_BEGIN) :]
    assert kept == SEAL.encrypt_value(value)


@pytest.mark.parametrize("value", ["a key", b"a key"])
def test_another_seal_opens_nothing(value: str | bytes) -> None:
    with pytest.raises(SealBrokenError):
        OTHER.decrypt_value(SEAL.encrypt_value(value))


@given(st.binary())
def test_what_is_damaged_is_refused(junk: bytes) -> None:
    for value in (BYTES_BEGIN + junk, TEXT_BEGINS + junk.decode("latin-1")):
        with pytest.raises(SealBrokenError):
            SEAL.decrypt_value(value)


@pytest.mark.parametrize("value", ["{}", "", b"", b"\0" * 64, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"])
def test_what_was_kept_plainly_is_read_as_that(value: str | bytes) -> None:
    assert not is_sealed(value)
    assert SEAL.decrypt_value(value) == value
