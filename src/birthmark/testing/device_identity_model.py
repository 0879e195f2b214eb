"""Results of the kit: values that a test server exchanges as JSON on its input and output."""

from typing import Any

import msgspec


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate and its key, as PEM files with absolute paths; the key file has mode 0600."""

    certificate_file: str
    key_file: str
    not_after: str
    """Expiry of the certificate, ISO 8601 in UTC."""


class AzureIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """A device at a provisioning service, or at a hub.

    With `auth` `x509` it has `files`, with `key` the base64 of its symmetric key, and at a hub its connection string.
    `environment` has variables for Azure programs, with the names of Microsoft's samples.
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
    """A thing with an active certificate and a separate policy."""

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
    """A device with a certificate of the server's CA, issued over EST (RFC 7030), and its EST user."""

    name: str
    url: str
    username: str
    password: str
    trust_bundle: str
    files: Files
    environment: dict[str, str] = {}


class ChipFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A simulated secure element (SoftHSM2): the environment to use it, and the manufacturer's certificate.

    `key_file` is a reference key for the key in the secure element; programs that use it run under `birthmark chip
    exec`. Missing items are empty: ATECC608 has no reference key, and a generic one has no files and no key.
    """

    name: str
    kind: str
    directory: str
    certificate_file: str
    key_file: str
    key_label: str
    manufacturer_certificates: str
    environment: dict[str, str] = {}


Subject = AzureIdentity | AwsIdentity | EstIdentity
Row = dict[str, Any]
