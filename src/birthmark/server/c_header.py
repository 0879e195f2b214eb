"""How to reach this server, as a C header for devices that have neither shell nor files.

In:   `endpoints.json`, the roots to trust, and the device's registration id where the header is for one device.
Out:  macros and one array; topics of one device are printf formats, as firmware is the same for all.
"""

from collections.abc import Mapping
from typing import Any

_MQTT_PORT = 8883
_PLAIN = frozenset(range(0x20, 0x7F)) - set(b'"\\')


def as_c_header(endpoints: Mapping[str, Any], roots: str, registration_id: str | None = None) -> str:
    """Return the header; what this server does not serve is left out."""
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
    """Return a C string: what might end it, or make a trigraph, in octal."""
    text = "".join(chr(byte) if byte in _PLAIN else rf"\{byte:03o}" for byte in value.encode())
    return '"' + text.replace("??", r"?\077").replace(r"\012", r"\n") + '"'
