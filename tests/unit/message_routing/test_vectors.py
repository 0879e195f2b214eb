"""The statements of `tests/vectors/rules_sql.toml`, each selecting what it says."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from birthmark.message_routing.routable_message import RoutableMessage
from birthmark.message_routing.rules.sql import SqlMistake, evaluate, parse, parse_version
from support.fakes import SeededEntropy

FILE = Path(__file__).parents[2] / "vectors" / "rules_sql.toml"
GROUPS = tomllib.loads(FILE.read_text(encoding="utf-8"))["group"]
VECTORS = [
    {**{key: value for key, value in group.items() if key != "of"}, **one} for group in GROUPS for one in group["of"]
]


def message_of(vector: dict[str, Any]) -> RoutableMessage:
    given = {
        key: vector[key]
        for key in ("client_id", "principal", "source_ip", "trace_id", "content_type", "response_topic")
        if key in vector
    }
    return RoutableMessage(
        vector.get("topic", "plant/7/state"),
        bytes.fromhex(vector["raw"]) if "raw" in vector else vector["payload"].encode(),
        account_id="123456789012",
        timestamp_ms=1780315200123,
        user_properties=tuple((name, value) for name, value in vector.get("user_properties", ())),
        correlation_data=bytes.fromhex(vector["correlation_data"]) if "correlation_data" in vector else None,
        payload_format_indicator=vector.get("payload_format_indicator"),
        **given,
    )


def whole_statement(sql: str) -> str:
    is_statement = sql.split(maxsplit=1)[0].upper() in {"SELECT", "SET", "UPDATE"}
    return sql if is_statement else f"SELECT VALUE ({sql}) FROM 'a'"


@pytest.mark.parametrize("vector", VECTORS, ids=lambda one: f"{one['sql']} {one.get('version', '')}".strip())
def test_a_statement_selects_what_the_guide_says(vector: dict[str, Any]) -> None:
    sql = whole_statement(vector["sql"])
    if "refused" in vector:
        with pytest.raises(SqlMistake) as refused:
            parse(sql, parse_version(vector.get("version", "2016-03-23")))
        assert vector["refused"] in str(refused.value)
        assert refused.value.instead
        return
    statement = parse(sql, parse_version(vector.get("version", "2016-03-23")))
    selected = evaluate(statement, message_of(vector), entropy=SeededEntropy())
    if vector.get("takes") is False:
        assert selected is None
        return
    assert selected is not None
    assert selected.payload.decode("utf-8", "backslashreplace") == vector["gives"]


def test_there_are_enough_of_them_and_each_names_its_page() -> None:
    assert len(VECTORS) >= 220
    assert all(".html" in group["source"] for group in GROUPS)
