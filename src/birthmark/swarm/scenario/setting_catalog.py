"""Every key of a scenario: accepted values, description and default.

The page docs/reference/swarm.md and the output of `birthmark swarm init` are generated from this table. A test compares
it with the keys that the parser reads. `NAME` is a placeholder for any name.
"""

from birthmark.agent.config.setting_catalog import AgentSetting, SettingSection
from birthmark.swarm.model import DeviceGroup, Fault
from birthmark.swarm.rules.fault_reaction_verdicts import DESERVED
from birthmark.swarm.scenario.model import Identities, Scenario, TargetSpec

_TIME = "time"
_SHARE = '"5%" or 0.05'
_FILE = "file"
_PORT = "port"

_DEEDS: dict[Fault, str] = {
    Fault.OTHER_NAME: "connects under another device's name",
    Fault.OTHER_TOPIC: "publishes to a topic without permission",
    Fault.OVERSIZED: "sends a message of 300 KiB",
    Fault.GARBAGE: "sends invalid MQTT data after connecting",
    Fault.HALF_OPEN: "starts a TLS handshake and then stops",
    Fault.EXPIRED: 'presents an expired certificate (requires `from = "ca"`)',
    Fault.REVOKED: "presents a revoked certificate; revoked automatically on a local server, by you on others",
    Fault.CLOCK_SKEW: "has a clock that is wrong by `skew` and rejects the target's certificate",
    Fault.NO_ACK: "subscribes and never acknowledges a message",
    Fault.DUPLICATE: "connects twice; the first connection must end",
    Fault.RENEW_OTHER: 'requests another device\'s certificate over EST (requires `from = "est"`)',
}
_GROUP = DeviceGroup("NAME", 1)
_GIVEN, _WISH, _IDENTITIES = Scenario(), TargetSpec(), Identities()

SECTIONS = (
    SettingSection(
        "Run",
        ("",),
        (
            AgentSetting("title", "text", "title of the report", f'"{_GIVEN.title}"'),
            AgentSetting("duration", _TIME, "duration of the run", f'"{_GIVEN.duration_s:g}s"'),
            AgentSetting("seed", "whole number", "seed of the random number generator", str(_GIVEN.seed)),
        ),
    ),
    SettingSection(
        "Target",
        ("target",),
        (
            AgentSetting(
                "to",
                '"local", "local-aws", "azure" or "aws"',
                "Azure or AWS endpoints of a Birthmark server (`--data`), or the vendor's cloud",
                f'"{_WISH.where}"',
            ),
            AgentSetting("host", "name", 'provisioning service, AWS data endpoint, or hub (`register = "none"`)'),
            AgentSetting("id_scope", "text", "ID scope of the provisioning service; default: PROVISIONING_IDSCOPE"),
            AgentSetting("register", '"mqtt", "https" or "none"', "registration protocol at Azure", f'"{_WISH.way}"'),
            AgentSetting(
                "mqtt_port",
                _PORT,
                "port of the provisioning service, hub and data endpoint (AWS: also 443)",
                str(_WISH.mqtt_port),
            ),
            AgentSetting("amqp_port", _PORT, "port of the hub for AMQP", "5671, or the local server's"),
            AgentSetting("https_port", _PORT, "HTTPS port of the provisioning service", "443, or the local server's"),
            AgentSetting("est_url", "URL", "EST server for renewals, up to `/.well-known/est`", "the local server's"),
            AgentSetting(
                "trust", _FILE, "trusted CAs for the target, PEM", "the local server's, SSL_CERT_FILE, or the system's"
            ),
            AgentSetting("mqtt", '"3.1.1" or "5"', "MQTT version at AWS", '"3.1.1"'),
            AgentSetting("tls", '"1.2" or "1.3"', "only this TLS version", "either"),
            AgentSetting(
                "at_once",
                "whole number",
                "devices that register or connect concurrently; larger values can overload this machine and reach "
                "the server's per-address limits",
                str(_WISH.at_once),
            ),
        ),
    ),
    SettingSection(
        "Keys and certificates",
        ("identities",),
        (
            AgentSetting(
                "directory",
                "directory",
                "directory of the identities, reused by later runs",
                f'"{_IDENTITIES.directory}"',
            ),
            AgentSetting(
                "from",
                '"ca", "est" or "files"',
                "local CA, EST server, or existing files NAME.pem with key and chain",
                f'"{_IDENTITIES.origin}"',
            ),
            AgentSetting("ca_cert", _FILE, "certificate of your CA, with its chain", "created in the directory"),
            AgentSetting("ca_key", _FILE, "key of your CA"),
            AgentSetting("ca_passphrase_file", _FILE, "passphrase of the key, file with mode 0600"),
            AgentSetting(
                "est_user",
                "text",
                "EST user for first certificates, permitted for any name",
                "created on a local server",
            ),
            AgentSetting("est_password_file", _FILE, "password of the EST user, file with mode 0600"),
            AgentSetting("lifetime", _TIME, "lifetime of certificates from the local CA", '"30d"'),
        ),
    ),
    SettingSection(
        "Device groups",
        ("group.NAME",),
        (
            AgentSetting("devices", "whole number", "number of devices; required"),
            AgentSetting(
                "name", "text", "device name; `{n}` is the device number", "NAME-TAG-{n}, with a TAG per directory"
            ),
            AgentSetting("ramp", "number", "devices started per second", f"{_GROUP.ramp:g}"),
            AgentSetting("start", _TIME, "start time of the first device", '"0s"'),
            AgentSetting(
                "interval", _TIME, "interval between messages of a device; 0 sends none", f'"{_GROUP.interval_s:g}s"'
            ),
            AgentSetting("jitter", _SHARE, "random variation of the interval, plus or minus", '"10%"'),
            AgentSetting("payload", "text", "message; `{n}` is its number, `{name}` the device", f"'{_GROUP.payload}'"),
            AgentSetting("size", "bytes", "message size; replaces `payload`"),
            AgentSetting("topic", "text", "topic at AWS; `{name}` is the device", '"devices/{name}/data"'),
            AgentSetting(
                "transport",
                '"mqtt" or "amqp"',
                "protocol of telemetry to an IoT hub; a group with faults and AWS require MQTT",
                f'"{_GROUP.transport}"',
            ),
            AgentSetting("keep_alive", "seconds", "MQTT keep-alive, or AMQP idle timeout", str(_GROUP.keep_alive_s)),
            AgentSetting("stay", _TIME, "time until a device disconnects intentionally; 0 for never", '"0s"'),
            AgentSetting("away", _TIME, "time until it reconnects", f'"{_GROUP.away_s:g}s"'),
            AgentSetting("cut", _TIME, "mean time between random connection losses; 0 for never", '"0s"'),
            AgentSetting("renew", 'time or "80%"', "EST renewal interval, or percentage of the certificate's lifetime"),
            AgentSetting("job", _TIME, "duration of a job at AWS; 0 executes none", '"0s"'),
            AgentSetting("jobs_fail", _SHARE, "share of jobs that fail", '"0%"'),
            AgentSetting("storm", "times", "times at which all devices lose their connection and reconnect", "[]"),
            AgentSetting(
                "patience",
                _TIME,
                "time limit for the target to stop a fault, and for a device to reconnect",
                f'"{_GROUP.patience_s:g}s"',
            ),
            AgentSetting("skew", _TIME, "clock error for `clock_skew`", '"7300d"'),
        ),
    ),
    SettingSection(
        "Faults",
        ("group.NAME.misbehave",),
        tuple(AgentSetting(fault.value, _SHARE, f"share of devices: {_DEEDS[fault]}") for fault in Fault),
    ),
    SettingSection(
        "Expected reactions",
        ("group.NAME.expect",),
        tuple(
            AgentSetting(
                fault.value, '"stopped" or "tolerated"', "rejected or disconnected, or accepted", f'"{DESERVED[fault]}"'
            )
            for fault in Fault
        ),
    ),
)
