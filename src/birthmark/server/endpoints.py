"""How to reach this server: `endpoints.json`, and the forms of `birthmark env`."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from birthmark.auth.connection_strings import ConnectionString
from birthmark.dps.model import Instance
from birthmark.dps.service.instances import OWNER
from birthmark.iothub.model import Hub
from birthmark.server.settings import Settings

_STANDARD = 443


def describe(
    settings: Settings,
    *,
    https_port: int,
    instance: Instance,
    hub: Hub,
    est_password: str | None,
    aws_access_key_id: str,
    aws_secret_access_key: str,
) -> dict[str, Any]:
    """Return the content of `endpoints.json`; paths are absolute."""
    host, data = settings.host_name, settings.directory.resolve()
    at = host if https_port == _STANDARD else f"{host}:{https_port}"
    hub_at = hub.host if https_port == _STANDARD else f"{hub.host}:{https_port}"
    url = f"https://{at}"
    return {
        "trust_bundle": str(data / "trust.pem"),
        "est": {
            "url": f"https://{host}:{settings.ports.est}/.well-known/est",
            "username": None if est_password is None else settings.est.user,
            "password": est_password,
        },
        "dps": {
            "host": instance.host,
            "https_port": https_port,
            "id_scope": instance.id_scope,
            "service_connection_string": ConnectionString(at, OWNER, instance.policies[OWNER][0]).render(),
        },
        "iothub": {
            "host": hub.host,
            "https_port": https_port,
            "service_connection_string": ConnectionString(
                hub_at, "iothubowner", hub.policies["iothubowner"][0]
            ).render(),
        },
        "aws": {
            "endpoint_url": url,
            "data_endpoint": host,
            "region": settings.aws.region,
            "account_id": settings.aws.account_id,
            "access_key_id": aws_access_key_id,
            "secret_access_key": aws_secret_access_key,
        },
        "health_url": f"http://{settings.health_address}:{settings.ports.health}/healthz",
    }


def variables(endpoints: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment that the vendors' tools read."""
    aws = endpoints["aws"]
    # These replace a program's own list of roots, so they carry the system's too.
    bundle = str(Path(endpoints["trust_bundle"]).with_name("bundle.pem"))
    return {
        "PROVISIONING_HOST": endpoints["dps"]["host"],
        "PROVISIONING_IDSCOPE": endpoints["dps"]["id_scope"],
        "IOTHUB_CONNECTION_STRING": endpoints["iothub"]["service_connection_string"],
        "PROVISIONING_CONNECTION_STRING": endpoints["dps"]["service_connection_string"],
        "AWS_ENDPOINT_URL_IOT": aws["endpoint_url"],
        "AWS_ENDPOINT_URL_IOT_DATA_PLANE": aws["endpoint_url"],
        "AWS_ENDPOINT_URL_IOT_JOBS_DATA_PLANE": aws["endpoint_url"],
        "AWS_REGION": aws["region"],
        "AWS_DEFAULT_REGION": aws["region"],  # the only one that awscli 1 reads
        "AWS_ACCESS_KEY_ID": aws["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": aws["secret_access_key"],
        "AWS_CA_BUNDLE": bundle,
        "CURL_CA_BUNDLE": bundle,
        "SSL_CERT_FILE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "NODE_EXTRA_CA_CERTS": endpoints["trust_bundle"],
    }


def as_shell(endpoints: Mapping[str, Any]) -> str:
    """Return `export` lines for `eval "$(birthmark env)"`."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables(endpoints).items())


def as_aziot(endpoints: Mapping[str, Any], registration_id: str, *, username: str, password: str) -> str:
    """Return a `config.toml` for aziot-identityd and `birthmark agent`: DPS, identity by EST."""
    dps, est = endpoints["dps"], endpoints["est"]
    at = dps["host"] if dps["https_port"] == _STANDARD else f"{dps['host']}:{dps['https_port']}"
    return f"""\
hostname = "{registration_id}"
trust_bundle_cert = "file://{endpoints["trust_bundle"]}"

[provisioning]
source = "dps"
global_endpoint = "https://{at}"
id_scope = "{dps["id_scope"]}"

[provisioning.attestation]
method = "x509"
registration_id = "{registration_id}"

[provisioning.attestation.identity_cert]
method = "est"
common_name = "{registration_id}"

[provisioning.attestation.identity_cert.auto_renew]
rotate_key = true
threshold = "80%"
retry = "4%"

[cert_issuance.est]
trusted_certs = ["file://{endpoints["trust_bundle"]}"]

[cert_issuance.est.auth]
username = "{username}"
password = "{password}"

[cert_issuance.est.urls]
default = "{est["url"]}"
"""
