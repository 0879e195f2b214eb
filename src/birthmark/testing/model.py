"""What the kit hands out: values that go over the input and output of a server for tests as JSON."""

from typing import Any

import msgspec


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate and its key, as PEM files of absolute paths; the key's is its owner's alone (mode 0600)."""

    certificate_file: str
    key_file: str
    not_after: str
    """When the certificate ends, ISO 8601 in UTC."""


class AzureIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """A device on record at a provisioning service, or at a hub.

    With `auth` `x509` it has `files`, with `key` the base64 of its symmetric key, and at a hub its connection string.
    `environment` is what programs read that speak Azure: names as in Microsoft's samples.
    """

    name: str
    auth: str
    at: str
    registration_id: str
    device_id: str
    provisioning_host: str
    id_scope: str
    hub_host: str
    trust_bundle: str
    files: Files | None = None
    symmetric_key: str | None = None
    connection_string: str | None = None
    environment: dict[str, str] = {}


class AwsIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """A thing with an active certificate and a policy of its own."""

    name: str
    arn: str
    certificate_arn: str
    certificate_id: str
    policy_name: str
    endpoint: str
    region: str
    trust_bundle: str
    files: Files
    environment: dict[str, str] = {}


class EstIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """A device with a certificate of the server's CA, got by EST (RFC 7030), and the user that it asked as."""

    name: str
    url: str
    username: str
    password: str
    trust_bundle: str
    files: Files
    environment: dict[str, str] = {}


class ChipFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A software chip (SoftHSM2): the environment to use it, and the certificate that its maker put on it.

    `key_file` is a reference key, which names the key in the chip; programs that use it run by `birthmark chip exec`.
    What a kind does not have is empty: ATECC608 no reference key, a generic one none of both, and no key.
    """

    name: str
    kind: str
    directory: str
    certificate_file: str
    key_file: str
    key_label: str
    maker_certificates: str
    environment: dict[str, str] = {}


Subject = AzureIdentity | AwsIdentity | EstIdentity
Row = dict[str, Any]
