"""The refusals every operator meets first: each has its own code. Their wire answers are tested where they happen."""

import pytest
from test_errors import every_class

LIST = {
    "certificate and key files swapped": "pki.certificate_key_swapped",
    "reference key used without the chip": "tls.key_not_proven",
    "registration id is not the common name": "dps.registration_id_mismatch",
    "unknown scope": "dps.unknown_scope",
    "not enrolled": "dps.not_enrolled",
    "disabled": "dps.enrollment_disabled",
    "expired": "pki.certificate_expired",
    "not yet valid": "pki.certificate_not_yet_valid",
    "unverified CA": "dps.ca_unverified",
    "intermediate not sent": "dps.intermediate_not_sent",
    "wrong thumbprint at the hub": "iothub.thumbprint_mismatch",
    "inactive AWS certificate": "awsiot.certificate_inactive",
    "policy deny": "awsiot.policy_denied",
    "SigV4 mismatch": "sigv4.signature_mismatch",
    "clock skew": "sigv4.clock_skew",
    "bad CSR": "pki.csr_signature_invalid",
    "manifest signature broken": "manifest.signature_broken",
    "manifest header uniqueId changed": "manifest.unique_id_changed",
    "port 8883 taken": "net.port_taken",
    "data directory not writable": "server.data_directory_not_writable",
    "SoftHSM missing": "keys.softhsm_missing",
    "wrong PIN": "keys.pin_wrong",
}


@pytest.mark.parametrize("code", LIST.values(), ids=LIST.keys())
def test_the_code_is_one_class_with_a_cause_and_a_fix(code: str) -> None:
    (cls,) = [cls for cls in every_class() if vars(cls).get("code") == code]
    assert cls.cause
    assert cls.fix


def test_the_set_of_codes_has_the_size_of_the_list() -> None:
    assert len(set(LIST.values())) == len(LIST) == 22
