"""Telemetry: property bags, and the message of an MQTT publish."""

from urllib.parse import quote, unquote

from birthmark.errors import InvalidRequestError
from birthmark.iothub.model import SenderAuthentication, TelemetryMessage

MAX_PROPERTIES = 64

# Wire name in a property bag -> name for readers of telemetry.
SYSTEM_PROPERTIES = {
    "$.mid": "message-id",
    "$.cid": "correlation-id",
    "$.uid": "user-id",
    "$.ct": "content-type",
    "$.ce": "content-encoding",
    "$.on": "iothub-outputname",
    "$.exp": "absolute-expiry-time",
    "$.ifid": "iothub-interface-id",
    "$.sub": "dt-subject",
}


MODULE = "iothub-connection-module-id"
"""Property by which the hub names the module that sent a message."""


class PropertyBagError(InvalidRequestError):
    """The message properties are not valid."""

    code = "iothub.property_bag_invalid"
    cause = "The properties in the topic cannot be decoded: {detail}."
    fix = (
        "Percent-encode the property names and values, and send at most 64 properties. To send a message without "
        'properties: `birthmark device send hello --hub "$PROVISIONING_HOST"`'
    )
    detail: str


def parse_property_bag(text: str) -> dict[str, str | None]:
    """Return decoded names and values of `a=1&b=2`; a name alone has the value None. Raise `PropertyBagError`.

    A slash in a value is encoded; a trailing slash belongs to the topic, as Node's SDK appends one for module outputs.
    """
    if not (text := text.removesuffix("/")):
        return {}
    pairs = text.split("&")
    if len(pairs) > MAX_PROPERTIES:
        raise PropertyBagError(detail=f"more than {MAX_PROPERTIES}")
    bag: dict[str, str | None] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if name:
            bag[unquote(name)] = unquote(value) if equals else None
    return bag


def render_property_bag(bag: dict[str, str | None]) -> str:
    """Return a property bag as text; the inverse of `parse_property_bag`."""
    return "&".join(
        quote(name, safe="") if value is None else f"{quote(name, safe='')}={quote(value, safe='')}"
        for name, value in bag.items()
    )


def auth_method_json(message: TelemetryMessage) -> str:
    """Return how a message's sender authenticated, as the hub's system property `connectionAuthMethod` states it."""
    scope = "hub" if message.auth_method == "hub" else "module" if MODULE in message.system else "device"
    kind = "sas" if message.auth_method == "hub" else message.auth_method
    return f'{{"scope":"{scope}","type":"{kind}","issuer":"iothub","acceptingIpFilterRule":null}}'


def message_of(
    name: str,
    bag: dict[str, str | None],
    payload: bytes,
    enqueued_micros: int,
    authentication: SenderAuthentication = SenderAuthentication(),  # noqa: B008 (a constant)
) -> TelemetryMessage:
    """Return a message of a device or module, with system and application properties separated.

    Properties that only a hub may set are dropped. A module's message belongs to its device and names the module.
    """
    device_id, slash, module_id = name.partition("/")
    system = {SYSTEM_PROPERTIES[key]: value for key, value in bag.items() if key in SYSTEM_PROPERTIES}
    if slash:
        system[MODULE] = module_id
    custom = {key: value for key, value in bag.items() if not key.startswith("$.")}
    return TelemetryMessage(device_id, enqueued_micros, payload, system, custom, *authentication)
