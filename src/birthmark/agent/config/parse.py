"""The super-config as a whole: which source, what is accepted, what is ignored with a warning, what is refused."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from birthmark.agent.config.est import EstDefaults, parse_est_defaults
from birthmark.agent.config.identity import check_registration_id, parse_identity, parse_issued
from birthmark.agent.config.locations import file_of, key_of, take_file, token_of
from birthmark.agent.config.model import (
    AgentConfig,
    ConfigWarning,
    DpsSource,
    EdgeCa,
    KeyLocation,
    LocalIssuance,
    ManualSource,
    TokenLocation,
    TokenSettings,
)
from birthmark.agent.config.reader import ConfigMissingError, Table, parse_toml
from birthmark.keys.uri import SCHEME
from birthmark.links.urls import UrlInvalidError, meant_url, parse_url

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
_QUICKSTART_DAYS = 90
_X509_ONLY = 'Use `method = "x509"`: this agent keeps identities in certificates'


def read_config(file: Path) -> AgentConfig:
    """Read and understand a configuration file. Raise `ConfigMissingError` or one of the config errors."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_CONFIG_BYTES + 1)
            mode = os.fstat(opened.fileno()).st_mode
    except OSError as error:
        raise ConfigMissingError(file=file, reason=(error.strerror or "error").lower()) from error
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigMissingError(file=file, reason="it is larger than 1 MiB")
    try:
        found = parse_config(file, raw.decode())
    except UnicodeDecodeError as error:
        raise ConfigMissingError(file=file, reason="it is not UTF-8") from error
    if mode & _OTHERS_READ and (password := _PASSWORD.search(raw)) is not None:
        detail = f"stands in a file that others can read (mode {mode & 0o777:04o}): chmod 0600 {file}"
        line = raw[: password.start()].count(b"\n") + 1
        found = replace(found, warnings=(*found.warnings, ConfigWarning(line, "password", detail)))
    return found


def parse_config(file: Path, text: str) -> AgentConfig:
    """Return what the text says. Raise `ConfigInvalidError` or `ConfigUnsupportedError`."""
    source, top = parse_toml(file, text)
    keys = _token_settings(top)
    est, local_ca = _issuance(top)
    preloaded_keys = _preloaded_keys(top)
    provisioning = top.need_table("provisioning")
    where = _source(provisioning, top, est, local_ca)
    config = AgentConfig(
        file=file,
        hostname=top.take_text("hostname"),
        source=where,
        keys=keys,
        preloaded_keys=preloaded_keys,
        preloaded_certs=_preloaded_certs(top),
        trust_bundle=take_file(top, "trust_bundle_cert"),
        edge_ca=_edge_ca(top, est, local_ca),
        cloud_timeout_s=top.take_int("cloud_timeout_sec", _MIN_CLOUD_TIMEOUT_S) or _MIN_CLOUD_TIMEOUT_S,
        cloud_retries=1 if (retries := top.take_int("cloud_retries", 0)) is None else retries,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )
    if keys is None and source.token_uris:
        raise source.error(
            source.token_uris[0],
            "is a key in a token, and [aziot_keys] names no library for it",
            'Under `[aziot_keys]`: `pkcs11_lib_path = "/usr/lib/softhsm/libsofthsm2.so"`, or the chip\'s own library',
        )
    for name in _IGNORED:
        if name in top:
            top.warn(name, "is accepted and has no effect here")
    top.finish()
    return replace(config, warnings=tuple(source.warnings))


def _source(
    table: Table, top: Table, est: EstDefaults | None, local_ca: LocalIssuance | None
) -> DpsSource | ManualSource:
    kind = table.need_text("source", '"dps" or "manual"')
    parent = top.take_text("parent_hostname") or top.take_text("local_gateway_hostname")
    match kind:
        case "dps":
            if parent is not None:
                raise top.error("parent_hostname", "cannot stand beside source dps", "Remove it")
            made: DpsSource | ManualSource = _dps(table, est, local_ca)
        case "manual":
            if parent is not None:
                raise top.unsupported("parent_hostname", "a parent device", "Remove it: connect to the hub itself")
            made = _manual(table, est, local_ca)
        case "none":
            raise table.unsupported("source", 'source "none"', '`source = "dps"` or `source = "manual"`')
        case _:
            raise table.error("source", "is not known", '`source = "dps"` or `source = "manual"`')
    table.finish()
    return made


def _dps(table: Table, est: EstDefaults | None, local_ca: LocalIssuance | None) -> DpsSource:
    url = table.need_text("global_endpoint", f'"{_AZURE}"')
    try:
        target = parse_url(url)
    except UrlInvalidError as error:
        meant = meant_url(url)
        example = f'`global_endpoint = "{meant or _AZURE}"`' + ("" if meant else ", or your own server")
        raise table.error("global_endpoint", "must be an https URL", example) from error
    scope = table.need_text("id_scope", '"0ne00ABCDEF"')
    if table.take("payload") is not None:
        table.warn("payload", "is accepted and not sent")
    attestation = table.need_table("attestation")
    method = attestation.need_text("method", '"x509"')
    if method in ("symmetric_key", "tpm"):
        raise attestation.unsupported("method", f'attestation "{method}"', _X509_ONLY)
    if method != "x509":
        raise attestation.error("method", "is not known", '`method = "x509"`')
    registration_id = check_registration_id(attestation, attestation.take_text("registration_id"))
    identity = parse_identity(attestation, registration_id, est, local_ca)
    attestation.finish()
    return DpsSource(target.host, target.port, scope, registration_id, identity)


def _manual(table: Table, est: EstDefaults | None, local_ca: LocalIssuance | None) -> ManualSource:
    if table.take("connection_string") is not None:
        raise table.unsupported("connection_string", "a connection string", _X509_ONLY)
    hub = table.need_text("iothub_hostname", '"my-hub.azure-devices.net"')
    device_id = table.need_text("device_id", '"my-device"')
    authentication = table.need_table("authentication")
    method = authentication.need_text("method", '"x509"')
    if method == "sas":
        raise authentication.unsupported("method", 'authentication "sas"', _X509_ONLY)
    if method != "x509":
        raise authentication.error("method", "is not known", '`method = "x509"`')
    identity = parse_identity(authentication, device_id, est, local_ca)
    authentication.finish()
    return ManualSource(hub, device_id, identity)


def _token_settings(top: Table) -> TokenSettings | None:
    table = top.take_table("aziot_keys")
    if table is None:
        return None
    module, slot = table.take_text("pkcs11_lib_path"), table.take_text("pkcs11_base_slot")
    table.finish()
    base: TokenLocation | None = None
    if slot is not None:
        if not slot.startswith(SCHEME):
            raise table.error("pkcs11_base_slot", "must be a pkcs11: URI", '`pkcs11_base_slot = "pkcs11:token=LABEL"`')
        base = token_of(table, "pkcs11_base_slot", slot)
    if module is None:
        if base is not None:
            raise table.error(
                "pkcs11_lib_path",
                "is missing",
                '`pkcs11_lib_path = "/usr/lib/softhsm/libsofthsm2.so"`, or the chip\'s own library',
            )
        return None
    return TokenSettings(Path(module), base)


def _issuance(top: Table) -> tuple[EstDefaults | None, LocalIssuance | None]:
    table = top.take_table("cert_issuance")
    if table is None:
        return None, None
    est_table, local_table = table.take_table("est"), table.take_table("local_ca")
    est = None if est_table is None else parse_est_defaults(est_table)
    local: LocalIssuance | None = None
    if local_table is not None:
        certificate, key = local_table.take("cert"), local_table.take("pk")
        if isinstance(certificate, dict):
            raise local_table.unsupported(
                "cert", "a local CA that is itself issued", '`cert = "file:///ca.pem"` with `pk = "file:///ca.key"`'
            )
        if certificate is None or key is None:
            missing = "cert" if certificate is None else "pk"
            raise local_table.error(missing, "is missing", '`cert = "file:///ca.pem"` with `pk = "file:///ca.key"`')
        local = LocalIssuance(timedelta(0), (file_of(local_table, "cert", certificate), key_of(local_table, "pk", key)))
        local_table.finish()
    table.finish()
    return est, local


def _preloaded_keys(top: Table) -> Mapping[str, KeyLocation]:
    table = top.take_table("preloaded_keys")
    return {} if table is None else {name: key_of(table, name, table.take(name)) for name in table.names}


def _preloaded_certs(top: Table) -> Mapping[str, tuple[Path, ...]]:
    """Return files by id; a list names other ids, lists do not nest, and missing members are left out."""
    table = top.take_table("preloaded_certs")
    if table is None:
        return {}
    values = {name: table.take(name) for name in table.names}
    single = {name: (file_of(table, name, value),) for name, value in values.items() if not isinstance(value, list)}
    lists = {
        name: tuple(path for one in value if isinstance(one, str) for path in single.get(one, ()))
        for name, value in values.items()
        if isinstance(value, list)
    }
    return single | lists


def _edge_ca(top: Table, est: EstDefaults | None, local_ca: LocalIssuance | None) -> EdgeCa:
    table = top.take_table("edge_ca")
    if table is None:
        return EdgeCa("quickstart", _QUICKSTART_DAYS)
    if "cert" in table:
        file_of(table, "cert", table.take("cert"))
        key_of(table, "pk", table.take("pk"))
        made = EdgeCa("preloaded")
        table.finish()
    elif "method" in table:
        has_name = "common_name" in table or "subject" in table
        parse_issued(table, None if has_name else "aziot-edge CA", est, local_ca, "aziot-edged-ca")
        made = EdgeCa("issued")
    else:
        days = table.take_int("auto_generated_edge_ca_expiry_days", 1) or _QUICKSTART_DAYS
        table.take("auto_renew")
        table.finish()
        made = EdgeCa("quickstart", days)
    return made
