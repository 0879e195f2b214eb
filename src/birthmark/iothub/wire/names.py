"""CONNECT user names of the hub, and whom they name."""

from dataclasses import dataclass
from urllib.parse import quote, unquote

from birthmark.errors import InvalidRequestError
from birthmark.iothub.model import DeviceId, name_of, parse_name

_MAX_MODEL_ID = 256


class UserNameError(InvalidRequestError):
    """Not an IoT Hub user name."""

    code = "iothub.username_invalid"
    cause = "The MQTT user name {username} is not HOST/DEVICE/?api-version=…"
    fix = (
        "Let the Azure SDK make it; by hand it is HOST/DEVICE/?api-version=2021-04-12. The devices of the hub: "
        "`birthmark hub device ls`"
    )
    username: str


@dataclass(frozen=True, slots=True)
class HubUser:
    """A CONNECT user name taken apart."""

    host: str
    device_id: DeviceId
    module_id: str | None
    agent: str
    model_id: str = ""

    @property
    def name(self) -> str:
        return name_of(self.device_id, self.module_id)


def is_hub_username(username: str) -> bool:
    """Say whether the user name has IoT Hub's shape; DPS and AWS have others."""
    head, mark, _ = username.partition("/?")
    return (
        bool(head)
        and head.count("/") in {1, 2}
        and "/registrations/" not in username
        and (bool(mark) or "?" not in username)
    )


def parse_username(username: str) -> HubUser:
    """Return host, device and module. Raise `UserNameError` or `DeviceIdInvalidError`."""
    head, _, query = username.partition("/?")
    parts = head.rstrip("/").split("/")
    if len(parts) not in {2, 3} or not parts[0]:
        raise UserNameError(username=username[:200])
    fields = dict(part.partition("=")[::2] for part in query.split("&"))
    device_id, module_id = parse_name("/".join(parts[1:]))
    model_id = unquote(fields.get("model-id", ""))
    if len(model_id) > _MAX_MODEL_ID or not all(" " < one <= "~" for one in model_id):
        raise UserNameError(username=username[:200])
    return HubUser(parts[0].lower(), device_id, module_id, unquote(fields.get("DeviceClientType", "")), model_id)


def render_username(host: str, name: str, agent: str) -> str:
    """Return the CONNECT user name of a device, or of a module by its name; nothing of both is percent-encoded."""
    return f"{host}/{name}/?api-version=2021-04-12&DeviceClientType={quote(agent, safe='')}"
