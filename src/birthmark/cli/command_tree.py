"""Command tree: commands, their modules, examples and former names.

Verbs are consistent: `ls` lists, `show` prints all details, `create` creates, `rm` removes. A command is a function of
a module of `birthmark.cli`, whose parameters are its arguments and options (`birthmark.cli.command_factory`); the
module is loaded on demand.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher


@dataclass(frozen=True, slots=True)
class Leaf:
    """A command of the tree."""

    place: str
    """Location of the command's function: `module:function`."""
    example: str = ""
    """Text after the command's words, or a complete line that contains them."""


@dataclass(frozen=True, slots=True)
class CommandGroup:
    """A group of commands under a word."""

    what_for: str
    commands: Mapping[str, "Leaf | CommandGroup"]
    example: str
    panels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Help panels of a large group: title -> names."""


CHIP = CommandGroup(
    "Read, use and write secure elements (PKCS#11).",
    {
        "ls": Leaf("chip:list_", "--pin-file ~/.pin"),
        "show": Leaf("chip:show", "0xF0000100"),
        "cert": Leaf("chip:cert", "0xF0000100 --out device.crt.pem"),
        "refkey": Leaf("chip:refkey", "0xF0000100 --out device.key.pem"),
        "csr": Leaf("chip:csr", "--cn gateway-7 --out gateway-7.csr"),
        "keygen": Leaf("chip:keygen", "operational --algorithm p256"),
        "write": Leaf("chip:write", "gateway-7.crt.pem"),
        "prove": Leaf("chip:prove_", "--nonce 5f2d9c01 > proof.json"),
        "intake": Leaf("chip_intake:intake", "BOARD-0001 --trust-root manufacturer-ca.pem"),
        "exec": Leaf("chip_exec:exec_", "-- python app.py"),
        "simulate": Leaf("chip_simulate:simulate", 'eval "$(birthmark chip simulate chip --chip se050)"'),
    },
    "ls",
)
DEVICE = CommandGroup(
    "Enroll, monitor, move and revoke devices; act as a device.",
    {
        "enroll": Leaf("device_enrollment:device", "--cert se050.pem --edge"),
        "enroll-list": Leaf("device_enrollment:manifest", "shipment.json --dry-run"),
        "enroll-group": Leaf("device_enrollment:group", "my-devices --ca-name my-ca"),
        "template": Leaf("device_enrollment:show_template", "> template.toml"),
        "ls": Leaf("device_enrollment:list_"),
        "find": Leaf("device_find_and_show:find_devices", "north"),
        "show": Leaf("device_find_and_show:show_device", "se050-0001"),
        "disable": Leaf("device_enrollment:disable", "sn0123ABCDEF01"),
        "enable": Leaf("device_enrollment:enable", "sn0123ABCDEF01"),
        "rm": Leaf("device_enrollment:remove", "sn0123ABCDEF01"),
        "follow": Leaf("device_follow_and_move:follow", "shipment.json --wait connected"),
        "move": Leaf(
            "device_follow_and_move:move",
            "shipment.json --from azure --to aws --policy device --wait --journal move.journal",
        ),
        "revoke": Leaf("device_revoke:revoke", "pump-1 --reason keyCompromise --yes"),
        "renew": Leaf("device_renew:renew", "pump-1 --cert renewed.pem --to aws --wait 10min"),
        "provenance": Leaf("device_provenance:verify", "BOARD-0001 --manifest shipment.jsonl --station north.pem"),
        "rights": Leaf("device_rights:rights", "enroll --to aws > policy.json"),
        "register": Leaf(
            "device_register_and_connect:register",
            "--chip --host global.azure-devices-provisioning.net --id-scope 0ne00ABCDEF",
        ),
        "connect": Leaf("device_register_and_connect:connect", "--chip --seconds 60"),
        "send": Leaf(
            "device_register_and_connect:send",
            """'{"temperature": 21}' --cert device.pem --key device.key --hub HOST""",
        ),
    },
    "enroll --cert device.pem",
    {
        "Enrollment": ("enroll", "enroll-list", "enroll-group", "template", "disable", "enable", "rm"),
        "Overview": ("ls", "find", "show"),
        "Operation": ("follow", "move", "renew", "revoke", "provenance", "rights"),
        "Device operations": ("register", "connect", "send"),
    },
)
AGENT = CommandGroup(
    "Provision a device, stay connected, renew certificates.",
    {
        "install": Leaf("service_install:install_agent", "--dry-run"),
        "uninstall": Leaf("service_install:uninstall_agent", "--dry-run"),
        "tpm": Leaf("agent_tpm_public_keys:show", "--tcti device"),
        "check": Leaf("agent:check", "--offline"),
        "apply": Leaf("agent:apply", "--config config.toml --root ./device"),
        "run": Leaf("agent:run"),
        "status": Leaf("agent:status", "--json"),
        "renew": Leaf("agent:renew"),
        "reprovision": Leaf("agent:reprovision"),
        "forget-time": Leaf("agent:forget_time"),
        "stop": Leaf("agent:stop"),
        "config": CommandGroup("Agent configuration.", {"ls": Leaf("agent_config:list_settings", "--doc")}, "ls"),
    },
    "check --offline",
)
SWARM = CommandGroup(
    "Simulate thousands of devices with real keys.",
    {
        "init": Leaf("swarm:init", "swarm.toml"),
        "prepare": Leaf("swarm:prepare", "swarm.toml"),
        "run": Leaf("swarm:run", "--devices 50 --to local --duration 30s"),
        "report": Leaf("swarm:report", "run.json --out run.html"),
    },
    "run --devices 50 --to local",
)
MANIFEST = CommandGroup(
    "Verify supplier lists and extract their certificates.",
    {
        "verify": Leaf("manifest:verify", "shipment.json"),
        "show": Leaf("manifest:show_all", "shipment.json"),
        "extract": Leaf("manifest:extract", "shipment.json --out certificates/"),
        "merge": Leaf("manifest_merge:merge", "north.jsonl south.jsonl --station north.pem --out shipment.jsonl"),
        "create": Leaf("manifest:create", "--out rehearsal --count 50"),
    },
    "verify shipment.json",
)
CA = CommandGroup(
    "Your own certificate authority (CA), without a server.",
    {
        "init": Leaf("ca.hierarchy:init", '--dir ca --name "Example Gateways"'),
        "show": Leaf("ca.hierarchy:show", "device-1 --dir ca"),
        "passphrase": Leaf("ca.hierarchy:passphrase", "--new file:$HOME/ca.passphrase --dir ca"),
        "verify-possession": Leaf("ca.hierarchy:verify_possession", "3F9C…A1 --dir ca --out proof.pem"),
        "sign": Leaf("ca.issue:sign", "device.csr --dir ca --out device.pem"),
        "issue": Leaf("ca.issue:issue", "gateway-7 --dir ca --out-dir gateway-7"),
        "request": Leaf("ca.offline_root:request", "--purpose edge --dir ca --out edge.csr"),
        "install": Leaf("ca.offline_root:install_answer", "edge.answer --dir ca"),
        "revoke": Leaf("ca.revoke:revoke", "device-1 --reason keyCompromise --dir ca"),
        "crl": Leaf("ca.revoke:crl", "--dir ca --out ca.crl"),
        "root": CommandGroup(
            "Root CA operations for requests of other machines.",
            {
                "sign": Leaf("ca.offline_root:sign", "edge.csr --dir ca --out edge.answer"),
                "link": Leaf("ca.offline_root:link_roots", "root-ca --dir next-root-ca --out links.pem"),
            },
            "sign edge.csr",
        ),
    },
    'init --name "Example Gateways" --dir ca',
)
PKI = CommandGroup(
    "The server's certificates, EST clients and root CA rollover.",
    {
        "ls": Leaf("pki:certificates", "edge-0001"),
        "revoke": Leaf("pki:revoke", "--device edge-0001 --reason keyCompromise"),
        "release": Leaf("pki:release", "edge-0001"),
        "crl": Leaf("pki:crl", "--out issuing.crl.pem"),
        "user": CommandGroup(
            "EST users with a password, for one device or any.",
            {
                "create": Leaf("pki:add_user", "line-1 --device gateway-7"),
                "ls": Leaf("pki:list_users"),
                "rm": Leaf("pki:remove_user", "factory-line-1"),
            },
            "ls",
        ),
        "token": CommandGroup(
            "Manage single-use EST passwords, each for one device and one key.",
            {"create": Leaf("pki_tokens_and_requests:add_token", "gateway-7 --lifetime 12h")},
            "create gateway-7",
        ),
        "manufacturer": CommandGroup(
            "Manufacturer CAs, whose certificates bootstrap devices.",
            {
                "create": Leaf("pki:add_ca", "manufacturer-ca.pem --any-name"),
                "ls": Leaf("pki:list_cas"),
                "rm": Leaf("pki:remove_ca", "3F9A…"),
            },
            "ls",
        ),
        "ra": CommandGroup(
            "Registration authorities, which enroll other devices.",
            {
                "create": Leaf("pki_ra:add_authority", "ra.pem --names 'line7-*'"),
                "ls": Leaf("pki_ra:list_authorities"),
                "rm": Leaf("pki_ra:remove_authority", "3F9A…"),
            },
            "ls",
        ),
        "request": CommandGroup(
            "EST requests that need manual approval.",
            {
                "ls": Leaf("pki_tokens_and_requests:list_requests"),
                "approve": Leaf("pki_tokens_and_requests:approve", "9f2c…"),
                "reject": Leaf("pki_tokens_and_requests:reject", "9f2c…"),
            },
            "ls",
        ),
        "rollover": CommandGroup(
            "Replace the root CA of a running server without downtime.",
            {
                "plan": Leaf("pki_rollover:plan"),
                "status": Leaf("pki_rollover:status"),
                "start": Leaf("pki_rollover:start", "--yes"),
                "next": Leaf("pki_rollover:step_forward", "--share 90%"),
                "back": Leaf("pki_rollover:step_back"),
                "groups": Leaf("pki_rollover:groups"),
            },
            "plan",
        ),
    },
    "ls edge-0001",
)
DPS = CommandGroup(
    "Provisioning services (DPS), linked hubs and CAs (Azure).",
    {
        "ls": Leaf("dps:show_all"),
        "create": Leaf("dps:create", "factory-2"),
        "link": Leaf("dps:link", "hub-2"),
        "show": Leaf("dps:show_one", "factory-2"),
        "tier": Leaf("dps:set_tier", "birthmark S1"),
        "key": Leaf("dps:key", "factory-2"),
        "policy": CommandGroup(
            "Shared access policies and their keys.",
            {
                "ls": Leaf("dps:list_policies"),
                "show": Leaf("dps:show_policy", "provisioningserviceowner"),
                "rotate": Leaf("dps:rotate_policy", "provisioningserviceowner secondary"),
            },
            "ls",
        ),
        "rm": Leaf("dps:delete", "factory-2"),
        "release": Leaf("dps:release", "edge-0001"),
        "ca": CommandGroup(
            "Manage CA certificates and their proof of possession.",
            {
                "ls": Leaf("dps:list_cas"),
                "create": Leaf("dps:add", "my-ca root.pem"),
                "code": Leaf("dps:code", "my-ca"),
                "verify": Leaf("dps:verify", "my-ca verification.pem"),
                "rm": Leaf("dps:remove", "my-ca"),
            },
            "ls",
        ),
    },
    "ls",
)
HUB = CommandGroup(
    "IoT hubs: devices, twins, methods and messages (Azure).",
    {
        "ls": Leaf("hub:show_all"),
        "create": Leaf("hub:create", "hub-2 --host hub2.example"),
        "show": Leaf("hub:show_one", "hub-2"),
        "tier": Leaf("hub:set_tier", "birthmark S1 --units 2"),
        "export": Leaf("hub_registry:export_registry", "devices.txt"),
        "import": Leaf("hub_registry:import_registry", "devices.txt"),
        "key": Leaf("hub:key", "--policy service"),
        "policy": CommandGroup(
            "Shared access policies and their keys.",
            {
                "ls": Leaf("hub:list_policies"),
                "show": Leaf("hub:show_policy", "service"),
                "rotate": Leaf("hub:rotate_policy", "service secondary"),
            },
            "ls",
        ),
        "rm": Leaf("hub:delete", "hub-2"),
        "device": CommandGroup(
            "Devices of a hub.",
            {
                "ls": Leaf("hub:devices", "--edge"),
                "create": Leaf("hub:create_device", "pump-7 --cert pump-7.pem"),
                "show": Leaf("hub:show_identity_of", "pump-7"),
                "key": Leaf("hub:device_key", "pump-7"),
                "rm": Leaf("hub:delete_device", "edge-0001"),
                "thumbprints": Leaf("hub:thumbprints", "pump-7"),
                "disable": Leaf("hub:disable_device", "pump-7"),
                "enable": Leaf("hub:enable_device", "pump-7"),
            },
            "ls",
        ),
        "ca": CommandGroup(
            "CA certificates of a hub, and proof of possession.",
            {
                "ls": Leaf("hub_ca:list_cas"),
                "create": Leaf("hub_ca:add_ca", "my-ca root.pem"),
                "code": Leaf("hub_ca:ca_code", "my-ca"),
                "verify": Leaf("hub_ca:verify_ca", "my-ca verification.pem"),
                "rm": Leaf("hub_ca:remove_ca", "my-ca"),
            },
            "ls",
        ),
        "configuration": CommandGroup(
            "Configurations and edge deployments of a hub.",
            {
                "ls": Leaf("hub_configuration:list_configurations"),
                "show": Leaf("hub_configuration:show_configuration", "fan-speed"),
                "create": Leaf(
                    "hub_configuration:create_configuration",
                    """fan-speed --desired '{"fan": 3}' --target "tags.site = 'north'\"""",
                ),
                "set": Leaf("hub_configuration:change_configuration", "fan-speed --priority 20"),
                "rm": Leaf("hub_configuration:remove_configuration", "fan-speed"),
                "rollout": Leaf("hub_configuration:roll_configuration", "fan-speed --stop"),
                "why": Leaf("hub_configuration:explain_configurations", "pump-7"),
            },
            "ls",
        ),
        "consumer-group": CommandGroup(
            "Consumer groups of a hub, for readers over AMQP.",
            {
                "ls": Leaf("hub_consumer_group:list_groups"),
                "create": Leaf("hub_consumer_group:create_group", "analytics"),
                "rm": Leaf("hub_consumer_group:remove_group", "analytics"),
            },
            "create analytics",
        ),
        "file": CommandGroup(
            "Files that devices upload.",
            {
                "ls": Leaf("hub_file:list_files"),
                "sas": Leaf("hub_file:sign_container", "uploads"),
            },
            "ls",
        ),
        "job": CommandGroup(
            "Scheduled jobs: call a method on many devices, or update their twins.",
            {
                "ls": Leaf("hub_job:list_jobs", "--status running"),
                "show": Leaf("hub_job:show_job", "night-update"),
                "create": Leaf(
                    "hub_job:create_job",
                    """night-update --where "tags.site = 'north'" --desired '{"interval": 5}'""",
                ),
                "cancel": Leaf("hub_job:cancel_job", "night-update"),
            },
            "ls",
        ),
        "module": CommandGroup(
            "Module identities of a device, with own keys and twins.",
            {
                "ls": Leaf("hub:modules", "edge-0001"),
                "create": Leaf("hub:create_module", "edge-0001 camera"),
                "show": Leaf("hub:show_module", "edge-0001 camera"),
                "key": Leaf("hub:module_key", "edge-0001 camera"),
                "rm": Leaf("hub:delete_module", "edge-0001 camera"),
            },
            "ls edge-0001",
        ),
        "route": CommandGroup(
            "Message routes of a hub.",
            {
                "ls": Leaf("hub_routing:routes"),
                "create": Leaf(
                    "hub_routing:add_route", """hot --endpoint archive --condition '$body.temperature > 30'"""
                ),
                "show": Leaf("hub_routing:show_route", "hot"),
                "rm": Leaf("hub_routing:remove_route", "hot"),
                "enable": Leaf("hub_routing:enable_route", "hot"),
                "disable": Leaf("hub_routing:disable_route", "hot"),
                "retry": Leaf("hub_routing:retry_route", "hot"),
                "test": Leaf("hub_routing:try_route", "--property level=hot"),
                "fallback": Leaf("hub_routing:fallback", "--endpoint archive"),
            },
            "ls",
        ),
        "endpoint": CommandGroup(
            "Routing endpoints: webhooks, folders, streams, servers.",
            {
                "ls": Leaf("hub_routing:endpoints"),
                "create": Leaf("hub_routing:add_endpoint", "archive --folder archive"),
                "rm": Leaf("hub_routing:remove_endpoint", "archive"),
                "read": Leaf("hub_routing:read_endpoint", "live --follow"),
            },
            "ls",
        ),
        "enrichment": CommandGroup(
            "Message enrichments of a hub.",
            {
                "ls": Leaf("hub_routing:enrichments"),
                "create": Leaf("hub_routing:add_enrichment", "site '$twin.tags.site' --endpoint archive"),
                "rm": Leaf("hub_routing:remove_enrichment", "site"),
            },
            "ls",
        ),
        "twin": Leaf("hub:twin", """se050-0001 --desired '{"interval": 5}'"""),
        "query": Leaf("hub:query", "\"SELECT * FROM devices WHERE tags.site = 'north'\""),
        "method": Leaf("hub:method", """se050-0001 reboot '{"delay": 3}'"""),
        "c2d": Leaf("hub:c2d", "se050-0001 'open the valve'"),
        "feedback": Leaf("hub:feedback"),
        "messages": Leaf("hub:messages", "se050-0001"),
        "monitor": Leaf("hub:monitor", "se050-0001 --since 10m"),
    },
    "device ls",
)
AWS = CommandGroup(
    "AWS IoT: things, certificates, jobs, rules and shadows.",
    {
        "thing": CommandGroup(
            "Things and their certificates.",
            {"ls": Leaf("aws:things"), "show": Leaf("aws_registry:show_thing", "se050-0001")},
            "ls",
        ),
        "group": CommandGroup(
            "Thing groups.",
            {"ls": Leaf("aws_registry:list_groups"), "show": Leaf("aws_registry:show_group", "site-7")},
            "ls",
        ),
        "certificate": CommandGroup(
            "Manage certificates of things.",
            {
                "ls": Leaf("aws:certificates"),
                "show": Leaf("aws_registry:show_certificate", "7b743ef07c21…2b2"),
                "renew": Leaf("aws_provisioning:renew", "7b743ef07c21…2b2 new.pem"),
                "claim": Leaf("aws_provisioning:claim", "7b743ef07c21…2b2"),
            },
            "ls",
        ),
        "policy": CommandGroup(
            "Manage AWS IoT policies.",
            {"ls": Leaf("aws_registry:list_policies"), "show": Leaf("aws_registry:show_policy", "sensors")},
            "ls",
        ),
        "search": Leaf("aws_registry:search", "'attributes.site:7 AND connectivity.connected:true'"),
        "template": CommandGroup(
            "Provisioning templates (JITP, fleet provisioning by claim).",
            {
                "ls": Leaf("aws_provisioning:list_templates"),
                "show": Leaf("aws_provisioning:show_template", "gateways"),
                "create": Leaf("aws_provisioning:create_template", "gateways template.json --type jitp"),
                "rm": Leaf("aws_provisioning:remove_template", "gateways"),
                "example": Leaf("aws_provisioning:example", "--type jitp > template.json"),
            },
            "ls",
        ),
        "job": CommandGroup(
            "Jobs and their executions on things.",
            {
                "ls": Leaf("aws_job:list_jobs", "--status IN_PROGRESS"),
                "show": Leaf("aws_job:show_job", "update-2"),
                "create": Leaf("aws_job:create_job", "update-2 update.json --thing-group site-7 --rate 50"),
                "follow": Leaf("aws_job_follow:follow", "update-2"),
                "why": Leaf("aws_job:why_failed", "update-2"),
                "pause": Leaf("aws_job:pause_job", "update-2"),
                "resume": Leaf("aws_job:resume_job", "update-2"),
                "cancel": Leaf("aws_job:cancel_job", "update-2"),
                "rm": Leaf("aws_job:remove_job", "update-2"),
                "executions": Leaf("aws_job:executions", "update-2 --status FAILED"),
            },
            "ls",
        ),
        "rule": CommandGroup(
            "Topic rules and their actions.",
            {
                "ls": Leaf("aws_rule_and_stream:list_rules"),
                "show": Leaf("aws_rule_and_stream:show_rule", "hot"),
                "create": Leaf("aws_rule_and_stream:create_rule", "hot rule.json"),
                "test": Leaf(
                    "aws_rule_and_stream:try_rule",
                    """--sql "SELECT t FROM 'a/+'" --topic a/b --payload '{"t": 31}'""",
                ),
                "enable": Leaf("aws_rule_and_stream:enable_rule", "hot"),
                "disable": Leaf("aws_rule_and_stream:disable_rule", "hot"),
                "dead-letters": Leaf("aws_rule_and_stream:dead", "hot"),
                "replay": Leaf("aws_rule_and_stream:replay", "hot"),
                "rm": Leaf("aws_rule_and_stream:remove_rule", "hot"),
            },
            "ls",
        ),
        "stream": CommandGroup(
            "Manage streams for rule actions, compatible with Amazon Kinesis.",
            {
                "ls": Leaf("aws_rule_and_stream:list_streams"),
                "create": Leaf("aws_rule_and_stream:create_stream", "readings"),
                "read": Leaf("aws_rule_and_stream:read_stream", "readings --consumer-group billing"),
                "rm": Leaf("aws_rule_and_stream:remove_stream", "readings"),
            },
            "ls",
        ),
        "shadow": Leaf("aws:shadow", """se050-0001 --desired '{"interval": 5}'"""),
        "monitor": Leaf("aws:monitor", "'sensors/#'"),
        "key": CommandGroup(
            "Access keys for the AWS CLI and SDKs.",
            {
                "create": Leaf("aws:add_key", "ci"),
                "ls": Leaf("aws:list_keys"),
                "rm": Leaf("aws:remove_key", "AKIAXXXXXXXXXXXXXXXX"),
            },
            "create ci",
        ),
    },
    "thing ls",
)
SERVER = CommandGroup(
    "This machine's server: status, service, backup, audit log.",
    {
        "status": Leaf("server_status:status"),
        "counters": Leaf("server_counters:figures", "--last 7d"),
        "settings": Leaf("server_settings:settings", "--changed"),
        "install": Leaf("service_install:install_server", "--host cloud.example"),
        "uninstall": Leaf("service_install:uninstall_server", "--dry-run"),
        "backup": Leaf("server_backup:backup", "--out server.birthmark --passphrase-file backup.passphrase"),
        "restore": Leaf(
            "server_restore:restore", "server.birthmark --data restored --passphrase-file backup.passphrase"
        ),
        "node": CommandGroup(
            "Cluster nodes that share one database and one NATS.",
            {
                "ls": Leaf("server_node:list_"),
                "invite": Leaf("server_node:invite", "--out invitation.json"),
                "join": Leaf("server_node:join", "invitation.json --data ./birthmark-data"),
                "lead": Leaf("server_node:lead", "--yes"),
            },
            "ls",
        ),
        "audit": CommandGroup(
            "Audit log: list, verify and export it.",
            {
                "ls": Leaf("server_audit:list_", "edge-0001"),
                "verify": Leaf("server_audit:verify", "--head head-2026-11.json"),
                "export": Leaf("server_audit:export", "--out head-2026-11.json"),
            },
            "verify",
        ),
    },
    "install --dry-run",
)
DB = CommandGroup(
    "Database of a stopped server: move to PostgreSQL and back.",
    {"move": Leaf("db_move:move", "--to postgresql://birthmark@localhost/birthmark")},
    "move --to postgresql://birthmark@localhost/birthmark",
)
USER = CommandGroup(
    "Users of a server: create, invite, remove.",
    {
        "create": Leaf("user_access:create", "anna --role operator"),
        "allow": Leaf("user_access:allow", "anna 100"),
        "invite": Leaf("user_access:invite", "anna"),
        "ls": Leaf("user_access:list_users"),
        "password": Leaf("session_and_password:set_password", "anna"),
        "show": Leaf("user_access:show_user", "anna"),
        "rm": Leaf("user_access:remove_user", "anna"),
    },
    "create anna --role operator",
)
ROLE = CommandGroup(
    "Roles and role assignments.",
    {
        "ls": Leaf("user_access:list_roles"),
        "grant": Leaf("user_access:grant", "anna viewer --at hub/birthmark"),
        "revoke": Leaf("user_access:revoke", "anna viewer --at hub/birthmark"),
    },
    "ls",
)
TOKEN = CommandGroup(
    "Access tokens for programs.",
    {
        "create": Leaf("user_access:create_token", "ci --role enroller --lifetime 90d"),
        "ls": Leaf("user_access:list_tokens"),
        "rm": Leaf("user_access:remove_token", "5f2d9c01aa37"),
    },
    "ls",
)
SESSION = CommandGroup(
    "Browser sessions of signed-in users.",
    {
        "ls": Leaf("session_and_password:list_sessions"),
        "rm": Leaf("session_and_password:end_session", "5f2d9c01aa37"),
    },
    "ls",
)
CONSOLE = CommandGroup("The server's web console.", {"open": Leaf("console:open_console")}, "open")
WEBHOOK = CommandGroup(
    "Webhooks that receive events as signed CloudEvents.",
    {
        "create": Leaf("events:create", "plant https://hooks.example.com/birthmark --type 'birthmark.device.*'"),
        "ls": Leaf("events:list_"),
        "rm": Leaf("events:remove", "plant"),
        "rotate": Leaf("events:rotate", "plant"),
        "pause": Leaf("events:pause", "plant"),
        "resume": Leaf("events:resume", "plant"),
        "dead-letters": Leaf("events:dead", "plant"),
        "replay": Leaf("events:replay", "plant"),
    },
    "ls",
)
ALERT = CommandGroup(
    "Alerts, alert rules and silences.",
    {
        "ls": Leaf("alert:list_"),
        "show": Leaf("alert:show", "certificate-unrenewed"),
        "rules": Leaf("alert:rules"),
        "silence": Leaf("alert:silence", "webhook-failing --subject plant --lifetime 4h --reason 'moved on Monday'"),
        "unsilence": Leaf("alert:unsilence", "webhook-failing --subject plant"),
        "silences": Leaf("alert:silences"),
    },
    "ls",
)
APPROVAL = CommandGroup(
    "Approvals of irreversible operations by a second user.",
    {
        "ls": Leaf("approval:list_approvals"),
        "approve": Leaf("approval:approve", "5f2d9c01"),
        "reject": Leaf("approval:reject", "5f2d9c01"),
    },
    "ls",
)
TREE = CommandGroup(
    "",  # `birthmark.cli.app.root` has the text and the exit codes
    {
        "demo": Leaf("demo:demo", "azure"),
        "serve": Leaf("serve:serve", "--data ./birthmark-data"),
        "env": Leaf("env:env", 'eval "$(birthmark env)"'),
        "test-server": Leaf("test_server:trial", "--json"),
        "chip": CHIP,
        "agent": AGENT,
        "swarm": SWARM,
        "manifest": MANIFEST,
        "device": DEVICE,
        "server": SERVER,
        "db": DB,
        "pki": PKI,
        "ca": CA,
        "dps": DPS,
        "hub": HUB,
        "aws": AWS,
        "events": Leaf("events:events", "--type 'birthmark.device.*' --follow"),
        "webhook": WEBHOOK,
        "alert": ALERT,
        "console": CONSOLE,
        "user": USER,
        "role": ROLE,
        "token": TOKEN,
        "session": SESSION,
        "approval": APPROVAL,
        "login": Leaf("login:login", "anna.invitation"),
        "logout": Leaf("login:logout"),
        "whoami": Leaf("login:whoami"),
        "doctor": Leaf("doctor:doctor", "--offline"),
        "why": Leaf("why:why", "se050-0001"),
        "upgrade": Leaf("upgrade:upgrade", "--check --data ./birthmark-data"),
        "completion": Leaf("completion:completion", "bash > ~/.local/share/bash-completion/completions/birthmark"),
    },
    "demo azure",
    {
        "Get started": ("demo", "serve", "env", "test-server"),
        "Device": ("chip", "agent", "swarm"),
        "Fleet": ("manifest", "device"),
        "Server": ("server", "console", "db", "pki", "ca", "dps", "hub", "aws", "events", "webhook", "alert"),
        "Access": ("user", "role", "token", "session", "approval", "login", "logout", "whoami"),
        "Help": ("doctor", "why", "upgrade", "completion"),
    },
)

RENAMED = {
    "element list": "chip ls",
    "element": "chip",
    "enroll device": "device enroll",
    "enroll manifest": "device enroll-list",
    "enroll group": "device enroll-group",
    "enroll list": "device ls",
    "enroll remove": "device rm",
    "enroll": "device",
    "fleet": "device",
    "provenance verify": "device provenance",
    "provenance": "device provenance",
    "ca rollover": "pki rollover",
    "est certificates": "pki ls",
    "est user add": "pki user create",
    "est user list": "pki user ls",
    "est user remove": "pki user rm --yes",
    "est bootstrap add": "pki manufacturer create",
    "est bootstrap list": "pki manufacturer ls",
    "est bootstrap remove": "pki manufacturer rm --yes",
    "est bootstrap": "pki manufacturer",
    "est token add": "pki token create",
    "est authority add": "pki ra create",
    "est authority list": "pki ra ls",
    "est authority remove": "pki ra rm --yes",
    "est request list": "pki request ls",
    "est": "pki",
    "dps delete": "dps rm",
    "dps ca list": "dps ca ls",
    "dps ca add": "dps ca create",
    "dps ca remove": "dps ca rm --yes",
    "hub delete": "hub rm",
    "hub devices": "hub device ls",
    "hub device delete": "hub device rm",
    "aws things": "aws thing ls",
    "aws certificates": "aws certificate ls",
    "aws key add": "aws key create",
    "aws key list": "aws key ls",
    "aws key remove": "aws key rm --yes",
    "agent config list": "agent config ls",
    "audit": "server audit",
    "backup": "server backup",
    "restore": "server restore",
    "aws rule dead": "aws rule dead-letters",
    "pki authority": "pki ra",
    "pki maker": "pki manufacturer",
    "server figures": "server counters",
    "server machine": "server node",
    "webhook dead": "webhook dead-letters",
}
"""Commands of earlier releases, which stay valid and print their current name.

A command that previously required no confirmation requires none under its old name, unless it deletes a device with its
twin.
"""
_TRUST = {"--root": "--trust-root"}
_CERTIFICATES = {"--profile": "--cert-profile"}
_CHIP = {"--element": "--chip"}
RENAMED_OPTIONS = {
    "device connect": _CHIP,
    "device register": _CHIP,
    "device send": _CHIP,
    "manifest create": {"--element-ca": "--chip-ca"},
    "chip intake": _TRUST,
    "chip simulate": {"--profile": "--chip"},
    "chip exec": {"--to": "--server"},
    "manifest verify": _TRUST,
    "manifest show": _TRUST,
    "manifest extract": {**_TRUST, "--name": "--named-by"},
    "manifest merge": _TRUST,
    "device enroll-list": _TRUST,
    "device follow": _TRUST,
    "device move": _TRUST,
    "device provenance": _TRUST,
    "db move": {"--to": "--into"},
    "pki ls": _CERTIFICATES,
    "ca show": _CERTIFICATES,
    "ca sign": _CERTIFICATES,
    "ca issue": _CERTIFICATES,
    "ca install": {"--root": "--root-thumbprint"},
    "ca passphrase": {"--to": "--new"},
    "hub monitor": {"--group": "--consumer-group"},
    "aws shadow": {"--name": "--shadow-name"},
}
"""Options with another meaning elsewhere -> current names; the former names still work."""
_SYNONYMS = {
    **dict.fromkeys(("list", "dir", "all"), "ls"),
    **dict.fromkeys(("remove", "delete", "del", "drop"), "rm"),
    **dict.fromkeys(("add", "new", "make"), "create"),
    **dict.fromkeys(("get", "info", "describe", "inspect"), "show"),
    **dict.fromkeys(("element", "se"), "chip"),
    **dict.fromkeys(("enrollment", "put"), "enroll"),
    "start": "serve",
}
_MEANT = {
    **dict.fromkeys(("device add", "device create", "device new"), "device enroll"),
    **dict.fromkeys(("device lost", "device stolen", "device block", "device ban"), "device revoke"),
    **dict.fromkeys(("device unrevoke", "device unblock"), "pki release"),
    **dict.fromkeys(("hub listen", "hub watch", "hub telemetry"), "hub monitor"),
    "hub keys": "hub key",
    "dps keys": "dps key",
    **dict.fromkeys(("server restart", "server stop", "server logs", "server health"), "server status"),
    **dict.fromkeys(("ca renew", "pki renew", "server renew"), "pki rollover"),
    **dict.fromkeys(("emulate", "simulator"), "chip simulate"),
    **dict.fromkeys(("cert", "certificate", "certificates", "est"), "pki"),
    **dict.fromkeys(("join", "server join"), "server node join"),
    "status": "server status",
    "server invite": "server node invite",
    "agent start": "agent run",
    "chip crs": "chip csr",
}
"""Commonly guessed commands -> actual commands."""
_AZURES, _AWSS = {"hub", "dps"}, {"aws"}
"""Command groups per cloud; suggestions for a group of one cloud never name the other's."""
_ALIKE = 0.75
_SHOWN = 3


_NOTES = {
    "server stop": "Stop a server with Ctrl-C, `kill` or `systemctl stop birthmark-server`.",
    "aws thing": "Manage things with the AWS CLI, such as `aws iot delete-thing --thing-name NAME`.",
}
"""Tasks without a command -> instructions."""


def note_on(path: tuple[str, ...], word: str) -> str:
    """Return the instructions for a task without a command; empty if unknown."""
    return _NOTES.get(" ".join((*path, word))) or _NOTES.get(" ".join(path), "")


def leaves(group: CommandGroup = TREE, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Leaf]]:
    """Yield every command with its words, in help order."""
    for name, node in group.commands.items():
        if isinstance(node, Leaf):
            yield (*path, name), node
        else:
            yield from leaves(node, (*path, name))


def renamed(words: list[str]) -> tuple[str, str, list[str]] | None:
    """Return the former and the current name of the first words, and all words with the latter.

    Return None if current.
    """
    for count in range(min(len(words), 3), 0, -1):
        if (now := RENAMED.get(was := " ".join(words[:count]))) is not None:
            return was, now, [*now.split(), *words[count:]]
    return None


def options_renamed(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the renamed options of a command line, and all words with current names."""
    end = words.index("--") if "--" in words else len(words)  # the rest is another program's
    names = next((now for path, now in RENAMED_OPTIONS.items() if words[: path.count(" ") + 1] == path.split()), {})
    said: dict[str, str] = {}
    new = list(words)
    for place, word in enumerate(words[:end]):
        was, equals, value = word.partition("=")
        if (now := names.get(was)) is not None:
            said[was], new[place] = now, f"{now}{equals}{value}"
    return said, new


def example_of(path: str, example: str) -> str:
    """Return the complete line of an example."""
    return example if path in example else f"{path} {example}".rstrip()


def suggest_commands(path: tuple[str, ...], word: str) -> list[str]:
    """Return suggestions for an unknown word after `path`, nearest first."""
    if (known := _MEANT.get(" ".join((*path, word)))) is not None:
        return [known]
    word = _SYNONYMS.get(word, word)
    near: dict[tuple[str, ...], float] = {}
    others = _AWSS if set(path[:1]) & _AZURES else _AZURES if set(path[:1]) & _AWSS else set()
    for words in _paths(TREE):
        if words[0] in others:
            continue
        likeness = max(SequenceMatcher(None, word, one).ratio() for one in (words[-1], *words[-1].split("-")))
        if likeness >= _ALIKE:
            near[words] = likeness
    near.pop(path, None)
    here = {words: likeness for words, likeness in near.items() if words[: len(path)] == path} or near
    found = sorted(here, key=lambda words: (-here[words], len(words)))[:_SHOWN]
    return [" ".join(words) for words in found or [path]]


def _paths(group: CommandGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, node in group.commands.items():
        yield (*path, name)
        if isinstance(node, CommandGroup):
            yield from _paths(node, (*path, name))
