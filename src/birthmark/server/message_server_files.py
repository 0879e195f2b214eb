"""Passwords and CA certificates of message servers and outbound calls, from files of the configuration."""

from collections.abc import Mapping
from pathlib import Path

from birthmark.errors import about
from birthmark.message_routing.delivery_model import MessageServer
from birthmark.pki.certificates import CertificateInvalidError, pem_bundle
from birthmark.server.function_and_role_files import parse_one_line_secret, read_configured_file
from birthmark.server.settings import ConfigInvalidError, Settings


def servers_of(settings: Settings) -> Mapping[str, MessageServer]:
    """Return the servers that rules may send to, with their passwords. Raise `ConfigInvalidError`."""
    found: dict[str, MessageServer] = {}
    for name, one in settings.servers.items():
        password = ""
        if one.password_file is not None:
            where = f"The file {one.password_file} of servers.{name}.password_file"
            password = parse_one_line_secret(where, read_configured_file(where, one.password_file).strip())
        found[name] = MessageServer(one.url, one.user, password, cas_of(f"servers.{name}.ca", one.ca))
    return found


def cas_of(key: str, file: str | None) -> str | None:
    """Return the CA certificates of a file as PEM; None if no file is configured. Raise `ConfigInvalidError`."""
    if file is None:
        return None
    where, path = f"The file {file} of {key}", Path(file).expanduser()
    try:
        with about(path):
            return pem_bundle(path.read_bytes())
    except OSError as error:
        raise ConfigInvalidError.unreadable(where, error) from error
    except CertificateInvalidError as error:
        detail, fix = error.explain_cause().removesuffix("."), error.explain_fix().removesuffix(".")
        raise ConfigInvalidError(where=where, detail=detail, example=f". {fix}") from error
