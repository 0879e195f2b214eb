"""Files that `[functions]`, `[roles]` and `[servers]` specify, read at server start."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from birthmark.awsiot.rules.policy import AwsPolicy, PolicyMalformedError, parse_policy
from birthmark.awsiot.service.lambda_functions import LambdaFunction
from birthmark.outbound.http_client import check_url
from birthmark.outbound.webhook_signature import SECRET_BEGINS
from birthmark.server.settings import ConfigInvalidError, Settings
from birthmark.text_file_encodings import decode_text, format_conversion_fix, not_utf_8
from birthmark.untrusted_json_and_text import check_keys_once

_MAX_BYTES, _LEAST_KEY_BYTES = 65_536, 16


def functions_of(settings: Settings) -> Mapping[str, LambdaFunction]:
    """Return the functions by ARN, with their secrets. Raise `ConfigInvalidError`."""
    allows_plain = bool(settings.outbound.allow)
    return {
        arn: LambdaFunction(one.url, check_url(one.url, allows_plain=allows_plain), _secret(arn, one.secret_file))
        for arn, one in settings.functions.items()
    }


def roles_of(settings: Settings) -> Mapping[str, AwsPolicy]:
    """Return the policy of each role by ARN. Raise `ConfigInvalidError`."""
    found: dict[str, AwsPolicy] = {}
    for arn, one in settings.roles.items():
        where = f"The file {one.policy_file} of roles.{arn}.policy_file"
        try:
            document = read_configured_file(where, one.policy_file, is_secret=False)
            check_keys_once(document, PolicyMalformedError)
            found[arn] = parse_policy(arn, document, of_iam=True)
        except PolicyMalformedError as error:
            raise ConfigInvalidError(where=where, detail=str(error)) from error
    return found


def _secret(arn: str, file: str) -> str:
    where = f"The file {file} of functions.{arn}.secret_file"
    found = read_configured_file(where, file).strip()
    try:
        is_good = len(base64.b64decode(found.removeprefix(SECRET_BEGINS), validate=True)) >= _LEAST_KEY_BYTES
    except (binascii.Error, ValueError):
        is_good = False
    if not (is_good and found.startswith(SECRET_BEGINS)):
        raise ConfigInvalidError(where=where, detail="it is not whsec_ and base64 of 16 bytes or more")
    return found


def parse_one_line_secret(name: str, text: str) -> str:
    """Return a secret of one line without control characters. Raise `ConfigInvalidError`."""
    if not text.isprintable():
        raise ConfigInvalidError(where=name, detail="it holds more than one line, or a control character")
    return text


def read_configured_file(name: str, file: str, *, is_secret: bool = True) -> str:
    """Return the text of a file. Raise `ConfigInvalidError`, which reveals nothing of a secret."""
    path, raw = Path(file).expanduser(), b""
    try:
        with path.open("rb") as opened:
            raw = opened.read(_MAX_BYTES)
        return decode_text(raw)
    except OSError as error:
        raise ConfigInvalidError.unreadable(name, error) from error
    except UnicodeDecodeError as error:
        detail = "is not UTF-8" if is_secret else not_utf_8(raw)
        refusal = ConfigInvalidError(where=name, detail=f"it {detail}")
        refusal.quote(fix=f"{format_conversion_fix(path, raw, is_secret=is_secret)}.")
        raise refusal from error
