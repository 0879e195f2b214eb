"""Rules as the operator interface shows them."""

from typing import Any

from birthmark.awsiot.rules.topic_rule_redaction import without_secrets


def test_values_of_headers_are_not_shown_and_all_else_is() -> None:
    http = {"url": "https://hooks.example.com/x", "headers": [{"key": "authorization", "value": "s3cret"}]}
    payload: dict[str, Any] = {
        "sql": "SELECT * FROM 'x'",
        "actions": [{"http": http}, {"republish": {"topic": "y"}}],
        "errorAction": {"http": http},
    }
    shown = without_secrets(payload)
    assert "s3cret" not in str(shown)
    assert shown["actions"][0]["http"]["headers"][0]["key"] == "authorization"
    assert shown["actions"][1] == payload["actions"][1]
    assert without_secrets({"sql": "", "actions": [], "errorAction": None})["errorAction"] is None
    assert "s3cret" in str(payload)
