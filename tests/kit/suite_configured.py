"""The cloud's server is configured by a fixture of the tests' own, also after a reset."""

import pytest

ENDPOINT = ("hub", "endpoint", "create", "backend", "--webhook", "http://127.0.0.1:9/in")


@pytest.fixture(scope="session")
def birthmark_config():
    return '[outbound]\nallow = ["127.0.0.1/32"]\n'


@pytest.mark.parametrize("number", range(2))
def test_what_is_inside_may_be_called(birthmark_cloud, number):
    birthmark_cloud.birthmark(*ENDPOINT)
