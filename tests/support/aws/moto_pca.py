"""AWS as moto serves it, Private CA and IoT: the real boto3 speaks to a process of its own."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import boto3

_REGION = "eu-central-1"
# Certificates have their ids by their DER, as at AWS, only where that is asked for; the server has no option for it.
_SERVER = """
import sys
from moto import server, settings
settings.default_user_config["iot"]["use_valid_cert"] = True
server.main(sys.argv[1:])
"""
_TEMPLATE = "arn:aws:acm-pca:::template/RootCACertificate/V1"


class PrivateCas(NamedTuple):
    """The service, and how programs find it."""

    client: Any
    environment: Mapping[str, str]

    def made(self, *, is_active: bool = True) -> str:
        """Make a root CA and return its ARN."""
        subject = {"Organization": "Example", "CommonName": "Private"}
        wanted = {"KeyAlgorithm": "RSA_2048", "SigningAlgorithm": "SHA256WITHRSA", "Subject": subject}
        arn = self.client.create_certificate_authority(
            CertificateAuthorityConfiguration=wanted, CertificateAuthorityType="ROOT"
        )["CertificateAuthorityArn"]
        if is_active:
            csr = self.client.get_certificate_authority_csr(CertificateAuthorityArn=arn)["Csr"]
            asked: dict[str, Any] = {"CertificateAuthorityArn": arn, "TemplateArn": _TEMPLATE}
            asked |= {"Csr": csr.encode(), "SigningAlgorithm": "SHA256WITHRSA"}
            own = self.client.issue_certificate(**asked, Validity={"Type": "DAYS", "Value": 3650})["CertificateArn"]
            pem = self.client.get_certificate(CertificateAuthorityArn=arn, CertificateArn=own)["Certificate"]
            self.client.import_certificate_authority_certificate(CertificateAuthorityArn=arn, Certificate=pem.encode())
        return str(arn)


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """Run moto's server on a port of loopback, and give its URL."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    command = [sys.executable, "-c", _SERVER, "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def private_cas() -> Iterator[PrivateCas]:
    """Run moto's server, and give what speaks to its CAs."""
    with moto() as url:
        environment = {
            "AWS_ENDPOINT_URL_ACM_PCA": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": _REGION,
        }
        client = boto3.client(
            "acm-pca",
            region_name=_REGION,
            endpoint_url=environment["AWS_ENDPOINT_URL_ACM_PCA"],
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        yield PrivateCas(client, environment)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "moto does not listen"
            time.sleep(0.1)
        else:
            return
