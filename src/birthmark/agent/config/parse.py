"""The super-config as a whole: which source, what is accepted, what is ignored with a warning, what is refused."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from birthmark.agent.config import model
from birthmark.agent.config.issuance import Issuers, parse_issued, parse_issuers
from birthmark.agent.config.locations import file_of, key_of, take_key, take_pair, token_of
from birthmark.agent.config.reader import ANY, TEXT, ConfigMissingError, MistakeError, Table, number_from, parse_toml
from birthmark.agent.files import DEVICE_ID
from birthmark.errors import BirthmarkError
from birthmark.links.urls import Target, UrlInvalidError, meant_url, parse_url
from birthmark.pki.names import parse_registration_id
from birthmark.text import reason_of

MAX_CONFIG_BYTES = 1024 * 1024
_IGNORED = (
    "agent",
    "connect",
    "listen",
    "watchdog",
    "moby_runtime",
    "image_garbage_collection",
    "allow_elevated_docker_permissions",
    "additional_info",
    "iotedge_max_requests",
    "auto_reprovisioning_mode",
    "aziot_max_requests",
    "prefer_module_identity_cache",
    "localid",
    "tpm",
)
_AZURE = "https://global.azure-devices-provisioning.net"
_OTHERS_READ = 0o044
_PASSWORD = re.compile(rb"(?m)^[ \t]*password[ \t]*=")
_MIN_CLOUD_TIMEOUT_S = 70
_LIBRARY = '`pkcs11_lib_path = "/usr/lib/softhsm/libsofthsm2.so"`, or the chip\'s own library'
_X509_ONLY = 'Use `method = "x509"`: this agent keeps identities in certificates'

# What goes on in the place of a mistake; never used, since the file is refused.
_NO_IDENTITY: model.Preloaded | model.Issued = model.Preloaded(Path(), Path())
_NO_SOURCE = model.ManualSource("", "", _NO_IDENTITY)


def read_config(file: Path) -> model.AgentConfig:
    """Read and understand a configuration file. Raise `ConfigMissingError` or one of the config errors."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_CONFIG_BYTES + 1)
            mode = os.fstat(opened.fileno()).st_mode
    except OSError as error:
        raise ConfigMissingError(file=file, reason=reason_of(error)) from error
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigMissingError(file=file, reason="it is larger than 1 MiB")
    try:
        found = parse_config(file, raw.decode())
    except UnicodeDecodeError as error:
        raise ConfigMissingError(file=file, reason="it is not UTF-8") from error
    if mode & _OTHERS_READ and (password := _PASSWORD.search(raw)) is not None:
        detail = f"stands in a file that others can read (mode {mode & 0o777:04o}): chmod 0600 {file}"
        line = raw[: password.start()].count(b"\n") + 1
        found = replace(found, warnings=(*found.warnings, model.ConfigWarning(line, "password", detail)))
    return found


def parse_config(file: Path, text: str) -> model.AgentConfig:
    """Return what the text says. Raise `ConfigInvalidError` or `ConfigUnsupportedError`, which tells all mistakes."""
    top = parse_toml(file, text)
    source = top.source
    keys = _token_settings(top.table("aziot_keys"))
    issuers = parse_issuers(top.table("cert_issuance"))
    preloaded_keys = _preloaded_keys(top.table("preloaded_keys"))
    for name, least in (("cloud_timeout_sec", _MIN_CLOUD_TIMEOUT_S), ("cloud_retries", 0)):
        top.take(name, number_from(least))  # known, and of no effect yet
    _check_edge_ca(top.table("edge_ca"), issuers)
    config = model.AgentConfig(
        file=file,
        hostname=top.take("hostname", TEXT),
        source=_source(top, issuers),
        keys=keys,
        preloaded_keys=preloaded_keys,
        preloaded_certs=_preloaded_certs(top.table("preloaded_certs")),
        trust_bundle=top.take("trust_bundle_cert", file_of),
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )
    if keys is None and source.token_keys and not source.has_mistakes("aziot_keys"):
        table, name = source.token_keys[0]
        detail = "is a key in a token, and [aziot_keys] names no library for it"
        table.wrong(name, detail, f"Under `[aziot_keys]`: {_LIBRARY}")
    for ignored in _IGNORED:
        if ignored in top:
            top.warn(ignored, "is accepted and has no effect here")
    top.finish()
    source.check()
    return replace(config, warnings=tuple(source.warnings))


def _source(top: Table, issuers: Issuers) -> model.DpsSource | model.ManualSource:
    parent = top.take("parent_hostname", TEXT) or top.take("local_gateway_hostname", TEXT)
    table = top.need_table("provisioning")
    found: model.DpsSource | model.ManualSource = _NO_SOURCE
    match table.need("source", '"dps" or "manual"'):
        case "dps":
            if parent is not None:
                top.wrong("parent_hostname", "cannot stand beside source dps", "Remove it")
            found = _dps(table, issuers)
        case "manual":
            if parent is not None:
                top.unsupported("parent_hostname", "a parent device", "Remove it: connect to the hub itself")
            found = _manual(table, issuers)
        case "none":
            table.unsupported("source", 'source "none"', '`source = "dps"` or `source = "manual"`')
        case _:
            table.wrong("source", "is not known", '`source = "dps"` or `source = "manual"`')
    table.finish()
    return found


def _dps(table: Table, issuers: Issuers) -> model.DpsSource:
    target = _target(table, table.need("global_endpoint", f'"{_AZURE}"'))
    scope = table.need("id_scope", '"0ne00ABCDEF"')
    if table.take("payload", ANY) is not None:
        table.warn("payload", "is accepted and not sent")
    attestation = table.need_table("attestation")
    registration_id = attestation.take("registration_id", _registration_id_of)
    name = "?" if registration_id is None and "registration_id" in attestation else registration_id
    identity = _identity(attestation, name, issuers, "symmetric_key", "tpm")
    return model.DpsSource(target.host, target.port, scope, registration_id, identity)


def _target(table: Table, url: str) -> Target:
    try:
        return parse_url(url)
    except UrlInvalidError:
        meant = meant_url(url)
        example = f'`global_endpoint = "{meant or _AZURE}"`' + ("" if meant else ", or your own server")
        table.wrong("global_endpoint", "must be an https URL", example)
        return parse_url(_AZURE)


def _manual(table: Table, issuers: Issuers) -> model.ManualSource:
    if table.take("connection_string", ANY) is not None:
        table.unsupported("connection_string", "a connection string", _X509_ONLY)
        return _NO_SOURCE
    hub = table.need("iothub_hostname", '"my-hub.azure-devices.net"')
    device_id = table.need("device_id", '"my-device"')
    identity = _identity(table.need_table("authentication"), device_id, issuers, "sas")
    return model.ManualSource(hub, device_id, identity)


def _identity(
    table: Table, registration_id: str | None, issuers: Issuers, *unsupported: str
) -> model.Preloaded | model.Issued:
    """Return the identity in `table` (`attestation` or `authentication`); aziot's `unsupported` methods have none."""
    method = table.need("method", '"x509"')
    if method in unsupported:
        table.unsupported("method", f'{table.path[-1]} "{method}"', _X509_ONLY)
        return _NO_IDENTITY
    if method != "x509":
        table.wrong("method", "is not known", '`method = "x509"`')
    found = _issued_or_preloaded(table, registration_id, issuers)
    table.finish()
    return found


def _issued_or_preloaded(table: Table, registration_id: str | None, issuers: Issuers) -> model.Preloaded | model.Issued:
    if isinstance(table.take("identity_cert", ANY), dict):
        if table.take("identity_pk", ANY) is not None:
            table.warn("identity_pk", "is ignored: the certificate is issued, and its key is made here")
        return parse_issued(table.table("identity_cert"), registration_id, issuers, DEVICE_ID)
    if "identity_cert" not in table:
        accepted = '`identity_cert = { method = "est" }`, or `identity_cert = "file:///device.pem"` with identity_pk'
        table.wrong("identity_cert", "is missing", accepted)
    example = '`identity_pk = "file:///device.key"`, or a pkcs11: URI'
    return take_pair(table, "identity_cert", "identity_pk", "is missing", example) or model.Preloaded(Path(), Path())


def _registration_id_of(value: object) -> str:
    """Return the registration id as written. DPS compares it without regard to case."""
    text = TEXT(value)
    try:
        parse_registration_id(text)
    except BirthmarkError as error:
        accepted = "At most 128 letters, digits and - . _ :, ending with a letter, a digit or -"
        raise MistakeError("is not a registration id", accepted) from error
    return text


def _token_settings(table: Table) -> model.TokenSettings | None:
    module, base = table.take("pkcs11_lib_path", TEXT), take_key(table, "pkcs11_base_slot", token_of)
    table.finish()
    if module is None and base is not None:
        table.wrong("pkcs11_lib_path", "is missing", _LIBRARY)
    return None if module is None else model.TokenSettings(Path(module), base)


def _preloaded_keys(table: Table) -> Mapping[str, model.KeyLocation]:
    found = {name: take_key(table, name, key_of) for name in table.names}
    return {name: location for name, location in found.items() if location is not None}


def _preloaded_certs(table: Table) -> Mapping[str, tuple[Path, ...]]:
    """Return files by id; a list names other ids, lists do not nest, and missing members are left out."""
    lists = {name: found for name in table.names if isinstance(found := table.take(name, ANY), list)}
    files = {name: table.take(name, file_of) for name in table.names if name not in lists}
    single = {name: (path,) for name, path in files.items() if path is not None}
    named = {
        name: tuple(path for one in members if isinstance(one, str) for path in single.get(one, ()))
        for name, members in lists.items()
    }
    return single | named


def _check_edge_ca(table: Table, issuers: Issuers) -> None:
    """Read `[edge_ca]`, which the agent does not act on, for its mistakes."""
    if "method" in table and "cert" not in table:
        has_name = "common_name" in table or "subject" in table
        parse_issued(table, None if has_name else "aziot-edge CA", issuers, "aziot-edged-ca")
        return
    if "cert" in table:
        take_pair(table, "cert", "pk")
    else:
        table.take("auto_generated_edge_ca_expiry_days", number_from(1))
        table.take("auto_renew", ANY)
    table.finish()
