"""What of a receiver's URL is shown to whom."""

import pytest

from birthmark.events.webhook_url_redaction import host_only, without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example.com/services/T0/5ecret?key=1", "https://hooks.example.com/…"),
        ("https://hooks.example.com:8443/?key=1", "https://hooks.example.com:8443/…"),
        ("https://hooks.example.com", "https://hooks.example.com/"),
        ("http://[::1]:8080/a", "http://[::1]:8080/…"),
        ("mailto:ops@plant.example", "mailto:…@plant.example"),
    ],
)
def test_scheme_and_host_are_shown_alone(url: str, shown: str) -> None:
    assert host_only(url) == shown


@pytest.mark.parametrize(
    "said", ["no route /a%26b/5ecret1", "no route a&b/5ecret1?key=t0kenn", "<b>t0kenn</b> 5ecret1", "a&amp;b 5ecret1"]
)
def test_what_is_answered_does_not_repeat_the_url(said: str) -> None:
    told = without_secrets(said, "https://x.example/a%26b/5ecret1?key=t0kenn")
    assert "5ecret1" not in told
    assert "t0kenn" not in told
