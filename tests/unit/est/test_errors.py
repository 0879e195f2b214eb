from birthmark.est.error_mapping import status_of
from birthmark.pki.csr import CsrMalformedError
from birthmark.pki.path_validation import CertificateExpiredError


def test_a_refusal_from_below_has_the_status_of_its_kind() -> None:
    assert status_of(CertificateExpiredError(subject="CN=a", not_after="then", now="now")) == 401
    assert status_of(CsrMalformedError(detail="ValueError")) == 400
