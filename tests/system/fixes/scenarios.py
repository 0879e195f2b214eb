"""For each code: how to provoke it, and the command that is refused. Names in capitals are the scene's files."""

from collections.abc import Callable, Mapping

from fixes.agent_scenarios import AGENT
from fixes.bus_scenarios import BUS
from fixes.ca_scenarios import CA
from fixes.chain_scenarios import CHAINS
from fixes.device_scenarios import DEVICE
from fixes.element_scenarios import ELEMENTS
from fixes.est_door_scenarios import EST_DOORS
from fixes.est_scenarios import EST
from fixes.est_wire_scenarios import EST_WIRE
from fixes.file_scenarios import FILES
from fixes.fleet_scenarios import FLEET
from fixes.intake_scenarios import INTAKE
from fixes.key_scenarios import KEYS
from fixes.limit_scenarios import LIMITS
from fixes.link_scenarios import LINKS
from fixes.machine_scenarios import MACHINES
from fixes.people_scenarios import PEOPLE
from fixes.pki_scenarios import PKI
from fixes.renewal_scenarios import RENEWALS
from fixes.rollover_scenarios import ROLLOVER
from fixes.scenario import REGISTER, Scenario, after, device, typed
from fixes.scene import UNTIL_READY, Scene
from fixes.server_scenarios import SERVER, at_another_address
from fixes.session_scenarios import SESSIONS
from fixes.store_scenarios import STORE
from fixes.swarm_scenarios import SWARM
from fixes.testing_scenarios import TESTING
from fixes.tpm_scenarios import TPM
from fixes.upstream_scenarios import UPSTREAM

from birthmark.flock import take
from support.pki.pki_builders import a_device
from support.server.servers import free_address


def enrolled_otherwise(name: str) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        device(name)(scene)
        scene.must('birthmark device enroll --cert "$X509_CERT_FILE"')
        device(name)(scene)

    return prepare


def disabled(scene: Scene) -> None:
    device("fix-disabled")(scene)
    scene.must('birthmark device enroll --cert "$X509_CERT_FILE"')
    scene.must("birthmark device disable fix-disabled")


def a_ca_of_ones_own(scene: Scene) -> None:
    scene.must("birthmark ca init --name Fixes --dir ca")
    scene.must("birthmark dps ca create fixes ca/issuing.pem")
    scene.must("birthmark device enroll-group fixes --ca-name fixes")
    scene.must("birthmark ca issue fix-unverified --dir ca")
    scene.environment |= {"X509_CERT_FILE": "fix-unverified.cert.pem", "X509_KEY_FILE": "fix-unverified.key.pem"}
    scene.must('eval "$(birthmark env)"')


def a_group_with_its_own_ca(scene: Scene) -> None:
    scene.must(
        "birthmark ca init --name Carried --dir ca; birthmark device enroll-group fix:carried --cert ca/issuing.pem"
    )
    scene.must("birthmark ca issue fix-carried --dir ca")
    scene.environment |= {"X509_CERT_FILE": "fix-carried.cert.pem", "X509_KEY_FILE": "fix-carried.key.pem"}
    scene.must('eval "$(birthmark env)"')


def an_expired_device(scene: Scene) -> None:
    from datetime import UTC, datetime, timedelta

    made = a_device(None, "fix-expired", now=datetime.now(UTC) - timedelta(days=3), lifetime=timedelta(days=1))
    (scene.directory / "old.pem").write_text(made.certificate.pem())


def an_open_key(scene: Scene) -> None:
    device("fix-open")(scene)
    scene.must('birthmark device enroll --cert "$X509_CERT_FILE"; chmod 0644 "$X509_KEY_FILE"')


def a_chip(scene: Scene) -> None:
    scene.must('eval "$(birthmark chip simulate chip)"; birthmark chip cert --out chip.pem')
    scene.must("birthmark chip refkey --out chip.key.pem; birthmark device enroll --cert chip.pem")
    scene.must('eval "$(birthmark env)"')


def a_shipment(scene: Scene) -> None:
    scene.must("birthmark manifest create --out shipment --count 2")


def another_servers_journal(scene: Scene) -> None:
    a_shipment(scene)
    (scene.directory / "journal").write_text('{"format": "birthmark-enroll-journal/1", "target": "another"}\n')


def a_journal_of_notepad(scene: Scene) -> None:
    a_shipment(scene)
    scene.must(f"{MANIFEST} --journal run.journal")
    journal = scene.directory / "run.journal"
    journal.write_bytes(journal.read_text().encode("utf-16"))


def a_template(text: str) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        a_shipment(scene)
        (scene.directory / "template.toml").write_text(text)

    return prepare


def a_journal_in_use(scene: Scene) -> None:
    a_shipment(scene)
    assert take(scene.directory / "journal", patience=1) is not None  # held as long as this process is there


def a_program_with_a_key(scene: Scene) -> None:
    scene.must('eval "$(birthmark env)"')
    (scene.directory / "by_key.py").write_text("""
import os, pathlib
from azure.iot.device import ProvisioningDeviceClient
kept = pathlib.Path("fix-token.key")
client = ProvisioningDeviceClient.create_from_symmetric_key(
    provisioning_host=os.environ["PROVISIONING_HOST"],
    registration_id="fix-token",
    id_scope=os.environ["PROVISIONING_IDSCOPE"],
    symmetric_key=kept.read_text().strip() if kept.exists() else "AAAA",
)
assert client.register().status == "assigned"
""")


A_FAR_PROFILE = after(device("fix-far"), "unset PROVISIONING_HOST")


def https_device(name: str) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        device(name)(scene)
        assert scene.server is not None
        dps = scene.server.endpoints["dps"]
        scene.environment["PROVISIONING_HOST"] = f"{dps['host']}:{dps['https_port']}"

    return prepare


SERVE_ELSEWHERE = f"{UNTIL_READY} birthmark serve --data elsewhere --listen {free_address()}"
WRONG_KEY = 'PROVISIONING_CONNECTION_STRING="${PROVISIONING_CONNECTION_STRING%SharedAccessKey=*}SharedAccessKey=AAAA"'
BY_SDK = "python by_sdk.py"
A_PROGRAM = """cat > by_sdk.py <<'END'
import os
from provisioningserviceclient import ProvisioningServiceClient, QuerySpecification
client = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])
for _ in client.create_individual_enrollment_query(QuerySpecification("SELECT * FROM enrollments")):
    pass
END"""
MANIFEST = (
    "birthmark device enroll-list shipment/manifest.json --signer shipment/signer.pem --trust-root shipment/root.pem"
)
TEMPLATED = f"{MANIFEST} --template template.toml"

SEND = (
    'birthmark device send hello --hub "$PROVISIONING_HOST" --device-id {name} --cert {files}.cert.pem '
    "--key {files}.key.pem"
)
SCENARIOS: Mapping[str, Scenario] = {
    **CHAINS,
    **AGENT,
    **BUS,
    **CA,
    **DEVICE,
    **ELEMENTS,
    **EST,
    **EST_WIRE,
    **EST_DOORS,
    **RENEWALS,
    **ROLLOVER,
    **UPSTREAM,
    **LIMITS,
    **LINKS,
    **MACHINES,
    **PEOPLE,
    **PKI,
    **SESSIONS,
    **STORE,
    **TPM,
    **FILES,
    **FLEET,
    **INTAKE,
    **TESTING,
    **SWARM,
    **KEYS,
    **PEOPLE,
    **PKI,
    **SERVER,
    "ca.missing": Scenario("birthmark ca issue gateway --dir nowhere"),
    "ca.secret_exposed": Scenario(
        "birthmark ca issue gateway --dir ca",
        typed("birthmark ca init --name Fixes --dir ca", "chmod 0644 ca/root.key"),
    ),
    "cli.action_needed": Scenario(
        'birthmark device enroll --cert "$X509_CERT_FILE" --profile cloud', A_FAR_PROFILE, is_instead=True
    ),
    "cli.file_exists": Scenario("birthmark manifest create --out shipment --count 2", a_shipment),
    "cli.option_not_applicable": Scenario(
        'birthmark device enroll --cert "$X509_CERT_FILE" --policy none', device("fix-option"), is_instead=True
    ),
    "dps.ca_not_on_record": Scenario(REGISTER, a_group_with_its_own_ca),
    "dps.certificate_not_given": Scenario("birthmark dps ca create fix-none", is_instead=True),
    "dps.ca_unverified": Scenario(REGISTER, a_ca_of_ones_own),
    "dps.certificate_mismatch": Scenario(REGISTER, enrolled_otherwise("fix-mismatch")),
    "dps.enrollment_disabled": Scenario(REGISTER, disabled),
    "dps.device_taken_back": Scenario(
        REGISTER,
        after(
            device("fix-lost"),
            'birthmark device enroll --cert "$X509_CERT_FILE"',
            "birthmark device revoke fix-lost --yes",
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=fix-lost -days 9 "
            "-addext extendedKeyUsage=clientAuth -keyout again.key -out again.pem 2>/dev/null",
            "export X509_CERT_FILE=again.pem X509_KEY_FILE=again.key",
        ),
        is_instead=True,
    ),
    "dps.not_enrolled": Scenario(REGISTER, device("fix-forgotten")),
    "dps.token_not_enrolled": Scenario("python by_key.py", a_program_with_a_key),
    "dps.registration_id_mismatch": Scenario(
        REGISTER,
        after(
            device("fix-name"),
            'birthmark device enroll --cert "$X509_CERT_FILE"',
            "export DPS_X509_REGISTRATION_ID=another",
        ),
    ),
    "dps.unknown_scope": Scenario(
        REGISTER,
        after(
            device("fix-scope"),
            'birthmark device enroll --cert "$X509_CERT_FILE"',
            "export PROVISIONING_IDSCOPE=0ne00000000",
        ),
    ),
    "dps.verification_missing": Scenario(
        "birthmark dps ca verify fixed",
        typed("birthmark ca init --name Fixed --dir ca", "birthmark dps ca create fixed ca/root.pem"),
        is_instead=True,
    ),
    "enroll.cannot_work": Scenario("birthmark device enroll --cert old.pem", an_expired_device, is_instead=True),
    "enroll.hub_not_linked": Scenario(
        'birthmark device enroll --cert "$X509_CERT_FILE" --hub hub-9',
        after(device("fix-hub"), "birthmark hub create hub-9 --host hub9.example"),
        config="# a server of its own\n",
    ),
    "enroll.name_taken_twice": Scenario(TEMPLATED, a_template('device_id = "gateway"'), is_instead=True),
    "enroll.name_not_allowed": Scenario(TEMPLATED, a_template('device_id = "gate {unique_id}"'), is_instead=True),
    "enroll.value_not_allowed": Scenario(
        f"{TEMPLATED} --to aws", a_template('[aws.attributes]\nsite = "of {common_name}"'), is_instead=True
    ),
    "enroll.template_invalid": Scenario(TEMPLATED, a_template('name = "gateway"'), is_instead=True),
    "enroll.template_unfilled": Scenario(TEMPLATED, a_template('device_id = "{board}"'), is_instead=True),
    "enroll.journal_in_use": Scenario(f"{MANIFEST} --journal journal", a_journal_in_use, is_instead=True),
    "enroll.journal_of_another_target": Scenario(
        f"{MANIFEST} --journal journal", another_servers_journal, is_instead=True
    ),
    "enroll.journal_changed": Scenario(
        f"{MANIFEST} --undo --yes --journal run.journal", a_journal_of_notepad, is_instead=True, types_all=True
    ),
    "enroll.no_journal_of_run": Scenario(
        f"{MANIFEST} --undo --yes --journal shipment/root.pem", a_shipment, is_instead=True
    ),
    "enroll.no_journal": Scenario(f"{MANIFEST} --journal shipment/root.pem", a_shipment, is_instead=True),
    "fleet.different_record": Scenario(
        'birthmark device enroll --cert "$X509_CERT_FILE"', enrolled_otherwise("fix-record"), is_instead=True
    ),
    "hub.module_takes_none": Scenario(
        "birthmark hub c2d fix-c2d/door 'open the valve'",
        typed("birthmark hub device create fix-c2d", "birthmark hub module create fix-c2d door"),
        is_instead=True,
    ),
    "iothub.unknown_device": Scenario(
        'birthmark device send hello --hub "$PROVISIONING_HOST" --cert "$X509_CERT_FILE" --key "$X509_KEY_FILE"',
        device("fix-hub-device"),
        number=1,
    ),
    "keys.file_exposed": Scenario(REGISTER, an_open_key),
    "keys.pin_file": Scenario("birthmark chip cert", after(a_chip, 'chmod 0644 "$BIRTHMARK_PIN_FILE"')),
    "keys.pin_file_missing": Scenario(
        "birthmark chip cert", after(a_chip, 'mv "$BIRTHMARK_PIN_FILE" pin.kept'), stdin="pin.kept"
    ),
    "keys.reference_key": Scenario(
        "birthmark device register --cert chip.pem --key chip.key.pem", a_chip, is_instead=True
    ),
    "links.server_untrusted": Scenario(
        REGISTER,
        after(
            device("fix-trust"),
            'birthmark device enroll --cert "$X509_CERT_FILE"',
            "export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
        ),
    ),
    "operator.server_not_running": Scenario("birthmark hub ls", typed("unset BIRTHMARK_DATA")),
    "tls.client_clock_wrong": Scenario(
        "LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketime.so.1) FAKETIME=+30y"
        ' curl -sS --cacert "$SSL_CERT_FILE" "https://$PROVISIONING_HOST:8443/"',
        typed('eval "$(birthmark env)"'),
        is_instead=True,
    ),
    "tls.server_not_trusted": Scenario(
        REGISTER,
        after(
            device("fix-trust-2"),
            'birthmark device enroll --cert "$X509_CERT_FILE"',
            "export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
        ),
    ),
    "agent.config_misnamed": Scenario(
        "birthmark agent check --offline --config notes/config.toml",
        typed(
            "mkdir notes",
            "(umask 077; birthmark env --format aziot --registration-id notes-1 > notes/config.toml.txt)",
        ),
    ),
    "agent.config_missing": Scenario("birthmark agent check --offline --config new/config.toml"),
    "awsiot.access_key_missing": Scenario("birthmark aws key rm AKIANONE --yes", is_instead=True),
    "awsiot.ca_state": Scenario(
        'aws iot delete-ca-certificate --certificate-id "$ID"',
        typed(
            "birthmark ca init --name Fixes --dir ca",
            'eval "$(birthmark env)"',
            "export ID=$(aws iot register-ca-certificate --ca-certificate file://ca/root.pem --set-as-active "
            "--certificate-mode SNI_ONLY --query certificateId --output text)",
        ),
    ),
    "awsiot.certificate_state": Scenario(
        'aws iot delete-certificate --certificate-id "$ID"',
        after(
            device("fix-aws-state"),
            "export ID=$(aws iot register-certificate-without-ca --status ACTIVE "
            '--certificate-pem "file://$X509_CERT_FILE" --query certificateId --output text)',
        ),
    ),
    "awsiot.unknown_ca": Scenario(
        f"aws iot update-ca-certificate --new-status INACTIVE --certificate-id {'0' * 64}",
        typed('eval "$(birthmark env)"'),
        is_instead=True,
    ),
    "awsiot.unknown_certificate": Scenario(
        f"aws iot update-certificate --new-status INACTIVE --certificate-id {'0' * 64}",
        typed('eval "$(birthmark env)"'),
        is_instead=True,
    ),
    "awsiot.unknown_policy": Scenario(
        "aws iot delete-policy --policy-name none", typed('eval "$(birthmark env)"'), is_instead=True
    ),
    "awsiot.unknown_thing": Scenario(
        "aws iot update-thing --thing-name fix-thing --attribute-payload attributes={a=b}",
        typed('eval "$(birthmark env)"'),
    ),
    "awsiot.unknown_thing_type": Scenario(
        "aws iot create-thing --thing-name fix-typed --thing-type-name fix-type", typed('eval "$(birthmark env)"')
    ),
    "azure.connection_string_invalid": Scenario(
        "birthmark device ls --profile cloud", typed("export PROVISIONING_CONNECTION_STRING=bad"), is_instead=True
    ),
    "ca.certificate_unknown": Scenario(
        "birthmark ca revoke none --dir ca", typed("birthmark ca init --name Fixes --dir ca"), is_instead=True
    ),
    "ca.exists": Scenario(
        "birthmark ca init --name Fixes --dir ca", typed("birthmark ca init --name Fixes --dir ca"), is_instead=True
    ),
    "device.ca_file_missing": Scenario(
        REGISTER,
        after(
            device("fix-ca-file"),
            'birthmark device enroll --cert "$X509_CERT_FILE"',
            "export SSL_CERT_FILE=/nowhere.pem",
        ),
    ),
    "device.dps_not_named": Scenario(
        REGISTER,
        after(device("fix-dps"), 'birthmark device enroll --cert "$X509_CERT_FILE"', "unset PROVISIONING_HOST"),
    ),
    "device.host_invalid": Scenario(
        REGISTER,
        after(device("fix-host"), 'birthmark device enroll --cert "$X509_CERT_FILE"', "export PROVISIONING_HOST=a:b"),
    ),
    "dps.ca_exists": Scenario(
        "birthmark dps ca create twice ca/root.pem",
        typed(
            "birthmark ca init --name Fixes --dir other",
            "birthmark dps ca create twice other/root.pem",
            "birthmark ca init --name Fixes --dir ca",
        ),
    ),
    "iothub.unknown_ca": Scenario("birthmark hub ca code none", is_instead=True),
    "iothub.ca_exists": Scenario(
        "birthmark hub ca create twice ca/root.pem",
        typed(
            "birthmark ca init --name Fixes --dir other",
            "birthmark hub ca create twice other/root.pem",
            "birthmark ca init --name Fixes --dir ca",
        ),
        is_instead=True,
    ),
    "iothub.ca_not_a_ca": Scenario(
        'birthmark hub ca create fix-leaf "$X509_CERT_FILE"', device("fix-hub-leaf"), is_instead=True
    ),
    "iothub.ca_no_code": Scenario(
        "birthmark hub ca verify uncoded proof.pem",
        typed(
            "birthmark ca init --name Fixes --dir ca",
            "birthmark hub ca create uncoded ca/root.pem",
            "birthmark ca verify-possession 00 --dir ca --out proof.pem",
        ),
    ),
    "iothub.ca_not_trusted": Scenario(
        SEND.format(name="fix-untrusted", files="fix-untrusted"),
        typed(
            'eval "$(birthmark env)"',
            "birthmark ca init --name Untrusted --dir ca",
            "birthmark hub device create fix-untrusted --by-ca",
            "birthmark ca issue fix-untrusted --dir ca",
        ),
    ),
    "iothub.ca_unverified": Scenario(
        SEND.format(name="fix-unproven", files="fix-unproven"),
        typed(
            'eval "$(birthmark env)"',
            "birthmark ca init --name Unproven --dir ca",
            "birthmark hub ca create unproven ca/root.pem",
            "birthmark hub device create fix-unproven --by-ca",
            "birthmark ca issue fix-unproven --dir ca",
        ),
    ),
    "iothub.common_name_mismatch": Scenario(
        "f=fix-named; test -f $f.key.pem || f=other; " + SEND.format(name="fix-named", files="$f"),
        typed(
            'eval "$(birthmark env)"',
            "birthmark ca init --name Named --dir ca",
            "birthmark hub ca create named ca/root.pem --verified",
            "birthmark hub device create fix-named --by-ca",
            "birthmark ca issue other --dir ca",
        ),
    ),
    "dps.ca_no_code": Scenario(
        "birthmark dps ca verify uncoded proof.pem",
        typed(
            "birthmark ca init --name Fixes --dir ca",
            "birthmark dps ca create uncoded ca/root.pem",
            "birthmark ca verify-possession 00 --dir ca --out proof.pem",
        ),
    ),
    "dps.client_refused": Scenario(
        f"{REGISTER} --transport https", https_device("fix-refused"), leads_to="dps.not_enrolled"
    ),
    "dps.unknown_instance": Scenario("birthmark dps link birthmark --dps fix-dps"),
    "enroll.not_a_ca": Scenario(
        'birthmark device enroll-group fix-group --cert "$X509_CERT_FILE"', device("fix-leaf"), is_instead=True
    ),
    "est.bootstrap_ca_unknown": Scenario(f"birthmark pki manufacturer rm {'0' * 64} --yes", is_instead=True),
    "est.password_wrong": Scenario(
        'curl -sSf --cacert "$SSL_CERT_FILE" -u fix-edge:wrong -H "Content-Type: application/pkcs10" --data x '
        "https://$PROVISIONING_HOST:8085/.well-known/est/simpleenroll",
        typed('eval "$(birthmark env)"'),
        is_instead=True,
    ),
    "est.user_exists": Scenario(
        "birthmark pki user create fix-user --any-name", typed("birthmark pki user create fix-user --any-name")
    ),
    "est.user_unknown": Scenario("birthmark pki user rm none --yes", is_instead=True),
    "fleet.credentials_refused": Scenario(
        "birthmark device ls --profile cloud",
        after(device("fix-key"), f"export {WRONG_KEY}", "unset PROVISIONING_HOST"),
        is_instead=True,
    ),
    "fleet.no_such_record": Scenario("birthmark device rm none", is_instead=True),
    "fleet.profile_invalid": Scenario("birthmark device ls --profile none", is_instead=True),
    "iothub.unknown_hub": Scenario(  # half of all devices go to its hub from then on
        "birthmark dps link fix-hub", number=1, config="# a server of its own\n"
    ),
    "links.proxy_failed": Scenario(
        REGISTER,
        after(
            device("fix-proxy"),
            'birthmark device enroll --cert "$X509_CERT_FILE"',
            "export https_proxy=http://127.0.0.1:9",
        ),
    ),
    "links.mqtt_refused": Scenario(REGISTER, device("fix-connack"), leads_to="dps.not_enrolled"),
    "sas.signature_mismatch": Scenario(BY_SDK, after(device("fix-sas"), A_PROGRAM, f"export {WRONG_KEY}")),
    "server.data_directory_in_use": Scenario(
        f'birthmark serve --data "$BIRTHMARK_DATA" --listen {free_address()}', is_instead=True
    ),
    "sigv4.signature_mismatch": Scenario(
        "aws iot list-things", typed('eval "$(birthmark env)"', "export AWS_SECRET_ACCESS_KEY=wrong")
    ),
    "sigv4.unknown_access_key": Scenario(
        "aws iot list-things", typed('eval "$(birthmark env)"', "export AWS_ACCESS_KEY_ID=AKIANONE")
    ),
    "cli.command_line": Scenario("birthmark hub ls --none --json", is_instead=True),
    "operator.host_invalid": Scenario("birthmark hub create sued --host s\u00fcd.example", is_instead=True),
    "cli.argument_encoding": Scenario("birthmark hub show \"$(printf 'K\\366ln')\" --json", is_instead=True),
    "cli.column_unknown": Scenario("birthmark hub ls --where host-name=localhost", is_instead=True),
    "cli.command_unknown": Scenario("birthmark hub list --json", is_instead=True),
    "dps.client_not_found": Scenario(
        f'{REGISTER} --transport https --host "$PROVISIONING_HOST:8443"',
        after(
            device("fix-https-scope"),
            'birthmark device enroll --cert "$X509_CERT_FILE"',
            "export PROVISIONING_IDSCOPE=0ne00000000",
        ),
        leads_to="dps.unknown_scope",
    ),
    "dps.instance_exists": Scenario("birthmark dps create birthmark", is_instead=True),
    "dps.service_token_refused": Scenario(
        BY_SDK,
        after(
            device("fix-policy"),
            A_PROGRAM,
            'export PROVISIONING_CONNECTION_STRING="${PROVISIONING_CONNECTION_STRING/KeyName=/KeyName=not-}"',
        ),
    ),
    "dps.unknown_ca": Scenario("birthmark dps ca code none", is_instead=True),
    "elements.data_missing": Scenario("birthmark chip show --object none", a_chip, is_instead=True),
    "elements.no_reference_key": Scenario(
        "birthmark chip refkey extra", after(a_chip, "birthmark chip keygen extra"), is_instead=True
    ),
    "elements.selector_invalid": Scenario("birthmark chip cert id:zz", a_chip, is_instead=True),
    "enroll.ca_not_named": Scenario("birthmark device enroll-group fix-no-ca", is_instead=True),
    "enroll.certificate_not_named": Scenario("birthmark device enroll", a_chip, is_instead=True),
    "refusals.certificate_not_kept": Scenario(f"birthmark device enroll --presented {'0' * 64}", is_instead=True),
    "iothub.hub_exists": Scenario("birthmark hub create birthmark --host other.example", is_instead=True),
    "keys.key_not_found": Scenario("birthmark chip cert none", a_chip, is_instead=True),
    "audit.head_invalid": Scenario("birthmark server audit verify --head head.json", typed("echo '{}' > head.json")),
    "net.port_taken": Scenario(
        'birthmark serve --data another --listen "$PROVISIONING_HOST"',
        typed('eval "$(birthmark env)"', "unset BIRTHMARK_DATA"),
        is_instead=True,
        apply=at_another_address,
    ),
    "server.data_directory_exposed": Scenario(
        SERVE_ELSEWHERE.replace("elsewhere", "exposed"),
        typed("mkdir exposed; chmod 0777 exposed"),
    ),
    "server.records_lost": Scenario(SERVE_ELSEWHERE, typed(SERVE_ELSEWHERE, "rm elsewhere/birthmark.db*")),
}
