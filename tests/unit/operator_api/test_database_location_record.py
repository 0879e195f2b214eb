"""What a data directory notes of its database: enough to know it again, and nothing that is secret."""

from pathlib import Path

import pytest

from birthmark.operator_api.database_location_record import plain


@pytest.mark.parametrize(
    ("url", "noted"),
    [
        ("postgresql://birthmark:secret@db.example:5433/birthmark?sslmode=require", "postgresql://db.example:5433/birthmark"),
        ("postgresql://DB.example/birthmark", "postgresql://db.example/birthmark"),
        ("postgres://birthmark@[::1]:5432/birthmark", "postgresql://::1:5432/birthmark"),
        (
            "postgresql://birthmark:secret@one.example:5432,two.example/birthmark?target_session_attrs=read-write",
            "postgresql://one.example:5432,two.example/birthmark",
        ),
    ],
    ids=["options", "capitals", "ipv6", "several"],
)  # fmt: skip
def test_a_database_is_noted_by_its_places_and_its_name(url: str, noted: str, tmp_path: Path) -> None:
    assert plain(url, tmp_path) == noted
