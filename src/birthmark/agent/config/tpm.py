"""`[tpm]`: how the TPM is reached, where it keeps the key of the cloud, and the passwords of its hierarchies."""

from typing import Annotated

import msgspec

from birthmark.agent.config.reader import TEXT, Read, Table, kind_of
from birthmark.keys.tpm import MAX_KEY_INDEX, TpmSettings

_INDEX: Read[int] = kind_of(
    Annotated[int, msgspec.Meta(ge=0, le=MAX_KEY_INDEX)],
    f"must be a whole number from 0 to {MAX_KEY_INDEX:#x}",
    "`{name} = 0x100`",
)
_TAKEN = {0x000001: "storage root key", 0x010001: "endorsement key"}
_PASSWORD: Read[str] = kind_of(
    Annotated[str, msgspec.Meta(max_length=64)], "must be a text of at most 64 characters", '`{name} = "…"`'
)


def parse_tpm(table: Table) -> TpmSettings:
    """Return the settings, aziot's own where none are given."""
    passwords = table.table("hierarchy_authorization")
    usual = TpmSettings()
    index = table.take("auth_key_index", _INDEX)
    found = TpmSettings(
        table.take("tcti", TEXT) or usual.tcti,
        usual.key_index if index is None else index,
        passwords.take("endorsement", _PASSWORD) or "",
        passwords.take("owner", _PASSWORD) or "",
    )
    if index in _TAKEN:
        accepted = "Left out, it is kept where Azure's own software keeps it: `auth_key_index = 0x100`."
        table.wrong("auth_key_index", f"is where a TPM keeps its {_TAKEN[index]}", accepted)
    passwords.finish()
    table.finish()
    return found
