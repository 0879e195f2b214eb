"""`[functions."ARN"]` and `[roles."ARN"]`: local replacements for AWS Lambda functions and IAM roles."""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import msgspec

from birthmark.message_routing.delivery_model import PORTS
from birthmark.outbound.http_client import UrlInvalidError, check_url

FUNCTION_ARN = re.compile(
    r"arn:aws[a-z-]*:lambda:[a-z0-9-]{1,32}:[0-9]{12}:function:[A-Za-z0-9_-]{1,64}(:[A-Za-z0-9_$-]{1,128})?"
)
_SERVER = re.compile(r"[A-Za-z0-9_-]{1,64}")
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)


class FunctionTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The endpoint of a function."""

    url: str
    secret_file: str
    """File of the secret that signs calls, in the format of webhook secrets: `whsec_…`."""


class ServerTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A NATS server, or an MQTT broker, that rules may send to."""

    url: str
    user: str = ""
    password_file: str | None = None
    ca: str | None = None
    """PEM file of the CAs that issue the function's certificate. Default: the system's CAs."""


class RoleTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The permissions of a role."""

    policy_file: str
    """Policy file, in IAM's JSON format."""


def validate_functions(functions: Mapping[str, FunctionTable], *, allows_plain: bool) -> Iterator[tuple[str, str]]:
    """Yield key and accepted values for values that have the right type but are invalid."""
    for arn, one in functions.items():
        if FUNCTION_ARN.fullmatch(arn) is None:
            yield f"functions.{arn[:100]}", "must be the ARN of a function: arn:aws:lambda:REGION:ACCOUNT:function:NAME"
        try:
            check_url(one.url, allows_plain=allows_plain)
        except UrlInvalidError:
            yield (
                f"functions.{arn[:100]}.url",
                "must be https://HOST/…; http:// is only for addresses that [outbound] allow contains",
            )


def validate_servers(servers: Mapping[str, ServerTable]) -> Iterator[tuple[str, str]]:
    """Yield the problems of the servers that rules may send to."""
    for name, one in servers.items():
        if _SERVER.fullmatch(name) is None:
            yield f"servers.{name[:100]}", "must have a name of 1 to 64 letters, digits, _ and -"
        try:
            parts = urlsplit(one.url)
            is_good = parts.scheme in PORTS and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            is_good = False
        if not is_good or parts.username is not None:
            yield f"servers.{name[:100]}.url", "must be nats://HOST:PORT, tls://HOST:PORT, mqtt:// or mqtts://"


def mistakes_of_roles(roles: Mapping[str, RoleTable]) -> Iterator[tuple[str, str]]:
    """Yield the keys that are not role ARNs, each with an error text."""
    for arn in roles:
        if ROLE_ARN.fullmatch(arn) is None:
            yield f"roles.{arn[:100]}", "must be the ARN of a role: arn:aws:iam::ACCOUNT:role/NAME"
