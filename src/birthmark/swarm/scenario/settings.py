"""Every key of a scenario: what it takes, what it means, what it is when left out.

The page docs/reference/swarm.md and what `birthmark swarm init` writes are this table; a test holds it against what the
reader asks for. `NAME` stands for any name.
"""

from birthmark.agent.config.catalog import Section, Setting
from birthmark.swarm.model import Fault, Group
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
_GROUP = Group("NAME", 1)
_GIVEN, _WISH, _IDENTITIES = Scenario(), TargetSpec(), Identities()

SECTIONS = (
    Section(
        "The run",
        ("",),
        (
            Setting("title", "text", "stands above the report", f'"{_GIVEN.title}"'),
            Setting("duration", _TIME, "of the whole run", f'"{_GIVEN.duration_s:g}s"'),
            Setting("seed", "whole number", "the same seed rolls the same dice", str(_GIVEN.seed)),
        ),
    ),
    Section(
        "Where devices go",
        ("target",),
        (
            Setting(
                "to",
                '"local", "local-aws", "azure" or "aws"',
                "a Birthmark server's Azure or AWS side (`--data`), or the vendor's cloud",
                f'"{_WISH.where}"',
            ),
            Setting("host", "name", 'the provisioning service, AWS\'s data endpoint, or the hub (`register = "none"`)'),
            Setting("id_scope", "text", "the provisioning service's ID scope; else PROVISIONING_IDSCOPE"),
            Setting("register", '"mqtt", "https" or "none"', "how devices register at Azure", f'"{_WISH.way}"'),
            Setting(
                "mqtt_port",
                _PORT,
                "of provisioning service, hub and data endpoint (AWS: 443 too)",
                str(_WISH.mqtt_port),
            ),
            Setting("https_port", _PORT, "of the provisioning service", "443, or the local server's"),
            Setting("est_url", "URL", "the EST server that renews, up to `/.well-known/est`", "the local server's"),
            Setting("trust", _FILE, "CAs of the target, PEM", "the local server's, SSL_CERT_FILE, or the system's"),
            Setting("mqtt", '"3.1.1" or "5"', "the version, at AWS", '"3.1.1"'),
            Setting("tls", '"1.2" or "1.3"', "this version alone", "either"),
            Setting(
                "at_once",
                "whole number",
                "devices that register or connect at the same time, the others wait: more than one machine can do "
                "makes the target look slow, and a server has limits for one address",
                str(_WISH.at_once),
            ),
        ),
    ),
    Section(
        "Keys and certificates",
        ("identities",),
        (
            Setting("directory", "directory", "where they are kept, and found again", f'"{_IDENTITIES.directory}"'),
            Setting(
                "from",
                '"ca", "est" or "files"',
                "a CA at hand, the EST server, or files NAME.pem with key and chain that are there",
                f'"{_IDENTITIES.origin}"',
            ),
            Setting("ca_cert", _FILE, "your CA's certificate, with its chain", "one of the directory's own"),
            Setting("ca_key", _FILE, "its key"),
            Setting("ca_passphrase_file", _FILE, "the key's passphrase, a file of mode 0600"),
            Setting(
                "est_user", "text", "who asks EST for first certificates, for any name", "one made for it, locally"
            ),
            Setting("est_password_file", _FILE, "the password, a file of mode 0600"),
            Setting("lifetime", _TIME, "of certificates that a CA at hand signs", '"30d"'),
        ),
    ),
    Section(
        "A group of devices",
        ("group.NAME",),
        (
            Setting("devices", "whole number", "how many; needed"),
            Setting(
                "name", "text", "a device's name; `{n}` is its number", "NAME-TAG-{n}, the TAG being the directory's"
            ),
            Setting("ramp", "number", "devices that begin in a second", f"{_GROUP.ramp:g}"),
            Setting("start", _TIME, "when the first one begins", '"0s"'),
            Setting("interval", _TIME, "between a device's messages; 0 sends none", f'"{_GROUP.interval_s:g}s"'),
            Setting("jitter", _SHARE, "of the interval, either way", '"10%"'),
            Setting("payload", "text", "a message; `{n}` is its number, `{name}` the device", f"'{_GROUP.payload}'"),
            Setting("size", "bytes", "messages of this size, instead of `payload`"),
            Setting("topic", "text", "at AWS; `{name}` is the device", '"devices/{name}/data"'),
            Setting("keep_alive", "seconds", "MQTT's", str(_GROUP.keep_alive_s)),
            Setting(
                "stay", _TIME, "how long a connection lasts before the device leaves by itself; 0 for always", '"0s"'
            ),
            Setting("away", _TIME, "how long it is away then", f'"{_GROUP.away_s:g}s"'),
            Setting("cut", _TIME, "mean time between lines that break, at random; 0 for never", '"0s"'),
            Setting("renew", 'time or "80%"', "renew by EST so often, or at that share of the certificate's life"),
            Setting("job", _TIME, "at AWS, how long a job takes that a device is told to do; 0 does none", '"0s"'),
            Setting("jobs_fail", _SHARE, "of the jobs fail", '"0%"'),
            Setting("storm", "times", "when all lines of the group break, and all devices return at once", "[]"),
            Setting(
                "patience",
                _TIME,
                "what the target may take to cut off who misbehaves, and a lost device to be back",
                f'"{_GROUP.patience_s:g}s"',
            ),
            Setting("skew", _TIME, "how far the clock of `clock_skew` is off", '"7300d"'),
        ),
    ),
    Section(
        "Who misbehaves",
        ("group.NAME.misbehave",),
        tuple(Setting(fault.value, _SHARE, f"of the group {_DEEDS[fault]}") for fault in Fault),
    ),
    Section(
        "What the target does about it",
        ("group.NAME.expect",),
        tuple(
            Setting(fault.value, '"stopped" or "tolerated"', "refused or cut off, or let be", f'"{DESERVED[fault]}"')
            for fault in Fault
        ),
    ),
)
