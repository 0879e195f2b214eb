"""Names that an operator gives."""

import re

from birthmark.errors import InvalidRequestError

_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class NameInvalidError(InvalidRequestError):
    """The name cannot be used."""

    code = "operator.name_invalid"
    cause = "A name has 1 to 64 letters, digits and - . _, and begins with a letter or digit."
    fix = "Choose another name. Those in use: `birthmark dps ls`, `birthmark hub ls`"
    name: str


def parse_name(text: str) -> str:
    """Return the name of something an operator makes. Raise `NameInvalidError`."""
    if _NAME.fullmatch(text) is None:
        raise NameInvalidError(name=text[:64])
    return text
