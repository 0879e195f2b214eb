"""What is sent along with a registration: a file of JSON that the configuration names."""

from pathlib import Path

import msgspec

from birthmark.agent.config.model import DpsSource
from birthmark.errors import InvalidRequestError
from birthmark.text import decode_json, reason_of
from birthmark.text_files import plain_text

_MAX_PAYLOAD_BYTES = 64 * 1024
_MAX_REASON = 200


class PayloadInvalidError(InvalidRequestError):
    """The payload of the registration cannot be sent."""

    code = "agent.payload_invalid"
    cause = "{path}, which provisioning.payload names, cannot be sent along: {reason}."
    fix = (
        "Correct the JSON there, of at most 64 KiB. To keep it aside and send nothing in particular: "
        "`mv --backup=t {path} {path}.old && echo '{{}}' > {path}`"
    )
    path: Path
    reason: str


class PayloadMissingError(PayloadInvalidError):
    """The payload of the registration cannot be read."""

    code = "agent.payload_missing"
    fix = "Put JSON of at most 64 KiB there, such as nothing in particular: `(set -C; echo '{{}}' > {path})`"


def payload_of(source: DpsSource) -> object:
    """Return what is sent along with a registration. Raise `PayloadInvalidError`."""
    if source.payload is None:
        return None
    try:
        with source.payload.open("rb") as file:
            return decode_json(plain_text(file.read(_MAX_PAYLOAD_BYTES)))
    except OSError as error:
        raise PayloadMissingError(path=source.payload, reason=reason_of(error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PayloadInvalidError(path=source.payload, reason=f"no JSON: {str(error)[:_MAX_REASON]}") from error
