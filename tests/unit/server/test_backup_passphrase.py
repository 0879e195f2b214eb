"""A backup is opened by its passphrase on a machine that is slower than the one it was made on."""

import pyrage
import pytest

from birthmark.server.backup import archive
from birthmark.server.backup.archive import decrypted

SECRET, WORDS = b"AGE-SECRET-KEY-1", "correct horse battery staple"
MADE = pyrage.passphrase.encrypt(SECRET, WORDS)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the library reckon that this machine would take too long, as on one that is slow, or busy just then."""

    def refuse(_data: bytes, _passphrase: str) -> bytes:
        raise pyrage.DecryptError("Excessive work parameter for passphrase.\nDecryption would take around 32 seconds.")

    monkeypatch.setattr(pyrage.passphrase, "decrypt", refuse)


@pytest.mark.usefixtures("slow")
def test_what_the_library_would_take_too_long_for_is_opened_all_the_same() -> None:
    assert decrypted(MADE, WORDS) == SECRET


@pytest.mark.parametrize("what", ["another passphrase", "the header", "the content"])
@pytest.mark.usefixtures("slow")
def test_what_does_not_fit_is_refused_there_too(what: str) -> None:
    data, words = bytearray(MADE), WORDS
    if what == "another passphrase":
        words = "another"
    elif what == "the header":
        at = data.index(b"--- ") + 8
        data[at] = ord("B") if data[at] == ord("A") else ord("A")
    else:
        data[-1] ^= 1
    with pytest.raises(pyrage.DecryptError):
        decrypted(bytes(data), words)


@pytest.mark.parametrize("log_n", [b"30", b"99"])
def test_what_would_take_all_memory_is_refused_by_name(log_n: bytes) -> None:
    head, scrypt, rest = MADE.partition(b"-> scrypt ")
    salt, _, rest = rest.partition(b" ")
    forged = head + scrypt + salt + b" " + log_n + rest[rest.index(b"\n") :]
    with pytest.raises(ValueError, match="far more work"):
        decrypted(forged, WORDS)


def test_what_is_none_of_it_is_refused() -> None:
    with pytest.raises(pyrage.DecryptError):
        decrypted(b"age-encryption.org/v2\n", WORDS)
    with pytest.raises(ValueError, match="far more work"):
        archive._by_hand(b"age-encryption.org/v1\n-> X25519 abc\n", b"x")
