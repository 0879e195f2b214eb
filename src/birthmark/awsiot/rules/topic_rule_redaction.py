"""Redaction of topic rules for viewers: secrets of actions and queries of URLs are masked."""

from collections.abc import Mapping
from typing import Any

from birthmark.untrusted_json_and_text import masked_query

_HIDDEN = "(not shown)"


_URLS = ("url", "confirmed", "confirmationUrl")


def without_secrets(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rule without its HTTP header values and URL queries, for viewers."""
    shown = {**payload, "actions": [_without_secrets(one) for one in payload["actions"]]}
    error_action = payload.get("errorAction")
    return shown if error_action is None else shown | {"errorAction": _without_secrets(error_action)}


def _without_secrets(action: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(http := action.get("http"), dict):
        return action
    shown = _with_masked_urls(http)
    if http.get("headers"):
        shown["headers"] = [{**one, "value": _HIDDEN} for one in http["headers"]]
    return {**action, "http": shown}


def masked_address(address: Mapping[str, Any]) -> dict[str, Any]:
    """Return the redacted address of a rule's action, for viewers."""
    shown = _with_masked_urls(address)
    if "url" in shown and "headers" in shown:
        shown["headers"] = dict.fromkeys(address["headers"], _HIDDEN)
    return shown


def _with_masked_urls(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: masked_query(one) if name in _URLS and isinstance(one, str) else one for name, one in values.items()}
