"""Profiles of enrollment targets. `local` is a Birthmark server, `cloud` the vendor's own credential chain.

Named profiles are tables in ~/.config/birthmark/profiles.toml:

    [factory.azure]
    connection_string_file = "/run/secrets/dps"     # 0600
    hub_connection_string_file = "/run/secrets/hub"   # for the connection status
    ca_file = "/etc/ssl/certs/ca-certificates.crt"

    [other.azure]                                    # key by the signed-in user (`az login`, …)
    service = "my-dps"
    resource_group = "factory"
    subscription = "00000000-0000-0000-0000-000000000000"   # default: AZURE_SUBSCRIPTION_ID

    [factory.aws]
    endpoint_url = "https://…"                       # default: Amazon's own
    region = "eu-central-1"
    profile = "factory"                              # of the AWS configuration
"""

import os
import shlex
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from birthmark.auth.connection_strings import ConnectionStringError, parse_connection_string
from birthmark.fleet.errors import ProfileError
from birthmark.operator_api.client.server_discovery_and_api_client import endpoints_for, get_service
from birthmark.pki.certificates import MAX_BUNDLE_BYTES, CertificateInvalidError, pem_bundle
from birthmark.text_file_encodings import format_conversion_fix, not_utf_8, read_text_file
from birthmark.toml_validation import parse
from birthmark.untrusted_json_and_text import reason_of

_FILE = "~/.config/birthmark/profiles.toml"
_OTHERS = 0o077
_LASTING: list[Any] = []
"""Temporary files, deleted when this process ends."""
_AZURE_STRING, _AWS_URL = "PROVISIONING_CONNECTION_STRING", "AWS_ENDPOINT_URL_IOT"
_HUB_STRING = "IOTHUB_CONNECTION_STRING"
_NOT_OURS = "{} is that of a Birthmark server, as `birthmark env` sets it, and not {}'s"
_FROM_THE_PORTAL = "Azure's own is in the portal, *Shared access policies*: set that first. "
_UNSET = "For Amazon's endpoint, use a new shell without `birthmark env`. "
_KEYS = {
    "azure": {
        *("connection_string_file", "hub_connection_string_file", "ca_file"),
        *("service", "resource_group", "subscription", "policy", "management_url"),
    },
    "aws": {"endpoint_url", "region", "profile", "ca_file"},
}


@dataclass(frozen=True, slots=True)
class AzureProfile:
    """Profile of a provisioning service."""

    connection_string: str = field(repr=False)
    ca_file: Path | None = None
    scope: str | None = None
    """The ID scope, if known without a request."""
    hub_connection_string: str | None = field(default=None, repr=False)
    """Connection string of the hub that devices are assigned to, for the connection status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsProfile:
    """An AWS account's IoT control plane. Without an access key, the SDK's own credential chain is used."""

    endpoint_url: str | None = None
    region: str | None = None
    ca_file: Path | None = None
    is_local: bool = False
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    sdk_profile: str | None = None
    account: str | None = None
    """The account of the records, if known without a request."""
    name: str = "cloud"
    """Name of the profile."""


def azure_profile(name: str, data: Path) -> AzureProfile:
    """Return the profile of that name for Azure. Raise `ProfileError`."""
    if name == "local":
        endpoints = endpoints_for(data)
        dps = get_service(endpoints, "dps", data)
        hub = (endpoints["iothub"] or {}).get("service_connection_string")
        return AzureProfile(dps["service_connection_string"], Path(endpoints["trust_bundle"]), dps["id_scope"], hub)
    if name == "cloud":
        if not (text := os.environ.get(_AZURE_STRING)):
            raise ProfileError(profile=name, detail=f"{_AZURE_STRING} is not set", mend=_FROM_THE_PORTAL)
        _check_azures_own(text)
        return AzureProfile(text, hub_connection_string=os.environ.get(_HUB_STRING))
    table = _named(name, "azure")
    if table.get("service"):
        return _signed_in(name, table)
    if not table.get("connection_string_file"):
        raise ProfileError(profile=name, detail=f"[{name}.azure] has no connection_string_file")
    path = Path(str(table["connection_string_file"])).expanduser()
    return AzureProfile(_secret(name, path), _ca_file(name, table), hub_connection_string=_hub(name, table))


def hub_profile(name: str) -> tuple[str, Path | None]:
    """Return a hub's connection string and CA file, by the profile of that name. Raise `ProfileError`."""
    if name == "cloud":
        if not (text := os.environ.get(_HUB_STRING)):
            raise ProfileError(profile=name, detail=f"{_HUB_STRING} is not set", mend=_FROM_THE_PORTAL)
        _check_azures_own(text, _HUB_STRING)
        return text, None
    table = _named(name, "azure")
    if (text := _hub(name, table) or "") == "":
        raise ProfileError(profile=name, detail=f"[{name}.azure] has no hub_connection_string_file")
    return text, _ca_file(name, table)


def _host_of_server() -> str | None:
    """Return the host of the environment's Birthmark server, where devices and operators use the same host."""
    return os.environ.get("PROVISIONING_HOST", "").partition(":")[0].lower() or None


def _check_azures_own(connection_string: str, variable: str = _AZURE_STRING) -> None:
    """Raise `ProfileError` for a Birthmark server's connection string.

    At Azure, devices and operators use different hosts.
    """
    with suppress(ConnectionStringError):  # reported on use
        if parse_connection_string(connection_string).host.lower() != _host_of_server():
            return
        detail = _NOT_OURS.format(variable, "Azure")
        raise ProfileError(profile="cloud", detail=detail, mend=_FROM_THE_PORTAL)


def _signed_in(name: str, table: Mapping[str, Any]) -> AzureProfile:
    """Return the profile of a service whose key is obtained by the signed-in user."""
    from birthmark.fleet.azure_connection_string_lookup import POLICY, AzureAccount, connect

    subscription = table.get("subscription") or os.environ.get("AZURE_SUBSCRIPTION_ID")
    if not (subscription and table.get("resource_group")):
        missing = "subscription (or AZURE_SUBSCRIPTION_ID)" if table.get("resource_group") else "resource_group"
        raise ProfileError(profile=name, detail=f"[{name}.azure] has a service but no {missing}")
    where = str(table["service"]), str(table["resource_group"]), str(subscription)
    account = AzureAccount(*where, str(table.get("policy", POLICY)), table.get("management_url"))
    connection_string, scope = connect(account)
    return AzureProfile(connection_string, _ca_file(name, table), scope, _hub(name, table))


def _hub(name: str, table: Mapping[str, Any]) -> str | None:
    path = table.get("hub_connection_string_file")
    return None if path is None else _secret(name, Path(str(path)).expanduser())


def aws_profile(name: str, data: Path) -> AwsProfile:
    """Return the profile of that name for AWS. Raise `ProfileError`."""
    if name == "local":
        endpoints = endpoints_for(data)
        aws = get_service(endpoints, "aws", data)
        return AwsProfile(
            endpoint_url=aws["endpoint_url"],
            region=aws["region"],
            ca_file=Path(endpoints["trust_bundle"]),
            is_local=True,
            access_key_id=aws["access_key_id"],
            secret_access_key=aws["secret_access_key"],
            account=f"{aws['account_id']} of server {(endpoints['dps'] or {}).get('id_scope', data)}",
        )
    if name == "cloud":
        if (url := os.environ.get(_AWS_URL)) and urlsplit(url).hostname == _host_of_server():
            raise ProfileError(profile=name, detail=_NOT_OURS.format(_AWS_URL, "Amazon"), mend=_UNSET)
        return AwsProfile()
    table = _named(name, "aws")
    url, region, sdk_profile = table.get("endpoint_url"), table.get("region"), table.get("profile")
    return AwsProfile(
        endpoint_url=url, region=region, ca_file=_ca_file(name, table), sdk_profile=sdk_profile, name=name
    )


def named_for(cloud: str) -> str:
    """Return a text for a fix that lists the named profiles of a cloud; empty if the file cannot be read."""
    try:
        tables = _tables(Path(_FILE).expanduser())
    except FileNotFoundError:
        tables = {}
    except (OSError, ValueError):  # reported when one of them is used
        return ""
    names = sorted(name for name, clouds in tables.items() if cloud in clouds)
    return f"; defined for {cloud}: {', '.join(names)}" if names else f"; no profile is defined for {cloud}"


def _tables(path: Path) -> dict[str, dict[str, Any]]:
    return msgspec.convert(parse(read_text_file(path)), dict[str, dict[str, Any]])


def _ca_file(name: str, table: Mapping[str, Any]) -> Path | None:
    """Return the PEM file of trusted CAs: OpenSSL, to which the SDKs pass its path, reads only PEM."""
    if "ca_file" not in table:
        return None
    path = Path(table["ca_file"]).expanduser()
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BUNDLE_BYTES + 1)
        pem = pem_bundle(raw)
        return path if pem.encode() == raw else _in_pem(pem)
    except OSError as error:
        raise ProfileError(profile=name, detail=f"its ca_file {path}: {reason_of(error)}") from error
    except CertificateInvalidError as error:
        error.add_facts(path=path)
        detail = f"its ca_file {path}: {error.explain_cause().rstrip('.')}"
        raise ProfileError(profile=name, detail=detail, mend=f"{error.explain_fix()} ") from error


def _in_pem(pem: str) -> Path:
    """Write a PEM file that lasts as long as this process, because the SDKs read it when they connect."""
    file = tempfile.NamedTemporaryFile(prefix="birthmark-ca-", suffix=".pem")  # noqa: SIM115 - closed at the end
    file.write(pem.encode())
    file.flush()
    _LASTING.append(file)
    return Path(file.name)


def _named(name: str, cloud: str) -> dict[str, Any]:
    path = Path(_FILE).expanduser()
    try:
        tables = _tables(path)
    except OSError as error:
        raise ProfileError(profile=name, detail=f"{path}: {reason_of(error)}") from error
    except UnicodeDecodeError as error:
        raw = path.read_bytes()
        mend = f"{format_conversion_fix(path, raw, is_shown=False)}, under the name of the first. "
        raise ProfileError(
            profile=name, detail=f"{path} {not_utf_8(raw, is_shown=False)}", mend=mend, instead=""
        ) from error
    except ValueError as error:  # not UTF-8, not TOML, or not nested tables
        mend = f"Correct {path}, and try again. "
        raise ProfileError(profile=name, detail=f"{path}: {error}", mend=mend, instead="") from error
    table = tables.get(name, {}).get(cloud)
    if not isinstance(table, dict):
        raise ProfileError(profile=name, detail=f"{path} has no table [{name}.{cloud}]")
    if unknown := [key for key in table if key not in _KEYS[cloud]]:
        detail = f"{path} names {unknown[0]} under [{name}.{cloud}]; known are {', '.join(sorted(_KEYS[cloud]))}"
        raise ProfileError(profile=name, detail=detail)
    return table


def _secret(name: str, path: Path) -> str:
    try:
        if path.stat().st_mode & _OTHERS:
            mend = f"Close it: `chmod 0600 {shlex.quote(str(path))}`. "
            raise ProfileError(profile=name, detail=f"{path} is readable by other users", mend=mend)
        return read_text_file(path).strip()
    except OSError as error:
        raise ProfileError(profile=name, detail=f"{path}: {reason_of(error)}") from error
    except UnicodeDecodeError as error:
        mend = f"{format_conversion_fix(path, path.read_bytes(), is_shown=False)}. "
        raise ProfileError(profile=name, detail=f"{path} is not UTF-8", mend=mend) from error
