from birthmark import errors
from birthmark.awsiot.error_mapping import HTTP, http_error
from birthmark.pki.path_validation import CertificateExpiredError


def test_a_refusal_from_below_has_the_answer_of_its_kind() -> None:
    expired = CertificateExpiredError(subject="CN=a", not_after="then", now="now")
    assert http_error(expired) == (
        403,
        "ForbiddenException",
    )


def test_only_what_passes_by_itself_is_retried_by_the_cli() -> None:
    retried = {kind for kind, (status, name) in HTTP.items() if status in {500, 502, 503, 504} or "Throttling" in name}
    assert retried == {errors.UnavailableError, errors.ThrottledError}
