"""Every setting of the configuration: name, default, what it takes, what it means.

The page docs/reference/agent-config.md and `birthmark agent config ls --doc` are this table; a test reads files with
every key and holds it against what the reader asks for. `NAME` stands for any name.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from birthmark.agent.config.parse import IGNORED


@dataclass(frozen=True, slots=True)
class AgentSetting:
    """One key; `default` is empty where there is none."""

    key: str
    takes: str
    means: str
    default: str = ""


@dataclass(frozen=True, slots=True)
class SettingSection:
    """Settings that belong together; each stands once under every one of `tables`."""

    title: str
    tables: tuple[str, ...]
    settings: tuple[AgentSetting, ...]

    def each(self) -> Iterator[AgentSetting]:
        """Return the settings by their whole names."""
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
    AgentSetting("username", _TEXT, "HTTP Basic at the EST server, with password"),
    AgentSetting("password", _TEXT, "HTTP Basic at the EST server, with username"),
    AgentSetting(
        "bootstrap_identity_cert",
        _FILE,
        "a certificate that introduces the device; it gets the EST identity, or with azure registers",
    ),
    AgentSetting("bootstrap_identity_pk", _KEY, "its key"),
    AgentSetting("identity_cert", _FILE, "a certificate that is the device's own at EST; not beside a bootstrap one"),
    AgentSetting("identity_pk", _KEY, "its key"),
)
_SHARED = (
    AgentSetting("value", "base64", "the key itself; padding may be left out"),
    AgentSetting("uri", _KEY, "a file that holds the key in base64, or a secret key in a token; instead of value"),
)

SECTIONS = (
    SettingSection(
        "Device",
        ("",),
        (
            AgentSetting("hostname", _TEXT, "the device's name", "the system's"),
            AgentSetting(
                "parent_hostname", _TEXT, "a parent device, through which the hub is reached; with source manual"
            ),
            AgentSetting("local_gateway_hostname", _TEXT, "the same by its older name"),
            AgentSetting("trust_bundle_cert", _FILE, "CAs to trust for DPS and hub, besides the system's"),
            AgentSetting("cloud_timeout_sec", "70 or more", "read, and of no effect here", "70"),
            AgentSetting("cloud_retries", "0 or more", "read, and of no effect here", "1"),
        ),
    ),
    SettingSection(
        "Where the device belongs",
        ("provisioning",),
        (
            AgentSetting(
                "source",
                '"dps", "manual" or "aws"',
                "a provisioning service; a hub that is known; an account at AWS",
            ),
            AgentSetting("global_endpoint", "https URL", "dps: `https://HOST` or `https://HOST:PORT`"),
            AgentSetting("id_scope", _TEXT, "dps: the ID scope"),
            AgentSetting("payload.uri", _FILE, "dps: a file of JSON that is sent with each registration"),
            AgentSetting("attestation.method", '"x509", "symmetric_key" or "tpm"', "dps: how the device proves itself"),
            AgentSetting(
                "attestation.registration_id",
                _TEXT,
                "dps: needed with symmetric_key and tpm",
                "the certificate's common name",
            ),
            AgentSetting("attestation.identity_cert", "file URI, or a table", "a certificate that is there, or issued"),
            AgentSetting("attestation.identity_pk", _KEY, "the key of a certificate that is there"),
            AgentSetting("connection_string", _TEXT, "manual: hub, device and key in one, with SharedAccessKey"),
            AgentSetting("iothub_hostname", _TEXT, "manual: the hub"),
            AgentSetting("device_id", _TEXT, "manual: the device's name there"),
            AgentSetting("endpoint", _TEXT, "aws: the account's data endpoint, a host name"),
            AgentSetting("thing_name", _TEXT, "aws: the thing, which is the client id too"),
            AgentSetting("authentication.method", '"x509" or "sas"', "manual and aws: how the device proves itself"),
            AgentSetting("authentication.identity_cert", "file URI, or a table", "as under attestation"),
            AgentSetting("authentication.identity_pk", _KEY, "as under attestation"),
        ),
    ),
    SettingSection(
        "Keys that are shared with the cloud",
        ("provisioning.attestation.symmetric_key", "provisioning.authentication.device_id_pk"),
        _SHARED,
    ),
    SettingSection(
        "Certificates that are issued",
        _ISSUED,
        (
            AgentSetting(
                "method",
                '"est", "azure", "local_ca" or "self_signed"',
                "who issues it; azure: the provisioning service, then the hub, by the policy of the enrollment",
            ),
            AgentSetting("common_name", _TEXT, "its name; a registration id or device id wins over it"),
            AgentSetting(
                "subject",
                'table, like `{ CN = "x", O = "y" }`',
                "instead of common_name: `CN C ST L O OU DC STREET SERIALNUMBER EMAILADDRESS`",
            ),
            AgentSetting("expiry_days", "1 or more", "its life, but with est and azure, whose server decides", "30"),
            AgentSetting("url", "https URL", "est: wins over `[cert_issuance.est.urls]`"),
            *_CREDENTIALS,
            AgentSetting("auto_renew.rotate_key", "true or false", "a new key at each renewal"),
            AgentSetting(
                "auto_renew.threshold", _SPAN, "when: part of the life that has passed, or time before its end"
            ),
            AgentSetting(
                "auto_renew.retry", _SPAN, "the longest pause after a failure; fits into what threshold leaves"
            ),
        ),
    ),
    SettingSection(
        "Who issues",
        ("cert_issuance",),
        (
            AgentSetting(
                "est.trusted_certs", "list of file URIs", "CAs to trust for EST, and no others", "the system's"
            ),
            AgentSetting("est.urls.NAME", "https URL", "the server for one certificate, or for all as `default`"),
            *(AgentSetting(f"est.auth.{one.key}", one.takes, one.means) for one in _CREDENTIALS),
            AgentSetting(
                "est.identity_auto_renew.rotate_key", "true or false", "a new key for the EST identity", "true"
            ),
            AgentSetting("est.identity_auto_renew.threshold", _SPAN, "when the EST identity is renewed", "80%"),
            AgentSetting("est.identity_auto_renew.retry", _SPAN, "the longest pause after a failure", "4%"),
            AgentSetting(
                "local_ca.cert", "file URI, or a table", "a CA on the device: there already, or issued: above"
            ),
            AgentSetting("local_ca.pk", _KEY, "its key, where it is there already"),
        ),
    ),
    SettingSection(
        "Edge CA",
        ("edge_ca",),
        (
            AgentSetting("cert", _FILE, "a CA that is there already"),
            AgentSetting("pk", _KEY, "its key"),
            AgentSetting("auto_generated_edge_ca_expiry_days", "1 or more", "without method: self-signed", "90"),
        ),
    ),
    SettingSection(
        "Keys and certificates by name",
        ("",),
        (
            AgentSetting("aziot_keys.pkcs11_lib_path", "path", "PKCS#11 library; needed for any pkcs11 URI"),
            AgentSetting("aziot_keys.pkcs11_base_slot", "pkcs11 URI", "the token in which new keys are made", "files"),
            AgentSetting(
                "aziot_keys.key_algorithm",
                '"ec-p256", "ec-p384", "rsa-2048", "rsa-3072" or "rsa-4096"',
                "of new keys; aziot has no such setting and chooses rsa-2048 for devices",
                "ec-p256",
            ),
            AgentSetting("preloaded_keys.NAME", _KEY, "a key; `device-id` is certified and never replaced"),
            AgentSetting("preloaded_certs.NAME", "file URI, or a list of names", "a certificate, or several"),
            AgentSetting("localid.domain", _TEXT, "read: this agent has no modules"),
            AgentSetting("localid.days", "1 or more", "read: this agent has no modules", "365"),
        ),
    ),
    SettingSection(
        "TPM",
        ("tpm",),
        (
            AgentSetting(
                "tcti",
                _TEXT,
                "how the TPM is reached: `device`, `device:/dev/tpm0`, `tabrmd`, `swtpm:port=2321`",
                "device",
            ),
            AgentSetting(
                "auth_key_index", "0 to 0x7fffff", "where it keeps the key for the hub: 0x81000000 and this", "0x100"
            ),
            AgentSetting("hierarchy_authorization.endorsement", _TEXT, "the endorsement hierarchy's password", "none"),
            AgentSetting("hierarchy_authorization.owner", _TEXT, "the owner hierarchy's password", "none"),
        ),
    ),
    SettingSection(
        "Jobs",
        ("jobs",),
        (
            AgentSetting("renew", "true or false", "whether a job may have the certificate renewed", "false"),
            AgentSetting("run.NAME.command", "list of texts", "a program by its absolute path, and its arguments"),
            AgentSetting("run.NAME.arguments", "list of texts", "arguments that a job may add; no others", "none"),
            AgentSetting("run.NAME.timeout_s", "1 to 604800", "how long it may take, in seconds", "600"),
            AgentSetting(
                "run.NAME.run_again", "true or false", "begin it again where the agent was killed meanwhile", "false"
            ),
            AgentSetting("replace.NAME.path", _FILE, "a file that a job may replace"),
            AgentSetting(
                "replace.NAME.urls", "list of https URLs", "where it may come from: these, and what is below them"
            ),
            AgentSetting("replace.NAME.max_bytes", "1 or more", "how large it may be", "268435456"),
            AgentSetting("replace.NAME.timeout_s", "1 to 604800", "how long fetching it may take, in seconds", "3600"),
            AgentSetting("restart.command", "list of texts", "the program that restarts the device, and its arguments"),
            AgentSetting("restart.within_s", "1 to 604800", "within how many seconds that has to have happened", "300"),
            AgentSetting("restart.proof", '"device" or "agent"', "what has to have started anew", "device"),
        ),
    ),
    SettingSection(
        "Taken without effect",
        ("",),
        tuple(
            AgentSetting(name, "anything", "belongs to a part of IoT Edge that this agent has not") for name in IGNORED
        ),
    ),
)


def every_setting() -> Iterator[AgentSetting]:
    """Return all settings by their whole names."""
    for section in SECTIONS:
        yield from section.each()
