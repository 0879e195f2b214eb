"""What the `az iot` command line says otherwise than the SDKs, as it was seen on the wire (azure-iot 0.25.0)."""

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.credentials import Operator

pytestmark = pytest.mark.system
AS_PYTHON_SHOWS_IT = "{'additional_properties': {}, 'query': 'SELECT *'}"


@pytest.fixture
def operator(cloud: Cloud) -> Operator:
    return Operator(cloud)


@pytest.mark.parametrize("place", ["enrollments", "enrollmentGroups"])
def test_it_lists_enrollments_by_a_query_that_is_the_text_of_an_object(operator: Operator, place: str) -> None:
    attestation = {"type": "symmetricKey"}
    for number in range(3):
        name = f"az-{place.lower()}-{number}"
        said = {"registrationId": name} if place == "enrollments" else {"enrollmentGroupId": name}
        assert operator.dps("PUT", f"/{place}/{name}", said | {"attestation": attestation})[0] == 200
    status, found = operator.dps("POST", f"/{place}/query", {"query": AS_PYTHON_SHOWS_IT})
    every = [one.get("registrationId") or one.get("enrollmentGroupId") for one in found]
    assert (status, {f"az-{place.lower()}-{number}" for number in range(3)} <= set(every)) == (200, True)
    assert operator.dps("POST", f"/{place}/query", {"query": "SELECT *"}) == (status, found)


@pytest.mark.parametrize(
    "text", ["{'additional_properties': {}, 'query': 'SELECT etag'}", "{'query': 'SELECT *'}", AS_PYTHON_SHOWS_IT + " "]
)
def test_no_other_text_is_taken_for_one(operator: Operator, text: str) -> None:
    assert operator.dps("POST", "/enrollments/query", {"query": text})[0] == 400


def test_it_calls_a_method_with_its_seconds_in_quotes(cloud: Cloud, operator: Operator) -> None:
    cloud.azure_device("az-method", at="hub")
    call = {"methodName": "look", "payload": {}, "connectTimeoutInSeconds": "0"}
    for said, expected in (("10", 404), ("4", 400), ("ten", 400), ("", 400), (None, 400)):
        status, _ = operator.hub("POST", "/twins/az-method/methods", call | {"responseTimeoutInSeconds": said})
        assert (said, status) == (said, expected)


def test_a_twin_is_patched_by_post_only_if_the_header_says_so(cloud: Cloud, operator: Operator) -> None:
    """Java's HTTP client has no PATCH: its service SDK sends POST with this header."""
    cloud.azure_device("az-post", at="hub")
    patch = {"tags": {"site": "7"}}
    assert operator.hub("POST", "/twins/az-post", patch)[0] == 501
    status, told = operator.hub("POST", "/twins/az-post", patch, **{"X-HTTP-Method-Override": "PATCH"})
    assert (status, told["tags"]) == (200, {"site": "7"})
