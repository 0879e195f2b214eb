"""Short-lived keys: a token says for whom and until when, and only that of this account does."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.awsiot.rules.temporary_credentials import (
    CredentialSession,
    SessionEndedError,
    SessionTokenError,
    secret_of,
    session_of,
    token_of,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MASTER = b"m" * 32
SESSION = CredentialSession("ASIA1", "reading", "id", "arn", "00" * 32, int(NOW.timestamp()), "pump-1")
TOKEN = token_of(MASTER, SESSION)


def test_a_token_says_what_it_was_made_for() -> None:
    assert session_of(MASTER, "ASIA1", TOKEN) == SESSION
    assert len(secret_of(MASTER, TOKEN)) == 40
    assert secret_of(MASTER, TOKEN) != secret_of(b"n" * 32, TOKEN)


@pytest.mark.parametrize(
    "token", [None, "", "x", ".", TOKEN[:-2], "A" + TOKEN, TOKEN + "A" * 5000, TOKEN + ".x", "ü.ü"]
)
def test_another_token_is_refused(token: str | None) -> None:
    with pytest.raises(SessionTokenError):
        session_of(MASTER, "ASIA1", token)


def test_a_token_of_another_key_or_account_is_refused() -> None:
    with pytest.raises(SessionTokenError):
        session_of(MASTER, "ASIA2", TOKEN)
    with pytest.raises(SessionTokenError):
        session_of(b"n" * 32, "ASIA1", TOKEN)


@given(st.text(max_size=200))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(SessionTokenError):
        session_of(MASTER, "ASIA1", text)


def test_a_key_ends_at_its_time() -> None:
    SESSION.check_time(NOW - timedelta(seconds=1))
    with pytest.raises(SessionEndedError):
        SESSION.check_time(NOW)
