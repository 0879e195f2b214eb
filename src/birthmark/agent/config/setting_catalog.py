"""Catalog of all settings: name, default, accepted values, description.

The page docs/reference/agent-config.md and `birthmark agent config ls --doc` are generated from this table. A test
reads files with every key and compares it with the keys that the parser accepts. `NAME` is a placeholder for any name.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from birthmark.agent.config.parser import IGNORED


@dataclass(frozen=True, slots=True)
class AgentSetting:
    """One setting; `default` is empty if it has none."""

    key: str
    takes: str
    means: str
    default: str = ""


@dataclass(frozen=True, slots=True)
class SettingSection:
    """A group of related settings; each appears once under every one of `tables`."""

    title: str
    tables: tuple[str, ...]
    settings: tuple[AgentSetting, ...]

    def each(self) -> Iterator[AgentSetting]:
        """Yield the settings with their full names."""
        for table in self.tables:
            for one in self.settings:
                key = f"{table}.{one.key}".strip(".")
                yield AgentSetting(key, one.takes, one.means, one.default)


_FILE = "file URI"
_KEY = "file or pkcs11 URI"
_TEXT = "text"
_SPAN = '"80%", "30min", "2day"'
_RENEW = "cert_issuance.est.identity_auto_renew"
_ISSUED = (
    "provisioning.attestation.identity_cert",
    "provisioning.authentication.identity_cert",
    "edge_ca",
    "cert_issuance.local_ca.cert",
)
_CREDENTIALS = (
    AgentSetting("username", _TEXT, "user name for HTTP Basic at the EST server, with password"),
    AgentSetting("password", _TEXT, "password for HTTP Basic at the EST server, with username"),
    AgentSetting(
        "bootstrap_identity_cert",
        _FILE,
        "bootstrap certificate: requests the EST identity, or registers with azure",
    ),
    AgentSetting("bootstrap_identity_pk", _KEY, "key of this certificate"),
    AgentSetting("identity_cert", _FILE, "EST identity certificate; not together with a bootstrap certificate"),
    AgentSetting("identity_pk", _KEY, "key of this certificate"),
)
_SHARED = (
    AgentSetting("value", "base64", "symmetric key; padding is optional"),
    AgentSetting("uri", _KEY, "file with the base64 key, or secret key in a token; instead of value"),
)

SECTIONS = (
    SettingSection(
        "Device",
        ("",),
        (
            AgentSetting("hostname", _TEXT, "the device's name", "the system's"),
            AgentSetting("parent_hostname", _TEXT, "parent device (gateway) to connect through; with source manual"),
            AgentSetting("local_gateway_hostname", _TEXT, "earlier name of `parent_hostname`"),
            AgentSetting("trust_bundle_cert", _FILE, "CAs to trust for DPS and the hub, in addition to the system's"),
            AgentSetting("cloud_timeout_sec", "70 or more", "accepted without effect", "70"),
            AgentSetting("cloud_retries", "0 or more", "accepted without effect", "1"),
        ),
    ),
    SettingSection(
        "Provisioning",
        ("provisioning",),
        (
            AgentSetting(
                "source",
                '"dps", "manual" or "aws"',
                "provisioning service, fixed hub, or AWS account",
            ),
            AgentSetting("global_endpoint", "https URL", "dps: `https://HOST` or `https://HOST:PORT`"),
            AgentSetting("id_scope", _TEXT, "dps: the ID scope"),
            AgentSetting("payload.uri", _FILE, "dps: JSON file sent with each registration"),
            AgentSetting("attestation.method", '"x509", "symmetric_key" or "tpm"', "dps: attestation mechanism"),
            AgentSetting(
                "attestation.registration_id",
                _TEXT,
                "dps: registration ID; required with symmetric_key and tpm",
                "the certificate's common name",
            ),
            AgentSetting(
                "attestation.identity_cert", "file URI, or a table", "existing certificate, or one to be issued"
            ),
            AgentSetting("attestation.identity_pk", _KEY, "key of an existing certificate"),
            AgentSetting("connection_string", _TEXT, "manual: connection string with SharedAccessKey"),
            AgentSetting("iothub_hostname", _TEXT, "manual: host name of the hub"),
            AgentSetting("device_id", _TEXT, "manual: device ID"),
            AgentSetting("endpoint", _TEXT, "aws: host name of the account's data endpoint"),
            AgentSetting("thing_name", _TEXT, "aws: thing name, also used as client ID"),
            AgentSetting("authentication.method", '"x509" or "sas"', "manual and aws: authentication method"),
            AgentSetting("authentication.identity_cert", "file URI, or a table", "see attestation"),
            AgentSetting("authentication.identity_pk", _KEY, "see attestation"),
        ),
    ),
    SettingSection(
        "Symmetric keys",
        ("provisioning.attestation.symmetric_key", "provisioning.authentication.device_id_pk"),
        _SHARED,
    ),
    SettingSection(
        "Issued certificates",
        _ISSUED,
        (
            AgentSetting(
                "method",
                '"est", "azure", "local_ca" or "self_signed"',
                "issuer; azure: the provisioning service, then the hub, by the enrollment's issuing policy",
            ),
            AgentSetting("common_name", _TEXT, "common name; a registration ID or device ID takes precedence"),
            AgentSetting(
                "subject",
                'table, like `{ CN = "x", O = "y" }`',
                "instead of common_name: `CN C ST L O OU DC STREET SERIALNUMBER EMAILADDRESS`",
            ),
            AgentSetting("expiry_days", "1 or more", "lifetime; with est and azure the server decides", "30"),
            AgentSetting("url", "https URL", "est: takes precedence over `[cert_issuance.est.urls]`"),
            *_CREDENTIALS,
            AgentSetting("auto_renew.rotate_key", "true or false", "generates a new key at each renewal"),
            AgentSetting(
                "auto_renew.threshold", _SPAN, "when to renew: elapsed share of the lifetime, or time before expiry"
            ),
            AgentSetting(
                "auto_renew.retry", _SPAN, "longest retry interval; must fit into the time that threshold leaves"
            ),
        ),
    ),
    SettingSection(
        "Issuers",
        ("cert_issuance",),
        (
            AgentSetting("est.trusted_certs", "list of file URIs", "CAs to trust for EST, exclusively", "the system's"),
            AgentSetting("est.urls.NAME", "https URL", "EST server for one certificate; `default` for all others"),
            *(AgentSetting(f"est.auth.{one.key}", one.takes, one.means) for one in _CREDENTIALS),
            AgentSetting(
                "est.identity_auto_renew.rotate_key",
                "true or false",
                "generates a new key for the EST identity",
                "true",
            ),
            AgentSetting("est.identity_auto_renew.threshold", _SPAN, "when to renew the EST identity", "80%"),
            AgentSetting("est.identity_auto_renew.retry", _SPAN, "longest retry interval", "4%"),
            AgentSetting("local_ca.cert", "file URI, or a table", "CA on the device: existing, or issued as above"),
            AgentSetting("local_ca.pk", _KEY, "key of an existing CA"),
        ),
    ),
    SettingSection(
        "Edge CA",
        ("edge_ca",),
        (
            AgentSetting("cert", _FILE, "existing CA certificate"),
            AgentSetting("pk", _KEY, "key of this certificate"),
            AgentSetting(
                "auto_generated_edge_ca_expiry_days", "1 or more", "lifetime if method is not set: self-signed", "90"
            ),
        ),
    ),
    SettingSection(
        "Keys and certificates by name",
        ("",),
        (
            AgentSetting("aziot_keys.pkcs11_lib_path", "path", "PKCS#11 library; required for pkcs11 URIs"),
            AgentSetting("aziot_keys.pkcs11_base_slot", "pkcs11 URI", "token for new keys", "files"),
            AgentSetting(
                "aziot_keys.key_algorithm",
                '"ec-p256", "ec-p384", "rsa-2048", "rsa-3072" or "rsa-4096"',
                "algorithm of new keys; aziot has no such setting and uses rsa-2048",
                "ec-p256",
            ),
            AgentSetting("preloaded_keys.NAME", _KEY, "existing key; `device-id` is certified and never replaced"),
            AgentSetting("preloaded_certs.NAME", "file URI, or a list of names", "existing certificates"),
            AgentSetting("localid.domain", _TEXT, "accepted without effect: this agent has no modules"),
            AgentSetting("localid.days", "1 or more", "accepted without effect: this agent has no modules", "365"),
        ),
    ),
    SettingSection(
        "TPM",
        ("tpm",),
        (
            AgentSetting(
                "tcti",
                _TEXT,
                "TPM interface: `device`, `device:/dev/tpm0`, `tabrmd`, `swtpm:port=2321`",
                "device",
            ),
            AgentSetting(
                "auth_key_index",
                "0 to 0x7fffff",
                "persistent handle of the hub key: 0x81000000 plus this value",
                "0x100",
            ),
            AgentSetting("hierarchy_authorization.endorsement", _TEXT, "password of the endorsement hierarchy", "none"),
            AgentSetting("hierarchy_authorization.owner", _TEXT, "password of the owner hierarchy", "none"),
        ),
    ),
    SettingSection(
        "Jobs",
        ("jobs",),
        (
            AgentSetting("renew", "true or false", "permits jobs to renew the certificate", "false"),
            AgentSetting("run.NAME.command", "list of texts", "absolute path of a program, and its arguments"),
            AgentSetting("run.NAME.arguments", "list of texts", "arguments that a job may add", "none"),
            AgentSetting("run.NAME.timeout_s", "1 to 604800", "timeout in seconds", "600"),
            AgentSetting(
                "run.NAME.run_again",
                "true or false",
                "runs the command again if the agent was killed during it",
                "false",
            ),
            AgentSetting("replace.NAME.path", _FILE, "file that a job may replace"),
            AgentSetting("replace.NAME.urls", "list of https URLs", "permitted URL prefixes of the new file"),
            AgentSetting("replace.NAME.max_bytes", "1 or more", "maximum size in bytes", "268435456"),
            AgentSetting("replace.NAME.timeout_s", "1 to 604800", "download timeout in seconds", "3600"),
            AgentSetting("restart.command", "list of texts", "program that restarts the device, and its arguments"),
            AgentSetting("restart.within_s", "1 to 604800", "seconds within which the restart must happen", "300"),
            AgentSetting("restart.proof", '"device" or "agent"', "component that must have restarted", "device"),
        ),
    ),
    SettingSection(
        "Accepted without effect",
        ("",),
        tuple(
            AgentSetting(name, "anything", "belongs to an IoT Edge component that this agent does not have")
            for name in IGNORED
        ),
    ),
)


def every_setting() -> Iterator[AgentSetting]:
    """Yield all settings with their full names."""
    for section in SECTIONS:
        yield from section.each()
