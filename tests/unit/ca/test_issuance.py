import dataclasses

import pytest
from cryptography import x509

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca.rules.issuance import CaNotIssuedError, KeyTakenError, NameNotAllowedError, NoCommonNameError, decide
from birthmark.pki.csr import parse_csr
from birthmark.pki.names import name_of
from birthmark.pki.profiles import DEVICE, EDGE_CA
from pki_builders import a_csr

USER = Principal(PrincipalKind.EST_USER, "factory")
OPERATOR = Principal(PrincipalKind.OPERATOR, "local")
REQUEST = parse_csr(a_csr("device-1"))


def test_a_device_gets_a_certificate_for_its_name() -> None:
    assert decide(REQUEST, USER, DEVICE, []) == "device-1"


def test_a_device_may_renew_with_the_key_it_has() -> None:
    holder = Principal(PrincipalKind.DEVICE, "device-1", device_id="device-1")
    assert decide(REQUEST, holder, DEVICE, ["device-1"]) == "device-1"


def test_a_device_may_not_have_a_certificate_for_another() -> None:
    with pytest.raises(NameNotAllowedError):
        decide(REQUEST, Principal(PrincipalKind.DEVICE, "device-2", device_id="device-2"), DEVICE, [])


def test_a_key_belongs_to_one_device() -> None:
    with pytest.raises(KeyTakenError) as refusal:
        decide(REQUEST, USER, DEVICE, ["device-7"])
    assert "device-7" in refusal.value.explain_cause()


def test_a_request_without_a_common_name_is_refused() -> None:
    nameless = dataclasses.replace(REQUEST, subject=x509.Name([*name_of("a"), *name_of("b")]))
    with pytest.raises(NoCommonNameError):
        decide(nameless, USER, DEVICE, [])


def test_ca_certificates_are_for_operators() -> None:
    wanting = parse_csr(a_csr(extensions=((x509.BasicConstraints(ca=True, path_length=0), True),)))
    with pytest.raises(CaNotIssuedError):
        decide(wanting, USER, DEVICE, [])
    with pytest.raises(CaNotIssuedError):
        decide(wanting, USER, EDGE_CA, [])
    assert decide(wanting, OPERATOR, EDGE_CA, []) == "device-1"
