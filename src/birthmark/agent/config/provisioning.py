"""`[provisioning]`: the device's cloud and its credentials there."""

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from birthmark.agent.config import model
from birthmark.agent.config.certificate_issuance import Issuers, parse_issued
from birthmark.agent.config.key_and_file_uris import file_of, key_of, take_key, take_pair
from birthmark.agent.config.toml_tables import ANY, TEXT, MistakeError, Table, kind_of, text_like
from birthmark.agent.state_directory import DEVICE_ID
from birthmark.device_transports.urls import HttpTarget, UrlInvalidError, parse_url, suggest_url
from birthmark.errors import BirthmarkError
from birthmark.keys.tpm_attestation import TpmSettings
from birthmark.pki.names_and_registration_ids import parse_common_name, parse_registration_id
from birthmark.text_file_encodings import BLANKS

_AZURE = "https://global.azure-devices-provisioning.net"
_KEY = '`{name} = { value = "BASE64" }` or `{name} = { uri = "file:///path/of/a/0600/file" }`'
_STRING = '`connection_string = "HostName=HUB;DeviceId=NAME;SharedAccessKey=BASE64"`'
_OF_CERTIFICATE = (
    'Instead of it: `iothub_hostname = "HUB"`, `device_id = "NAME"`, and under `[provisioning.authentication]` '
    '`method = "x509"` with identity_cert and identity_pk'
)
_BASE64 = re.compile("[A-Za-z0-9+/]+={0,2}")
_THING = re.compile("[a-zA-Z0-9:_-]{1,128}")
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]+")
_DEVICE_ID = re.compile(r"[A-Za-z0-9\-.+%_#*?!(),:=@$']+")
_REGISTRATION_ID = re.compile("[A-Za-z0-9._:-]+")
"""Characters allowed in names; further checks happen at the point of use."""
_MAX_KEY_CHARS = 512

# Placeholder for an invalid value; never used, because the file is rejected.
_NO_IDENTITY = model.PreloadedIdentity(Path(), Path())
_NO_SOURCE = model.ManualSource("", "", _NO_IDENTITY)


def parse_source(top: Table, issuers: Issuers, tpm: TpmSettings) -> model.DpsSource | model.ManualSource:
    """Return the source in `[provisioning]`."""
    parents = {name: top.take(name, TEXT) for name in ("parent_hostname", "local_gateway_hostname")}
    named = next((name for name, parent in parents.items() if parent is not None), None)
    table = top.need_table("provisioning")
    found: model.DpsSource | model.ManualSource = _NO_SOURCE
    match table.need("source", '"dps", "manual" or "aws"'):
        case "dps":
            if named is not None:
                top.wrong(named, "cannot be combined with source dps", "Remove it")
            found = _dps(table, issuers, tpm)
        case "manual":
            found = replace(_manual(table, issuers), gateway=None if named is None else parents[named])
        case "aws":
            if named is not None:
                top.wrong(named, "cannot be combined with source aws", "Remove it")
            found = _aws(table, issuers)
        case "none":
            table.unsupported("source", 'source "none"', '`source = "dps"`, or "manual" if the hub is known')
        case _:
            table.wrong("source", "is not known", '`source = "dps"`, `source = "manual"` or `source = "aws"`')
    table.finish()
    return found


def _dps(table: Table, issuers: Issuers, tpm: TpmSettings) -> model.DpsSource:
    target = _target(table, table.need("global_endpoint", f'"{_AZURE}"'))
    scope = table.need("id_scope", '"0ne00ABCDEF"')
    payload = table.table("payload")
    sent = payload.take("uri", file_of)
    if "payload" in table and "uri" not in payload:
        payload.wrong("uri", "is missing", '`payload = { uri = "file:///path/of/a/file.json" }`')
    payload.finish()
    attestation = table.need_table("attestation")
    registration_id = attestation.take("registration_id", _registration_id_of)
    name = "?" if registration_id is None and "registration_id" in attestation else registration_id
    name = _check_common_name(attestation, "registration_id", name, attestation)
    identity = _identity(attestation, name, issuers, "symmetric_key", "symmetric_key", tpm)
    if isinstance(identity, model.SymmetricKeySource | TpmSettings) and name is None:
        attestation.wrong("registration_id", "is missing", '`registration_id = "my-device"`')
    return model.DpsSource(target.host, target.port, scope, registration_id, identity, sent)


def _target(table: Table, url: str) -> HttpTarget:
    try:
        return parse_url(url)
    except UrlInvalidError:
        meant = suggest_url(url)
        example = f'`global_endpoint = "{meant or _AZURE}"`' + ("" if meant else ", or your own server")
        table.wrong("global_endpoint", "must be an https URL", example)
        return parse_url(_AZURE)


def _manual(table: Table, issuers: Issuers) -> model.ManualSource:
    if "connection_string" in table:
        for name in ("iothub_hostname", "device_id", "authentication"):
            if table.take(name, ANY) is not None:
                table.warn(name, "is ignored because connection_string is set")
        return table.take("connection_string", _connection_string_of) or _NO_SOURCE
    hub = table.need("iothub_hostname", '"my-hub.azure-devices.net"')
    device_id = table.need("device_id", '"my-device"')
    for name, text, allowed in (("iothub_hostname", hub, _HOST), ("device_id", device_id, _DEVICE_ID)):
        if text != "?" and (odd := _find_invalid_character(text, allowed)):
            table.wrong(name, f"has {odd}", f'`{name} = "{"".join(allowed.findall(text))}"`')
    authentication = table.need_table("authentication")
    certified_name = _check_common_name(table, "device_id", device_id, authentication)
    identity = _identity(authentication, certified_name, issuers, "sas", "device_id_pk")
    if isinstance(identity, model.IssuedIdentity) and isinstance(identity.by, model.AzureIssuance):
        authentication.wrong("identity_cert", "is issued by azure, with the registration", '`source = "dps"`')
    return model.ManualSource(hub, device_id, identity)


def _aws(table: Table, issuers: Issuers) -> model.AwsSource:
    endpoint = table.need("endpoint", '"PREFIX-ats.iot.us-east-1.amazonaws.com"')
    thing = table.take("thing_name", _thing_of) or ""
    if "thing_name" not in table:
        table.wrong("thing_name", "is missing", '`thing_name = "my-device"`')
    authentication = table.need_table("authentication")
    name = _check_common_name(table, "thing_name", thing or "?", authentication)
    identity: model.DeviceIdentity = _NO_IDENTITY
    if authentication.take("method", TEXT) == "x509":
        identity = _issued_or_preloaded(authentication, name, issuers)
    else:
        authentication.wrong("method", "must be x509: AWS knows devices by certificates", '`method = "x509"`')
    if isinstance(identity, model.IssuedIdentity) and isinstance(identity.by, model.AzureIssuance):
        authentication.wrong("identity_cert", "is issued by azure, with the registration", '`source = "dps"`')
    authentication.finish()
    return model.AwsSource(endpoint, thing, identity)


def _thing_of(value: object) -> str:
    """Return a thing name that AWS accepts; case-sensitive."""
    text = TEXT(value)
    if _THING.fullmatch(text) is None:
        raise MistakeError("is not a valid thing name", "1 to 128 letters, digits and : _ -")
    return text


def _check_common_name(table: Table, key: str, name: str | None, holder: Table) -> str | None:
    """Return the name for an issued certificate; report it here if it is too long for one."""
    is_issued = isinstance(holder.take("identity_cert", ANY), dict)
    if name is None or not is_issued or name == "?":
        return name
    try:
        return parse_common_name(name)
    except BirthmarkError:
        detail = "is also the certificate's common name, which must have 1 to 64 printable characters"
        table.wrong(key, detail, "A shorter name: it is not cut")
        return "?"


def _connection_string_of(value: object) -> model.ManualSource:
    parts = dict(part.split("=", 1) for part in text_like(_STRING)(value).split(";") if "=" in part)
    if parts.get("x509", "").lower() == "true":
        raise MistakeError("belongs to a device with a certificate", _OF_CERTIFICATE)
    for name in ("HostName", "DeviceId", "SharedAccessKey"):
        if not parts.get(name):
            raise MistakeError(f"has no {name}", _STRING)
    for name, allowed in (("HostName", _HOST), ("DeviceId", _DEVICE_ID)):
        if odd := _find_invalid_character(parts[name], allowed):
            raise MistakeError(f"has {odd} in its {name}", _STRING)
    key = model.SymmetricKeySource(_secret(parts["SharedAccessKey"]))
    return model.ManualSource(parts["HostName"], parts["DeviceId"], key)


def _identity(
    table: Table,
    registration_id: str | None,
    issuers: Issuers,
    shared_method: str,
    shared_key: str,
    tpm: TpmSettings | None = None,
) -> model.DeviceIdentity:
    """Return the identity in `table`: `attestation`, which also allows `tpm`, or `authentication`."""
    method = table.need("method", '"x509"')
    found: model.DeviceIdentity = _NO_IDENTITY
    if method == shared_method:
        found = _symmetric_key(table, shared_key)
    elif method == "tpm" and tpm is not None:
        found = tpm
    else:
        if method != "x509":
            others = (shared_method,) if tpm is None else (shared_method, "tpm")
            accepted = " or ".join(f'`method = "{one}"`' for one in ("x509", *others))
            table.wrong("method", "is not known", accepted)
        found = _issued_or_preloaded(table, registration_id, issuers)
    table.finish()
    return found


def _symmetric_key(table: Table, name: str) -> model.SymmetricKeySource:
    accepted = _KEY.replace("{name}", name)
    if name not in table:
        table.wrong(name, "is missing", accepted)
        return model.SymmetricKeySource()
    if (shape := table.take(name, kind_of(dict[str, Any], "must be a table", _KEY))) is None:
        return model.SymmetricKeySource()
    inner = table.table(name)
    value, location = inner.take("value", lambda found: _secret(TEXT(found))), take_key(inner, "uri", key_of)
    if ("value" in shape) == ("uri" in shape):
        table.wrong(name, "needs value or uri, and not both", accepted)
    inner.finish()
    return model.SymmetricKeySource(value, location)


def _secret(text: str) -> bytes:
    """Return the base64-decoded key, which is never displayed."""
    if (found := secret_of(text)) is None:
        raise MistakeError("is not a base64 key", '`value = "BASE64"`, as the portal shows it')
    return found


def secret_of(text: str) -> bytes | None:
    """Return the decoded base64 key, with or without padding; None if it is invalid."""
    bare = "".join(text.split()).strip("\"'")
    if len(bare) > _MAX_KEY_CHARS or _BASE64.fullmatch(bare) is None:
        return None
    try:
        return base64.b64decode(bare.rstrip("=") + "=" * (-len(bare.rstrip("=")) % 4), validate=True)
    except ValueError:
        return None


def _issued_or_preloaded(
    table: Table, registration_id: str | None, issuers: Issuers
) -> model.PreloadedIdentity | model.IssuedIdentity:
    if isinstance(table.take("identity_cert", ANY), dict):
        if table.take("identity_pk", ANY) is not None:
            table.warn("identity_pk", "is ignored: the certificate is issued, and the agent generates its key")
        return parse_issued(table.table("identity_cert"), registration_id, issuers, DEVICE_ID)
    if "identity_cert" not in table:
        accepted = '`identity_cert = { method = "est" }`, or `identity_cert = "file:///device.pem"` with identity_pk'
        table.wrong("identity_cert", "is missing", accepted)
    example = '`identity_pk = "file:///device.key"`, or a pkcs11: URI'
    return take_pair(table, "identity_cert", "identity_pk", "is missing", example) or _NO_IDENTITY


def _registration_id_of(value: object) -> str:
    """Return the registration id as written. DPS compares it without regard to case."""
    text = TEXT(value)
    try:
        parse_registration_id(text)
    except BirthmarkError as error:
        accepted = "At most 128 letters, digits and - . _ :, ending with a letter, a digit or -"
        odd = _find_invalid_character(text, _REGISTRATION_ID)
        raise MistakeError("is not a registration id" + (f": it has {odd}" if odd else ""), accepted) from error
    return text


def _find_invalid_character(text: str, allowed: re.Pattern[str]) -> str:
    """Return the first disallowed character of a name, quoted, or as a code point if it is invisible."""
    found = allowed.sub("", text)[:1]
    is_seen = found.isprintable() and not found.isspace() and found not in BLANKS
    return found and (f"'{found}'" if is_seen else f"U+{ord(found):04X}, which is invisible,")
