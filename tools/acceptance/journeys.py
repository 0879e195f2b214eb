"""The journeys. `$NAME` is a name of this run's own, `$PROFILE` where enrollments go (docs/howto/clouds.md)."""

from collections.abc import Mapping

from tools.acceptance.steps import Journey, Step

_AT_HUB = 'at_hub=0; birthmark hub device show "$ID" --profile "$PROFILE" > hub.txt 2>&1 || at_hub=$?; '
"""3: the hub has no such device."""
_HUB = (
    f"{_AT_HUB}test $at_hub = 3 || "
    "python -c 'import os; from azure.iot.hub import IoTHubRegistryManager as R; "
    'R.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"]).delete_device(os.environ["ID"])\''
)
_IS_NEW = (
    f'birthmark device ls --profile "$PROFILE" --json > listed.jsonl; {_AT_HUB}'
    'if grep -qF "\\"$ID\\"" listed.jsonl || test $at_hub != 3; then '
    'cat hub.txt >&2; echo "$ID is there already: it stays as it is" >&2; exit 1; fi'
)
"""What a chip is called may be a device's that is in use: what was not of this run would be removed at its end."""
_ENDED = 'other=$(cat {0}.pid); test "$(readlink /proc/$other/cwd)" != "$PWD" || kill $other'
"""A number that is another's by now stays."""
POLICY = """{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": ["iot:Connect", "iot:Publish"],
      "Resource": ["arn:aws:iot:*:*:client/%(name)s", "arn:aws:iot:*:*:topic/acceptance/%(name)s"]
    }
  ]
}
"""
"""Of the device at AWS: its own name, and one topic."""


def _file_key() -> list[Step]:
    return [
        Step("a CA of this run's own", 'birthmark ca init --name "Acceptance $NAME" --dir ca'),
        Step("a key in a file, and its certificate", "birthmark ca issue $NAME --dir ca --out-dir ."),
    ]


def _at_azure(cert: str, key: str) -> list[Step]:
    """Enroll, register, send, be refused, and go. `$ID` is the certificate's common name."""
    as_device = f"--cert {cert} {key}"
    register = f"birthmark device register {as_device} --json"
    return [
        Step(
            "the device's name",
            f"openssl x509 -in {cert} -noout -subject -nameopt multiline | sed -n 's/ *commonName *= //p'",
            keeps="ID",
        ),
        Step("what is on record", 'birthmark device ls --profile "$PROFILE" --json | wc -l'),
        Step("nothing is there of that name", _IS_NEW),
        Step("what enrolling would do", f"birthmark device enroll --cert {cert} --profile $PROFILE --dry-run"),
        Step(
            "enroll",
            f"birthmark device enroll --cert {cert} --profile $PROFILE --yes",
            writes="an individual enrollment at the provisioning service",
            undo='birthmark device rm "$ID" --profile "$PROFILE" --yes || test $? = 3',
        ),
        Step("enroll again: nothing changes", f"birthmark device enroll --cert {cert} --profile $PROFILE --yes"),
        Step("register", register, writes="a device at the hub, by DPS", undo=_HUB),
        Step("register over HTTPS", f"{register} --transport https"),
        Step(
            "three messages", f"birthmark device send 'acceptance {{n}}' --count 3 {as_device}", writes="three messages"
        ),
        Step("the device as the hub has it", "birthmark hub device show $ID --profile $PROFILE --json"),
        Step(
            "a tag of its twin",
            "birthmark hub twin $ID --tags '{\"acceptance\": true}' --profile $PROFILE --yes",
            writes="a tag of the device's twin, which goes with the device",
        ),
        Step(
            "disable it",
            "birthmark device disable $ID --profile $PROFILE --yes",
            writes="the state of the enrollment",
        ),
        Step("it may not register now", register, is_refused=True),
        Step(
            "enable it again",
            "birthmark device enable $ID --profile $PROFILE --yes",
            writes="the state of the enrollment",
        ),
        Step("it may register again", register),
    ]


def _at_aws(cert: str, say: str) -> list[Step]:
    return [
        Step(
            "a policy",
            "aws iot create-policy --policy-name $NAME --policy-document file://policy.json",
            writes="a policy in the account",
            undo="aws iot delete-policy --policy-name $NAME 2> policy.err || "
            "{ cat policy.err >&2; grep -q ResourceNotFound policy.err; }",
        ),
        Step(
            "what enrolling would do",
            f"birthmark device enroll --cert {cert} --to aws --profile $PROFILE --policy $NAME --dry-run",
        ),
        Step(
            "enroll",
            f"birthmark device enroll --cert {cert} --to aws --profile $PROFILE --policy $NAME --yes",
            writes="a thing and a certificate in the account",
            undo='birthmark device rm $NAME --to aws --profile "$PROFILE" --yes || test $? = 3',
        ),
        Step("enroll again: nothing changes", "birthmark device ls --to aws --profile $PROFILE --json | grep $NAME"),
        Step(
            "where devices connect",
            "aws iot describe-endpoint --endpoint-type iot:Data-ATS --query endpointAddress --output text",
            keeps="AWS_IOT_ENDPOINT",
        ),
        Step("connect and publish", say, writes="a message to acceptance/$NAME"),
        Step("publish what the policy does not allow", f"TOPIC=elsewhere {say}", is_refused=True),
    ]


_SHOWN = "openssl x509 -in device.pem -noout -subject -enddate"
_THERE = "set -a; . ./chip-cloud.env; set +a; "
_WITHOUT_TLS = (
    'case "$BIRTHMARK_PKCS11_MODULE" in cryptoauthlib*) echo "this library signs, and has no TLS"; exit 0;; esac; '
)


def _chip(kind: str) -> list[Step]:
    return [
        Step("what the doctor finds", "birthmark doctor --offline || test $? = 7"),
        Step("the content of the chip", "birthmark chip ls --json"),
        Step(
            "the certificate",
            "birthmark chip cert --out device.pem && openssl x509 -in device.pem -noout -subject -enddate",
        ),
        Step("prove the key", "birthmark chip prove --nonce $(openssl rand -hex 16) > proof.json"),
        Step(
            "a server of this run's own",
            "birthmark serve --data chip-cloud --listen $FREE > chip-cloud.log 2>&1 & echo $! > chip-cloud.pid; "
            "birthmark env --data chip-cloud --wait 30 --format dotenv > chip-cloud.env",
            undo=_ENDED.format("chip-cloud"),
        ),
        Step(
            "enroll there",
            f"{_THERE}birthmark device enroll --cert device.pem --profile local",
        ),
        Step(
            "TLS with the key in the chip",
            f"{_WITHOUT_TLS}{_THERE}birthmark device send 'from a {kind}' --count 3 --chip --json",
        ),
        Step(
            "another program signs with the key in the chip",
            f"{_WITHOUT_TLS}birthmark chip refkey --out device.key; "
            "birthmark chip exec -- openssl req -new -key device.key -subj /CN=$NAME -out device.csr; "
            "openssl req -in device.csr -noout -verify",
        ),
    ]


_CONFIG = """mkdir -p tpm/etc/aziot; cat > tpm/etc/aziot/config.toml <<END
trust_bundle_cert = "file://$PWD/tpm-cloud/trust.pem"

[provisioning]
source = "dps"
global_endpoint = "https://$FREE:8443"
id_scope = "$PROVISIONING_IDSCOPE"

[provisioning.attestation]
method = "tpm"
registration_id = "$NAME"

[tpm]
tcti = "$TCTI"
auth_key_index = 0xac0
END
"""


def _tpm() -> list[Step]:
    env = "set -a; . ./tpm-cloud.env; set +a; "
    key = 'python -c \'import json; print(json.load(open("tpm.json"))["{}"])\''
    return [
        Step(
            "a server of this run's own",
            "birthmark serve --data tpm-cloud --listen $FREE > tpm-cloud.log 2>&1 & echo $! > tpm-cloud.pid; "
            "birthmark env --data tpm-cloud --wait 30 --format dotenv > tpm-cloud.env",
            undo=_ENDED.format("tpm-cloud"),
        ),
        Step("a configuration", env + _CONFIG),
        Step(
            "the TPM's keys",
            "birthmark agent tpm --root tpm --json > tpm.json",
            writes="the endorsement and the storage root key into the TPM, where it has none yet",
            stays="the two keys in the TPM: they are the TPM's own, and every program finds the same ones",
        ),
        Step(
            "put it on record",
            f"{env}birthmark device enroll $NAME --endorsement-key $({key.format('endorsement_key')}) "
            f"--storage-root-key $({key.format('storage_root_key')}) --profile local",
        ),
        Step(
            "register by the TPM",
            "birthmark agent apply --root tpm",
            writes="the hub's key into the TPM, at 0x81000ac0, where no agent in use keeps its own",
            stays="the hub's key in the TPM: `tpm2_evictcontrol -C o -c 0x81000ac0` takes it out",
        ),
        Step("it is there", "birthmark agent check --root tpm --offline"),
        Step("as the hub has it", f"{env}birthmark hub device ls --profile local --json"),
    ]


_SAY = "python -m tools.acceptance.say"


def journeys() -> Mapping[str, Journey]:
    """Return every journey by its name."""
    azure = ("PROVISIONING_HOST", "PROVISIONING_IDSCOPE", "IOTHUB_CONNECTION_STRING")
    known = [
        Journey(
            "se050",
            "an SE050 and a server of ours",
            "BIRTHMARK_PKCS11_MODULE is NXP's library (docs/howto/se050.md)",
            ("BIRTHMARK_PKCS11_MODULE",),
            _chip("SE050"),
        ),
        Journey(
            "atecc608",
            "an ATECC608 and a server of ours",
            "BIRTHMARK_PKCS11_MODULE is Microchip's library, or `cryptoauthlib` (docs/howto/atecc608.md)",
            ("BIRTHMARK_PKCS11_MODULE",),
            _chip("ATECC608"),
        ),
        Journey("tpm", "a TPM and a server of ours", "--tcti says how it is reached (docs/howto/tpm.md)", (), _tpm()),
        Journey(
            "azure",
            "a key in a file, at Azure",
            "a profile for the service and the hub (docs/howto/clouds.md), and " + ", ".join(azure),
            azure,
            [*_file_key(), *_at_azure("$NAME.cert.pem", "--key $NAME.key.pem")],
        ),
        Journey(
            "azure-chip",
            "a key in a chip, at Azure",
            "as azure, and BIRTHMARK_PKCS11_MODULE",
            (*azure, "BIRTHMARK_PKCS11_MODULE"),
            [
                Step("the chip's certificate", "birthmark chip cert --out chip.pem"),
                *_at_azure("chip.pem", "--chip"),
            ],
        ),
        Journey(
            "aws",
            "a key in a file, at AWS",
            "a profile (docs/howto/clouds.md), and the same credentials for the aws command",
            (),
            [*_file_key(), *_at_aws("$NAME.cert.pem", f"{_SAY} $NAME $NAME.cert.pem $NAME.key.pem")],
        ),
    ]
    return {one.name: one for one in known}
