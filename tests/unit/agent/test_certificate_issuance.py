"""Whom the agent trusts stands in its configuration, and a refusal says where."""

from typing import Any

import pytest

from birthmark.agent.certificate_sources import trusting_by
from birthmark.device_transports.errors import ServerNameMismatchError, ServerUntrustedError

FACTS: dict[str, Any] = {"host": "est.example", "port": 8085, "reason": "self-signed certificate"}


def test_a_server_that_is_not_trusted_names_the_key_of_the_configuration() -> None:
    with pytest.raises(ServerUntrustedError) as refused, trusting_by("cert_issuance.est.trusted_certs"):
        raise ServerUntrustedError(**FACTS)
    told = refused.value.explain_cause()
    assert "self-signed certificate; set the trusted CAs in cert_issuance.est.trusted_certs" in told


def test_a_certificate_for_another_name_says_nothing_of_trust() -> None:
    with pytest.raises(ServerNameMismatchError) as refused, trusting_by("trust_bundle_cert"):
        raise ServerNameMismatchError(**FACTS)
    assert "trust_bundle_cert" not in refused.value.explain_cause()
