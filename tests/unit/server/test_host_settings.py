"""The name of the server is one that its certificate can have."""

import pytest

from birthmark.server.settings import ConfigInvalidError, read_settings


@pytest.mark.parametrize("host", ["cloud.example", "localhost", "192.0.2.7", "::1", "under_score.example"])
def test_a_dns_name_or_an_address_is_taken(host: str) -> None:
    assert read_settings(None, {}, host=host, names=[host]).host_name == host


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("süd.example", "host is 'süd.example', which DNS has as xn--sd-xka.example"),
        ("Werk Süd", "host is 'Werk Süd', which is neither a DNS name nor an address"),
        ("localhost\u00a0", "which is neither a DNS name nor an address"),
        ("werk.local ", "which is neither a DNS name nor an address"),
    ],
)
def test_another_text_is_refused_by_its_key(host: str, why: str) -> None:
    with pytest.raises(ConfigInvalidError) as refused:
        read_settings(None, {}, host=host)
    assert why in refused.value.explain_cause()
    with pytest.raises(ConfigInvalidError) as refused:
        read_settings(None, {}, names=["cloud.example", host])
    assert "names is" in refused.value.explain_cause()
