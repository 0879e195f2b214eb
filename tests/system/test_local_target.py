"""The local target by its own root, whatever the shell says about trust; and what the shell says stays for others."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.fleet.azure_target import AzureTarget
from birthmark.fleet.target_profiles import AzureProfile
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("local")) as running:
        yield running


@pytest.mark.parametrize("proxies", [{}, {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "*"}])
def test_a_local_target_trusts_its_own_root_and_a_target_beside_it_the_shell_s(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, proxies: dict[str, str]
) -> None:
    corporate = {"REQUESTS_CA_BUNDLE": "/gone/corporate.pem", "CURL_CA_BUNDLE": "/gone/corporate.pem"}
    for name, value in {**corporate, **proxies}.items():
        monkeypatch.setenv(name, value)
    text = server.environment["PROVISIONING_CONNECTION_STRING"]
    target = AzureTarget(AzureProfile(text, ca_file=Path(server.endpoints["trust_bundle"])))
    assert list(target.records()) == []
    assert {name: os.environ[name] for name in corporate} == corporate


@pytest.mark.parametrize(
    ("to", "whose", "again"),
    [
        ("azure", "Azure", "device ls --to azure --profile local"),
        ("aws", "Amazon", "device ls --to aws --profile local"),
    ],
)
def test_the_profile_cloud_never_leads_to_the_server_of_this_shell(
    server: RunningServer, to: str, whose: str, again: str
) -> None:
    refused = server.attempt("device", "ls", "--to", to, "--profile", "cloud", **server.environment)
    assert (refused.returncode, "fleet.profile_invalid" in refused.stderr) == (1, True)
    assert f"and not {whose}'s" in refused.stderr
    assert f"`birthmark {again}`" in refused.stderr
    server.run(*again.split(), **server.environment)
