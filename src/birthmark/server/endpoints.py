"""Endpoint descriptions of this server: `endpoints.json` and the configuration file of a device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from birthmark.auth.connection_strings import ConnectionString
from birthmark.dps.model import Instance
from birthmark.dps.service.instances import OWNER
from birthmark.iothub.model import Hub
from birthmark.server.settings import ServedCloud, Settings

_MQTT_PORT = 8883
_PLAIN = frozenset(range(0x20, 0x7F)) - set(b'"\\')


def as_c_header(endpoints: Mapping[str, Any], roots: str, registration_id: str | None = None) -> str:
    """Return the C header, without services that this server does not serve."""
    lines = [
        "/* From `birthmark env --format c`. It holds no secret; write it anew when the server's root changes. */",
        "#ifndef BIRTHMARK_H",
        "#define BIRTHMARK_H",
        "",
        _define("BIRTHMARK_MQTT_PORT", str(_MQTT_PORT)),
        _define("BIRTHMARK_REGISTRATION_ID", registration_id or ""),
    ]
    if (dps := endpoints["dps"]) is not None:
        lines += [
            "",
            "/* Device Provisioning Service: the ID scope, and the topics of registration over MQTT. */",
            _define("BIRTHMARK_DPS_HOST", dps["host"]),
            _define("BIRTHMARK_DPS_HTTPS_PORT", str(dps["https_port"])),
            _define("BIRTHMARK_ID_SCOPE", dps["id_scope"]),
            _define("BIRTHMARK_DPS_USERNAME_FORMAT", dps["id_scope"] + "/registrations/%s/api-version=2019-03-31"),
            _define("BIRTHMARK_DPS_ANSWERS_TOPIC", "$dps/registrations/res/#"),
            _define("BIRTHMARK_DPS_REGISTER_TOPIC", "$dps/registrations/PUT/iotdps-register/?$rid=1"),
            _define(
                "BIRTHMARK_DPS_STATUS_TOPIC_FORMAT",
                "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=%s",
            ),
        ]
    if (hub := endpoints["iothub"]) is not None:
        lines += [
            "",
            "/* IoT Hub: the registration says which; this is the server's own. */",
            _define("BIRTHMARK_HUB_HOST", hub["host"]),
            _define("BIRTHMARK_HUB_USERNAME_FORMAT", "%s/%s/?api-version=2021-04-12"),
            _define("BIRTHMARK_EVENTS_TOPIC_FORMAT", "devices/%s/messages/events/"),
            _define("BIRTHMARK_COMMANDS_TOPIC_FORMAT", "devices/%s/messages/devicebound/#"),
        ]
    if (aws := endpoints["aws"]) is not None:
        lines += [
            "",
            "/* AWS IoT Core: the data endpoint, MQTT with the same certificate. */",
            _define("BIRTHMARK_AWS_ENDPOINT", aws["data_endpoint"]),
            _define("BIRTHMARK_AWS_REGION", aws["region"]),
        ]
    lines += [
        "",
        "/* Whom to trust. */",
        "static const char BIRTHMARK_ROOT_CA[] =",
        *(f"    {_text(line + chr(10))}" for line in roots.splitlines()),
        "    ;",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _define(name: str, value: str) -> str:
    return f"#define {name} {_text(value)}"


def _text(value: str) -> str:
    """Return a C string literal; characters that could end it or form a trigraph are octal escapes."""
    text = "".join(chr(byte) if byte in _PLAIN else rf"\{byte:03o}" for byte in value.encode())
    return '"' + text.replace("??", r"?\077").replace(r"\012", r"\n") + '"'


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
    """Return the content of `endpoints.json`: paths are absolute, and services that are not served are null."""
    host, data, est_port = settings.host_name, settings.directory.resolve(), settings.bound.est or https_port

    def at(name: str) -> str:
        return name if https_port == _STANDARD else f"{name}:{https_port}"

    parts: dict[ServedCloud, dict[str, Any]] = {
        ServedCloud.EST: {
            "url": f"https://{host if est_port == _STANDARD else f'{host}:{est_port}'}/.well-known/est",
            "username": None if est_password is None else settings.est.user,
            "password": est_password,
        },
        ServedCloud.DPS: {
            "host": instance.host,
            "https_port": https_port,
            "id_scope": instance.id_scope,
            "service_connection_string": ConnectionString(at(host), OWNER, instance.policies[OWNER][0]).render(),
        },
        ServedCloud.IOTHUB: {
            "host": hub.host,
            "https_port": https_port,
            "service_connection_string": ConnectionString(
                at(hub.host), "iothubowner", hub.policies["iothubowner"][0]
            ).render(),
        },
        ServedCloud.AWS: {
            "endpoint_url": f"https://{at(host)}",
            "data_endpoint": host,
            "region": settings.aws.region,
            "account_id": settings.aws.account_id,
            "access_key_id": aws_access_key_id,
            "secret_access_key": aws_secret_access_key,
        },
    }
    return {
        "trust_bundle": str(data / "trust.pem"),
        **{name: part if settings.serves(name) else None for name, part in parts.items()},
        "health_url": f"http://{settings.health_address}:{settings.ports.health}/healthz",
    }


_SHOWN = frozenset({"url", "host", "https_port", "id_scope", "endpoint_url", "data_endpoint", "region", "account_id"})


def redact_endpoints(endpoints: Mapping[str, Any]) -> dict[str, Any]:
    """Return the service addresses of `endpoints.json`, without credentials and local paths."""
    parts = {name: part for name, part in endpoints.items() if part is None or isinstance(part, dict)}
    return {name: part and {k: v for k, v in part.items() if k in _SHOWN} for name, part in parts.items()}


@dataclass(frozen=True, slots=True)
class DpsPlace:
    """A DPS registration target; `trust` is the CA of a private server, or None for the system's CAs."""

    endpoint: str
    id_scope: str
    trust: str | None = None

    @classmethod
    def of(cls, endpoints: Mapping[str, Any]) -> "DpsPlace | None":
        """Return the DPS target of this server, or None if it does not serve DPS."""
        if (dps := endpoints["dps"]) is None:
            return None
        at = dps["host"] if dps["https_port"] == _STANDARD else f"{dps['host']}:{dps['https_port']}"
        return cls(f"https://{at}", dps["id_scope"], endpoints["trust_bundle"])


def as_aziot(
    endpoints: Mapping[str, Any], place: DpsPlace, registration_id: str, *, username: str, password: str
) -> str:
    """Return a `config.toml` for aziot-identityd and `birthmark agent`: registration at `place`, identity from EST."""
    est = endpoints["est"]
    trust = "" if place.trust is None else f'trust_bundle_cert = "file://{place.trust}"\n'
    return f"""\
hostname = "{registration_id}"
{trust}
[provisioning]
source = "dps"
global_endpoint = "{place.endpoint}"
id_scope = "{place.id_scope}"

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
