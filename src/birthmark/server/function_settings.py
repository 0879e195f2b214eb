"""`[functions."ARN"]`: where functions are that the account's API names by an ARN of AWS Lambda."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from birthmark.awsiot.service.functions import Function
from birthmark.errors import UnavailableError
from birthmark.outbound.sender import UrlInvalidError, check_url
from birthmark.outbound.signing import SECRET_BEGINS
from birthmark.text import reason_of

FUNCTION_ARN = re.compile(
    r"arn:aws[a-z-]*:lambda:[a-z0-9-]{1,32}:[0-9]{12}:function:[A-Za-z0-9_-]{1,64}(:[A-Za-z0-9_$-]{1,128})?"
)
_MAX_BYTES, _LEAST_KEY_BYTES = 4096, 16


class FunctionSecretError(UnavailableError):
    """The secret by which calls of a function are signed cannot be read."""

    code = "server.function_secret_unusable"
    cause = "The file {path} of the function {arn} cannot be used: {reason}."
    fix = "Put a secret into it, and give the same to the function: `{command}`"
    for_a_person = "the function has to be given the same secret"
    arn: str
    command: str
    path: Path
    reason: str


class FunctionTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a function is."""

    url: str
    secret_file: str
    """File of the secret by which calls are signed, as those of webhooks are: `whsec_…`."""


def mistakes_of_functions(functions: Mapping[str, FunctionTable], *, allows_plain: bool) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with values that are each of the right kind: the key, and what is accepted."""
    for arn, one in functions.items():
        if FUNCTION_ARN.fullmatch(arn) is None:
            yield f"functions.{arn[:100]}", "must be the ARN of a function: arn:aws:lambda:REGION:ACCOUNT:function:NAME"
        try:
            check_url(one.url, allows_plain=allows_plain)
        except UrlInvalidError:
            yield f"functions.{arn[:100]}.url", "must be https://HOST/…; http:// is for what [outbound] allow names"


def functions_of(settings: Mapping[str, FunctionTable], *, allows_plain: bool) -> Mapping[str, Function]:
    """Return the functions, with their secrets. Raise `FunctionSecretError`."""
    return {
        arn: Function(one.url, check_url(one.url, allows_plain=allows_plain), _secret(arn, one.secret_file))
        for arn, one in settings.items()
    }


def _secret(arn: str, file: str) -> str:
    path = Path(file).expanduser()
    command = f"(umask 077; echo whsec_$(head -c 32 /dev/urandom | base64) > {path})"
    try:
        with path.open("rb") as opened:
            found = opened.read(_MAX_BYTES).decode("ascii").strip()
    except OSError as error:
        raise FunctionSecretError(arn=arn, path=path, reason=reason_of(error), command=command) from error
    except UnicodeDecodeError as error:
        raise FunctionSecretError(arn=arn, path=path, reason="it is no ASCII text", command=command) from error
    try:
        is_good = len(base64.b64decode(found.removeprefix(SECRET_BEGINS), validate=True)) >= _LEAST_KEY_BYTES
    except binascii.Error:
        is_good = False
    if not (is_good and found.startswith(SECRET_BEGINS)):
        raise FunctionSecretError(
            arn=arn, path=path, reason="it is not whsec_ and base64 of 16 bytes or more", command=command
        )
    return found
