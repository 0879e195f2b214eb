"""Super-config parser: accepts, ignores with a warning, or rejects each setting."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec

from birthmark.agent.config import model
from birthmark.agent.config.certificate_issuance import parse_edge_ca, parse_issuers
from birthmark.agent.config.jobs import parse_jobs
from birthmark.agent.config.key_and_file_uris import file_of, key_of, take_key, token_of
from birthmark.agent.config.provisioning import parse_source
from birthmark.agent.config.toml_tables import (
    ANY,
    TEXT,
    MistakeError,
    Read,
    Table,
    kind_of,
    number_from,
    parse_files,
    text_like,
)
from birthmark.keys.tpm_attestation import MAX_KEY_INDEX, TpmSettings
from birthmark.secure_elements.chip_profiles import Algorithm

_INDEX: Read[int] = kind_of(
    Annotated[int, msgspec.Meta(ge=0, le=MAX_KEY_INDEX)],
    f"must be an integer from 0 to {MAX_KEY_INDEX:#x}",
    "`{name} = 0x100`",
)
_TAKEN = {0x000001: "storage root key", 0x010001: "endorsement key"}
_PASSWORD: Read[str] = kind_of(
    Annotated[str, msgspec.Meta(max_length=64)], "must be a text of at most 64 characters", '`{name} = "…"`'
)


def parse_tpm(table: Table) -> TpmSettings:
    """Return the TPM settings; aziot's defaults where none are configured."""
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
        accepted = "Omit it to use the index that Azure's own software uses: `auth_key_index = 0x100`."
        table.wrong("auth_key_index", f"is the index of the TPM's {_TAKEN[index]}", accepted)
    passwords.finish()
    table.finish()
    return found


IGNORED = (
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
)
_MIN_CLOUD_TIMEOUT_S = 70
_LOCAL_DAYS = 365
_ALGORITHMS = {
    "ec-p256": Algorithm.P256,
    "ec-p384": Algorithm.P384,
    "rsa-2048": Algorithm.RSA2048,
    "rsa-3072": Algorithm.RSA3072,
    "rsa-4096": Algorithm.RSA4096,
}
_LIBRARY = '`pkcs11_lib_path = "/usr/lib/softhsm/libsofthsm2.so"`, or the chip\'s own library'


def parse_config(file: Path, text: str, further: Sequence[tuple[Path, str]] = ()) -> model.AgentConfig:
    """Return the configuration in the text, overridden by the `further` files.

    Raise `ConfigInvalidError` or `ConfigUnsupportedError`, which lists all errors.
    """
    texts = ((file, text), *further)
    top = parse_files(texts)
    source = top.source
    keys, algorithm = _token_settings(top.table("aziot_keys"))
    issuers = parse_issuers(top.table("cert_issuance"))
    preloaded_keys = _preloaded_keys(top.table("preloaded_keys"))
    for name, least in (("cloud_timeout_sec", _MIN_CLOUD_TIMEOUT_S), ("cloud_retries", 0)):
        top.take(name, number_from(least))  # known but has no effect yet
    tpm = parse_tpm(top.table("tpm"))
    config = model.AgentConfig(
        file=file,
        hostname=top.take("hostname", TEXT),
        source=parse_source(top, issuers, tpm),
        tpm=tpm,
        keys=keys,
        key_algorithm=algorithm,
        preloaded_keys=preloaded_keys,
        preloaded_certs=_preloaded_certs(top.table("preloaded_certs")),
        trust_bundle=top.take("trust_bundle_cert", file_of),
        digest=hashlib.sha256("\0".join(one for _, one in texts).encode()).hexdigest(),
        local_ca=issuers.local_ca if isinstance(issuers.local_ca, model.IssuedIdentity) else None,
        edge_ca=parse_edge_ca(top.table("edge_ca"), issuers, is_wanted="edge_ca" in top),
        jobs=parse_jobs(top.table("jobs")) if "jobs" in top else None,
        localid=_localid(top.table("localid")) if "localid" in top else None,
        texts=texts,
    )
    if keys is None and source.token_keys and not source.has_mistakes("aziot_keys"):
        table, name = source.token_keys[0]
        detail = "is a key in a token, and [aziot_keys] names no library for it"
        table.wrong(name, detail, f"Under `[aziot_keys]`: {_LIBRARY}")
    if (
        config.jobs is not None
        and not isinstance(config.source, model.AwsSource)
        and not source.has_mistakes("provisioning")
    ):
        top.wrong("jobs", "is for devices of an AWS account alone", 'Under `[provisioning]`: `source = "aws"`')
    if "tpm" in top and not isinstance(config.source.identity, TpmSettings):
        top.warn("tpm", "is of effect with the attestation method tpm alone")
    for ignored in IGNORED:
        if ignored in top:
            top.warn(ignored, "is accepted and has no effect here")
    top.finish()
    source.check()
    return replace(config, warnings=tuple(source.warnings))


def _token_settings(table: Table) -> tuple[model.TokenSettings | None, Algorithm]:
    module, base = table.take("pkcs11_lib_path", TEXT), take_key(table, "pkcs11_base_slot", token_of)
    algorithm = table.take("key_algorithm", _algorithm_of) or Algorithm.P256
    table.finish()
    if module is None and base is not None:
        table.wrong("pkcs11_lib_path", "is missing", _LIBRARY)
    return None if module is None else model.TokenSettings(Path(module), base), algorithm


def _algorithm_of(value: object) -> Algorithm:
    accepted = " or ".join(f'`{{name}} = "{one}"`' for one in _ALGORITHMS)
    if (found := _ALGORITHMS.get(text_like(accepted)(value))) is None:
        raise MistakeError("is not known", accepted)
    return found


def _preloaded_keys(table: Table) -> Mapping[str, model.KeyLocation]:
    found = {name: take_key(table, name, key_of) for name in table.names}
    return {name: location for name, location in found.items() if location is not None}


def _preloaded_certs(table: Table) -> Mapping[str, tuple[Path, ...]]:
    """Return files by ID. A list names other IDs; lists do not nest, and missing members are skipped."""
    lists = {name: found for name in table.names if isinstance(found := table.take(name, ANY), list)}
    files = {name: table.take(name, file_of) for name in table.names if name not in lists}
    single = {name: (path,) for name, path in files.items() if path is not None}
    named = {
        name: tuple(path for one in members if isinstance(one, str) for path in single.get(one, ()))
        for name, members in lists.items()
    }
    return single | named


def _localid(table: Table) -> model.LocalId:
    days = table.take("days", number_from(1))
    found = model.LocalId(table.take("domain", TEXT), days or _LOCAL_DAYS)
    if "domain" not in table:
        table.wrong("domain", "is missing", '`domain = "example.com"`')
    table.finish()
    table.source.warn_of("localid", "is understood and has no effect: this agent has no modules")
    return found
