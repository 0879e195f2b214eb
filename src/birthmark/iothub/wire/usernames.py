"""CONNECT user names of IoT Hub.

The documented form is `HOST/DEVICE[/MODULE]/?api-version=…`. Until 2018 it had no `?`, and the first SDKs put a slash
between the parameters: `HOST/DEVICE/api-version=…/DeviceClientType=…`. A module whose id begins like a parameter
connects with the documented form.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from birthmark.errors import InvalidRequestError
from birthmark.iothub.model import DeviceId, name_of, parse_name

_MAX_MODEL_ID = 256
_PARAMETER = r"(?:api-version|DeviceClientType)="
_TODAY = re.compile(r"([^/]+/[^/]+(?:/[^/&]+)?)/\?(.*)", re.DOTALL)
_BEFORE = re.compile(rf"([^/]+/[^/]+(?:/(?!{_PARAMETER})[^/]+)?)/({_PARAMETER}.*)", re.DOTALL)
_BETWEEN = re.compile(rf"&|/(?={_PARAMETER})")


class UserNameError(InvalidRequestError):
    """The MQTT user name is not one of IoT Hub."""

    code = "iothub.username_invalid"
    cause = "The MQTT user name {username} does not have the form HOST/DEVICE/?api-version=VERSION."
    fix = (
        "Set the user name to HOST/DEVICE/?api-version=2021-04-12, with a slash before the question mark, as the Azure "
        "SDKs do. List devices: `birthmark hub device ls`"
    )
    username: str


@dataclass(frozen=True, slots=True)
class HubUser:
    """A parsed CONNECT user name."""

    host: str
    device_id: DeviceId
    module_id: str | None
    agent: str
    model_id: str = ""

    @property
    def name(self) -> str:
        return name_of(self.device_id, self.module_id)


def is_hub_username(username: str) -> bool:
    """Return whether the user name has IoT Hub's form; DPS and AWS use others."""
    head, query = _split(username)
    return (
        bool(head)
        and head.count("/") in {1, 2}
        and "/registrations/" not in username
        and (query is not None or "?" not in head or _lacks_slash(head))
    )


def parse_username(username: str) -> HubUser:
    """Return host, device and module. Raise `UserNameError` or `DeviceIdInvalidError`."""
    head, query = _split(username)
    parts = head.split("/")
    if len(parts) not in {2, 3} or not parts[0] or (query is None and _lacks_slash(head)):
        raise UserNameError(username=username[:200])
    fields = dict(part.partition("=")[::2] for part in _BETWEEN.split(query or ""))
    device_id, module_id = parse_name("/".join(parts[1:]))
    model_id = unquote(fields.get("model-id", ""))
    if len(model_id) > _MAX_MODEL_ID or not all(" " < one <= "~" for one in model_id):
        raise UserNameError(username=username[:200])
    return HubUser(parts[0].lower(), device_id, module_id, unquote(fields.get("DeviceClientType", "")), model_id)


def _split(username: str) -> tuple[str, str | None]:
    """Return the identity part and the parameters, if there are any."""
    found = _TODAY.fullmatch(username) or _BEFORE.fullmatch(username)
    return (username.rstrip("/"), None) if found is None else (found[1], found[2])


def _lacks_slash(head: str) -> bool:
    return "?api-version=" in head


def render_username(host: str, name: str, agent: str) -> str:
    """Return the CONNECT user name of a device or module, without percent-encoding."""
    return f"{host}/{name}/?api-version=2021-04-12&DeviceClientType={quote(agent, safe='')}"
