"""`[functions."ARN"]` and `[roles."ARN"]`: what stands here for functions of AWS Lambda and for roles of IAM."""

import re
from collections.abc import Iterator, Mapping

import msgspec

from birthmark.outbound.sender import UrlInvalidError, check_url

FUNCTION_ARN = re.compile(
    r"arn:aws[a-z-]*:lambda:[a-z0-9-]{1,32}:[0-9]{12}:function:[A-Za-z0-9_-]{1,64}(:[A-Za-z0-9_$-]{1,128})?"
)
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)


class FunctionTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a function is."""

    url: str
    secret_file: str
    """File of the secret by which calls are signed, as those of webhooks are: `whsec_…`."""


class RoleTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a role may do."""

    policy_file: str
    """File of its policy, JSON as IAM has it."""


def mistakes_of_functions(functions: Mapping[str, FunctionTable], *, allows_plain: bool) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with values that are each of the right kind: the key, and what is accepted."""
    for arn, one in functions.items():
        if FUNCTION_ARN.fullmatch(arn) is None:
            yield f"functions.{arn[:100]}", "must be the ARN of a function: arn:aws:lambda:REGION:ACCOUNT:function:NAME"
        try:
            check_url(one.url, allows_plain=allows_plain)
        except UrlInvalidError:
            yield f"functions.{arn[:100]}.url", "must be https://HOST/…; http:// is for what [outbound] allow names"


def mistakes_of_roles(roles: Mapping[str, RoleTable]) -> Iterator[tuple[str, str]]:
    """Yield which keys name no role."""
    for arn in roles:
        if ROLE_ARN.fullmatch(arn) is None:
            yield f"roles.{arn[:100]}", "must be the ARN of a role: arn:aws:iam::ACCOUNT:role/NAME"
