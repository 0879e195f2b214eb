"""`[functions."ARN"]` and `[roles."ARN"]`: local replacements for AWS Lambda functions and IAM roles."""

import re
from collections.abc import Iterator, Mapping

import msgspec

from birthmark.outbound.http_client import UrlInvalidError, check_url

FUNCTION_ARN = re.compile(
    r"arn:aws[a-z-]*:lambda:[a-z0-9-]{1,32}:[0-9]{12}:function:[A-Za-z0-9_-]{1,64}(:[A-Za-z0-9_$-]{1,128})?"
)
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)


class FunctionTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The endpoint of a function."""

    url: str
    secret_file: str
    """File of the secret that signs calls, in the format of webhook secrets: `whsec_…`."""


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


def mistakes_of_roles(roles: Mapping[str, RoleTable]) -> Iterator[tuple[str, str]]:
    """Yield the keys that are not role ARNs, each with an error text."""
    for arn in roles:
        if ROLE_ARN.fullmatch(arn) is None:
            yield f"roles.{arn[:100]}", "must be the ARN of a role: arn:aws:iam::ACCOUNT:role/NAME"
