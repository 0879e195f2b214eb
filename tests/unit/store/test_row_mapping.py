"""Values to rows and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import pytest
import sqlalchemy
from sqlalchemy import Column, LargeBinary, MetaData

from birthmark.pki.certificates import Certificate
from birthmark.store.plain_and_encrypted_column_types import to_micros
from birthmark.store.row_mapper import RowMapper
from support.fakes import NOON
from support.pki.pki_builders import a_device

LEAF = a_device().certificate


class Color(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Part:
    name: str
    color: Color | None
    is_new: bool
    made_at: datetime
    gone_at: datetime | None
    notes: Mapping[str, str]
    certificate: Certificate


PARTS = RowMapper(Part, certificate="der", is_new="fresh")


@pytest.mark.parametrize(
    "part",
    [
        Part("a", Color.RED, True, NOON, NOON, {"b": "1", "a": "2"}, LEAF),
        Part("", None, False, NOON, None, {}, LEAF),
    ],
)
def test_a_value_comes_back_from_its_row_as_it_was(part: Part) -> None:
    assert PARTS.of(PARTS.row(part)) == part


def test_a_row_has_text_numbers_and_bytes_only_under_its_columns_names() -> None:
    assert PARTS.row(Part("a", Color.RED, True, NOON, None, {"b": "1", "a": "2"}, LEAF)) == {
        "name": "a",
        "color": "red",
        "fresh": 1,
        "made_at": to_micros(NOON),
        "gone_at": None,
        "notes": '{"a": "2", "b": "1"}',
        "der": LEAF.der,
    }


def test_a_table_has_a_column_for_each_field_and_is_named_by_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birthmark.store.row_mapper.metadata", MetaData())
    declared = PARTS.table("test_parts", "name", more=[Column("subject", LargeBinary, nullable=False)])
    table = declared
    kinds = {column.name: (type(column.type), column.nullable) for column in table.columns}
    assert kinds == {
        "name": (sqlalchemy.Text, False),
        "color": (sqlalchemy.Text, True),
        "fresh": (sqlalchemy.BigInteger, False),
        "made_at": (sqlalchemy.BigInteger, False),
        "gone_at": (sqlalchemy.BigInteger, True),
        "notes": (sqlalchemy.Text, False),
        "der": (sqlalchemy.LargeBinary, False),
        "subject": (sqlalchemy.LargeBinary, False),
    }
    assert [column.name for column in table.primary_key.columns] == ["name"]
