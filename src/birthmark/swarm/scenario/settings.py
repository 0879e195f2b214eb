"""Every key of a scenario: what it takes, what it means, what it is when left out.

The page docs/reference/swarm.md and what `birthmark swarm init` writes are this table; a test holds it against what the
reader asks for. `NAME` stands for any name.
"""

from birthmark.agent.config.catalog import AgentSetting, SettingSection
from birthmark.swarm.model import DeviceGroup, Fault
from birthmark.swarm.rules.expectations import DESERVED
from birthmark.swarm.scenario.model import Identities, Scenario, TargetSpec

_TIME = "time"
_SHARE = '"5%" or 0.05'
_FILE = "file"
_PORT = "port"

_DEEDS: dict[Fault, str] = {
    Fault.OTHER_NAME: "connects under another device's name",
    Fault.OTHER_TOPIC: "publishes where it has no right",
    Fault.OVERSIZED: "sends a message of 300 KiB",
    Fault.GARBAGE: "sends what is no MQTT once it is connected",
    Fault.HALF_OPEN: "begins a TLS handshake and says no more",
    Fault.EXPIRED: 'shows a certificate that is over (needs `from = "ca"`)',
    Fault.REVOKED: "shows a revoked certificate; at a local server it is revoked before, elsewhere that is yours to do",
    Fault.CLOCK_SKEW: "has a clock that is off by `skew`, and so does not believe the target's certificate",
    Fault.NO_ACK: "subscribes, and acknowledges no message",
    Fault.DUPLICATE: "connects twice; the first connection is to end",
    Fault.RENEW_OTHER: 'asks EST for another device\'s certificate (needs `from = "est"`)',
}
_GROUP = DeviceGroup("NAME", 1)
_GIVEN, _WISH, _IDENTITIES = Scenario(), TargetSpec(), Identities()

SECTIONS = (
    SettingSection(
        "The run",
        ("",),
        (
            AgentSetting("title", "text", "stands above the report", f'"{_GIVEN.title}"'),
            AgentSetting("duration", _TIME, "of the whole run", f'"{_GIVEN.duration_s:g}s"'),
            AgentSetting("seed", "whole number", "the same seed rolls the same dice", str(_GIVEN.seed)),
        ),
    ),
    SettingSection(
        "Where devices go",
        ("target",),
        (
            AgentSetting(
                "to",
                '"local", "local-aws", "azure" or "aws"',
                "a Birthmark server's Azure or AWS side (`--data`), or the vendor's cloud",
                f'"{_WISH.where}"',
            ),
            AgentSetting(
                "host", "name", 'the provisioning service, AWS\'s data endpoint, or the hub (`register = "none"`)'
            ),
            AgentSetting("id_scope", "text", "the provisioning service's ID scope; else PROVISIONING_IDSCOPE"),
            AgentSetting("register", '"mqtt", "https" or "none"', "how devices register at Azure", f'"{_WISH.way}"'),
            AgentSetting(
                "mqtt_port",
                _PORT,
                "of provisioning service, hub and data endpoint (AWS: 443 too)",
                str(_WISH.mqtt_port),
            ),
            AgentSetting("https_port", _PORT, "of the provisioning service", "443, or the local server's"),
            AgentSetting(
                "est_url", "URL", "the EST server that renews, up to `/.well-known/est`", "the local server's"
            ),
            AgentSetting(
                "trust", _FILE, "CAs of the target, PEM", "the local server's, SSL_CERT_FILE, or the system's"
            ),
            AgentSetting("mqtt", '"3.1.1" or "5"', "the version, at AWS", '"3.1.1"'),
            AgentSetting("tls", '"1.2" or "1.3"', "this version alone", "either"),
            AgentSetting(
                "at_once",
                "whole number",
                "devices that register or connect at the same time, the others wait: more than one machine can do "
                "makes the target look slow, and a server has limits for one address",
                str(_WISH.at_once),
            ),
        ),
    ),
    SettingSection(
        "Keys and certificates",
        ("identities",),
        (
            AgentSetting(
                "directory", "directory", "where they are kept, and found again", f'"{_IDENTITIES.directory}"'
            ),
            AgentSetting(
                "from",
                '"ca", "est" or "files"',
                "a CA at hand, the EST server, or files NAME.pem with key and chain that are there",
                f'"{_IDENTITIES.origin}"',
            ),
            AgentSetting("ca_cert", _FILE, "your CA's certificate, with its chain", "one of the directory's own"),
            AgentSetting("ca_key", _FILE, "its key"),
            AgentSetting("ca_passphrase_file", _FILE, "the key's passphrase, a file of mode 0600"),
            AgentSetting(
                "est_user", "text", "who asks EST for first certificates, for any name", "one made for it, locally"
            ),
            AgentSetting("est_password_file", _FILE, "the password, a file of mode 0600"),
            AgentSetting("lifetime", _TIME, "of certificates that a CA at hand signs", '"30d"'),
        ),
    ),
    SettingSection(
        "A group of devices",
        ("group.NAME",),
        (
            AgentSetting("devices", "whole number", "how many; needed"),
            AgentSetting(
                "name", "text", "a device's name; `{n}` is its number", "NAME-TAG-{n}, the TAG being the directory's"
            ),
            AgentSetting("ramp", "number", "devices that begin in a second", f"{_GROUP.ramp:g}"),
            AgentSetting("start", _TIME, "when the first one begins", '"0s"'),
            AgentSetting("interval", _TIME, "between a device's messages; 0 sends none", f'"{_GROUP.interval_s:g}s"'),
            AgentSetting("jitter", _SHARE, "of the interval, either way", '"10%"'),
            AgentSetting(
                "payload", "text", "a message; `{n}` is its number, `{name}` the device", f"'{_GROUP.payload}'"
            ),
            AgentSetting("size", "bytes", "messages of this size, instead of `payload`"),
            AgentSetting("topic", "text", "at AWS; `{name}` is the device", '"devices/{name}/data"'),
            AgentSetting("keep_alive", "seconds", "MQTT's", str(_GROUP.keep_alive_s)),
            AgentSetting(
                "stay", _TIME, "how long a connection lasts before the device leaves by itself; 0 for always", '"0s"'
            ),
            AgentSetting("away", _TIME, "how long it is away then", f'"{_GROUP.away_s:g}s"'),
            AgentSetting("cut", _TIME, "mean time between lines that break, at random; 0 for never", '"0s"'),
            AgentSetting("renew", 'time or "80%"', "renew by EST so often, or at that share of the certificate's life"),
            AgentSetting("job", _TIME, "at AWS, how long a job takes that a device is told to do; 0 does none", '"0s"'),
            AgentSetting("jobs_fail", _SHARE, "of the jobs fail", '"0%"'),
            AgentSetting("storm", "times", "when all lines of the group break, and all devices return at once", "[]"),
            AgentSetting(
                "patience",
                _TIME,
                "what the target may take to cut off who misbehaves, and a lost device to be back",
                f'"{_GROUP.patience_s:g}s"',
            ),
            AgentSetting("skew", _TIME, "how far the clock of `clock_skew` is off", '"7300d"'),
        ),
    ),
    SettingSection(
        "Who misbehaves",
        ("group.NAME.misbehave",),
        tuple(AgentSetting(fault.value, _SHARE, f"of the group {_DEEDS[fault]}") for fault in Fault),
    ),
    SettingSection(
        "What the target does about it",
        ("group.NAME.expect",),
        tuple(
            AgentSetting(
                fault.value, '"stopped" or "tolerated"', "refused or cut off, or let be", f'"{DESERVED[fault]}"'
            )
            for fault in Fault
        ),
    ),
)
