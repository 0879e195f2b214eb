"""AWS Private CA signs for a server: boto3, unmodified, against moto's service."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.pki.certificates import is_signed_by, parse_bundle
from support.aws.moto_pca import PrivateCas, private_cas
from support.pki.est_curl import EstByCurl
from support.server.servers import RunningServer, a_server


@pytest.fixture(scope="module")
def cas() -> Iterator[PrivateCas]:
    with private_cas() as running:
        yield running


def config(arn: str) -> str:
    return f'only = ["est"]\n[ca.private_ca]\narn = "{arn}"\n'


@pytest.fixture
def arn(cas: PrivateCas) -> str:
    return cas.made()


@pytest.fixture
def server(cas: PrivateCas, arn: str, tmp_path: Path) -> Iterator[RunningServer]:
    with a_server(tmp_path, config(arn), environment=cas.environment) as running:
        yield running


def test_a_device_gets_its_certificate_from_it_and_renews(
    cas: PrivateCas, arn: str, server: RunningServer, tmp_path: Path
) -> None:
    told = cas.client.get_certificate_authority_certificate(CertificateAuthorityArn=arn)["Certificate"]
    (ca,) = parse_bundle(told)
    device = EstByCurl(server, tmp_path)
    leaf = device.enrolled("sensor-1")
    assert is_signed_by(leaf, ca)
    assert ca in device.cacerts()
    assert device.renewed("sensor-1").thumbprint != leaf.thumbprint
    rows = server.rows("pki", "ls", "sensor-1")
    assert len(rows) == 2


def test_who_may_have_which_name_is_decided_here(server: RunningServer, tmp_path: Path) -> None:
    device = EstByCurl(server, tmp_path)
    device.enrolled("sensor-1")
    credential = server.est_credential("sensor-1")
    assert device.status("sensor-2", f"{credential.name}:{credential.password}") == 403
    server.run("pki", "revoke", "--device", "sensor-1")
    assert device.renewal_status("sensor-1") == 403


def test_a_device_gets_no_name_beside_its_own_by_what_it_writes_in_its_request(
    server: RunningServer, tmp_path: Path
) -> None:
    device = EstByCurl(server, tmp_path)
    assert device.status("sensor-1", san="DNS:gateway.example.org") == 403
    assert server.rows("pki", "ls", "sensor-1") == []
    assert device.status("sensor-1") == 200


def test_its_cas_are_handed_out_while_it_is_away(cas: PrivateCas, arn: str, tmp_path: Path) -> None:
    with a_server(tmp_path, config(arn), environment=cas.environment) as server:
        bag = EstByCurl(server, tmp_path).cacerts()
    away = {**cas.environment, "AWS_ENDPOINT_URL_ACM_PCA": "http://127.0.0.1:9"}
    with a_server(tmp_path, config(arn), environment=away) as server:
        device = EstByCurl(server, tmp_path)
        assert device.cacerts() == bag
        assert device.status("sensor-1") == 503


def test_one_that_is_not_active_is_told_to_the_operator(cas: PrivateCas, tmp_path: Path) -> None:
    with a_server(tmp_path, config(cas.made(is_active=False)), environment=cas.environment) as server:
        assert EstByCurl(server, tmp_path).status("sensor-1") == 503
        assert server.why("sensor-1")["code"] == "ca.private_ca"
