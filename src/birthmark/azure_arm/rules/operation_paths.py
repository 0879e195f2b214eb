"""Maps a method and a path to an operation (Azure REST reference, "Microsoft.Devices").

Literal segments are case-insensitive, as at Azure; names are case-sensitive, as everywhere in Birthmark.
"""

import re
from collections.abc import Mapping
from urllib.parse import unquote

from birthmark.azure_arm.model import ArmOperation, ArmRequest, ArmResourceKind
from birthmark.errors import InvalidRequestError

_MAX_SHOWN = 200
_SUBSCRIPTION = re.compile(r"[A-Za-z0-9._-]{1,64}")
_GROUP = re.compile(r"[\w.()-]{1,90}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONSUMER_GROUP = re.compile(r"[$A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # $Default exists


class OperationNotServedError(InvalidRequestError):
    """The operation of the management interface is not supported."""

    code = "management.operation_not_served"
    message = "{method} {path} is not supported"
    cause = "This server does not support the Azure Resource Manager operation {method} {path}."
    fix = (
        "Use only operations for CA certificates, policy keys, consumer groups and hub routes, or read the services of "
        "Microsoft.Devices. To create and delete services, use the commands: `birthmark hub --help`, `birthmark dps "
        "--help`"
    )
    method: str
    path: str


class PathInvalidError(InvalidRequestError):
    """The name in the path is not valid."""

    code = "management.path_invalid"
    message = "The {what} in the path is not valid"
    cause = (
        "The {what} in the path is {name}, but can contain only letters, digits, dots, hyphens and underscores, at "
        "most {most} characters."
    )
    fix = "Use another name. To list the existing names: `birthmark hub ls`, `birthmark dps ls`, `birthmark hub ca ls`"
    most: int
    name: str
    what: str


_OF_ONE = "/subscriptions/{subscription}/resourcegroups/{group}/providers/microsoft.devices"
_OF_ALL = "/subscriptions/{subscription}/providers/microsoft.devices"
_EACH: Mapping[str, ArmOperation] = {
    "GET {one}": ArmOperation.GET_SERVICE,
    "POST {one}/listkeys": ArmOperation.LIST_KEYS,
    "GET {one}/skus": ArmOperation.LIST_SKUS,
    "GET {one}/certificates": ArmOperation.LIST_CERTIFICATES,
    "GET {one}/certificates/{name}": ArmOperation.GET_CERTIFICATE,
    "PUT {one}/certificates/{name}": ArmOperation.PUT_CERTIFICATE,
    "DELETE {one}/certificates/{name}": ArmOperation.DELETE_CERTIFICATE,
    "POST {one}/certificates/{name}/generateverificationcode": ArmOperation.NEW_CODE,
    "POST {one}/certificates/{name}/verify": ArmOperation.VERIFY,
}
_OWN: Mapping[ArmResourceKind, Mapping[str, ArmOperation]] = {
    ArmResourceKind.DPS: {
        "POST {one}/keys/{name}/listkeys": ArmOperation.GET_KEY,
        "POST {all}/checkprovisioningservicenameavailability": ArmOperation.NAME_IS_FREE,
    },
    ArmResourceKind.HUB: {
        "POST {one}/iothubkeys/{name}/listkeys": ArmOperation.GET_KEY,
        "GET {one}/iothubstats": ArmOperation.STATISTICS,
        "PUT {one}": ArmOperation.PUT_SERVICE,
        "POST {one}/routing/routes/$testnew": ArmOperation.TEST_ROUTE,
        "POST {one}/routing/routes/$testall": ArmOperation.TEST_ROUTES,
        "GET {one}/routingendpointshealth": ArmOperation.ENDPOINTS_HEALTH,
        "GET {one}/quotametrics": ArmOperation.QUOTA_METRICS,
        "GET {one}/eventhubendpoints/events/consumergroups": ArmOperation.LIST_CONSUMER_GROUPS,
        "GET {one}/eventhubendpoints/events/consumergroups/{name}": ArmOperation.GET_CONSUMER_GROUP,
        "PUT {one}/eventhubendpoints/events/consumergroups/{name}": ArmOperation.PUT_CONSUMER_GROUP,
        "DELETE {one}/eventhubendpoints/events/consumergroups/{name}": ArmOperation.DELETE_CONSUMER_GROUP,
        "POST {all}/checknameavailability": ArmOperation.NAME_IS_FREE,
    },
}


def _pattern_of(template: str, kind: ArmResourceKind) -> re.Pattern[str]:
    """Return the pattern for the method and the raw path of an operation."""
    of_kind = kind.segment.lower()
    told = template.replace("{one}", f"{_OF_ONE}/{of_kind}/{{service}}").replace("{all}", _OF_ALL)
    parts = re.split(r"\{(\w+)\}", told)
    text = "".join(f"(?P<{part}>[^/]+)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    return re.compile(text, re.IGNORECASE)


_LISTS = {f"GET {at}/{{of_kind}}": ArmOperation.LIST_SERVICES for at in (_OF_ONE, _OF_ALL)}
_TABLE = [
    (_pattern_of(template.replace("{of_kind}", kind.segment.lower()), kind), kind, operation)
    for kind in ArmResourceKind
    for template, operation in {**_LISTS, **_EACH, **_OWN[kind]}.items()
]


def call_of(method: str, raw_path: str) -> ArmRequest:
    """Parse a request line into an operation. Raise `OperationNotServedError`, `PathInvalidError`.

    `raw_path` is percent-encoded, so that an encoded slash in a name does not split the path.
    """
    for pattern, kind, operation in _TABLE:
        if (found := pattern.fullmatch(f"{method} {raw_path}")) is not None:
            names = {name: unquote(value) for name, value in found.groupdict().items()}
            return _checked(ArmRequest(operation, kind, names["subscription"], names.get("group"), **_rest(names)))
    raise OperationNotServedError(method=method, path=unquote(raw_path)[:_MAX_SHOWN])


def _rest(names: Mapping[str, str]) -> Mapping[str, str]:
    return {name: names[name] for name in ("service", "name") if name in names}


def _checked(request: ArmRequest) -> ArmRequest:
    of_group = request.operation.value[0].endswith(("consumer_group", "consumer_groups"))
    asked = (
        ("subscription", request.subscription, _SUBSCRIPTION, 64),
        ("resource group", request.group, _GROUP, 90),
        ("name of a service", request.service or None, _NAME, 64),
        ("name", request.name or None, _CONSUMER_GROUP if of_group else _NAME, 64),
    )
    for what, name, pattern, most in asked:
        if name is not None and pattern.fullmatch(name) is None:
            raise PathInvalidError(what=what, name=ascii(name[:_MAX_SHOWN]), most=most)
    return request
