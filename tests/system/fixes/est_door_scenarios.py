"""EST's doors: tokens, approval, authorities, keys made by the server, devices that come back."""

import json
from collections.abc import Mapping

from fixes.agent_scenarios import APPLY, CONFIG
from fixes.agent_scenarios import configured as a_device
from fixes.applied import configured, into, waited
from fixes.est_scenarios import ANY, ASK, LEAF, OWN, POST, asking, with_password
from fixes.est_wire_scenarios import ENCODE, FREE, OWN_SERVER, SEND
from fixes.scenario import REGISTER, Scenario, after, typed
from fixes.scene import Scene, commands_in, literals_in

TOKEN = (
    "export PROOF=\"-u $(birthmark pki token create device-1 {more}--json | python3 -c 'import json,sys; "
    'made = json.load(sys.stdin); print(made["name"] + ":" + made["password"])\')"'
)
KEYGEN = POST.replace("simpleenroll", "serverkeygen")
CALL = (
    'curl -sSf --cacert "$SSL_CERT_FILE" $METHOD "https://$PROVISIONING_HOST:8085${EST_PATH:-/.well-known/est/cacerts}"'
)
DECRYPT = (
    "printf '[req]\\nprompt=no\\ndistinguished_name=n\\nattributes=a\\n[n]\\nCN=device-1\\n[a]\\n"
    "1.2.840.113549.1.9.16.2.37=key-1\\n' > asked.cnf; mv old.key device.key; "
    "openssl req -new -batch -config asked.cnf -key device.key -out device.csr"
)
SHOW_LEAF = 'export PROOF="--cert leaf.pem --key old.key"'
SHORT = 'est.device_lifetime_s = {s}\nest.comeback.device.window = "{window}"\n'
APPROVAL = "est.approval = true\n"
ID = "import json,sys; print(json.loads(sys.stdin.readline())['id'])"
WAITING = f'$(birthmark pki request ls --json | python3 -c "{ID}")'
GOT = f"{POST} && openssl base64 -d -in issued.b64 | openssl pkcs7 -inform DER -noout"

BY_A_GATEWAY = (
    ASK.replace("device-1", "fix-below").replace("old.key", "own.key").replace("device.csr", "own.csr"),
    "printf 'keyUsage=critical,digitalSignature\\nextendedKeyUsage=clientAuth\\n' > own.ext",
    "openssl x509 -req -in own.csr -CA leaf.pem -CAkey old.key -days 1 -extfile own.ext -out own.pem",
    'cat own.pem leaf.pem "$BIRTHMARK_DATA/ca/edge.pem" > shown.pem',
    "export X509_CERT_FILE=shown.pem X509_KEY_FILE=own.key",
)
"""A gateway that has a CA of its own makes a certificate for somebody else."""


def by_token(scene: Scene, fix: str) -> None:
    """Type the fix's command, and show the token from now on."""
    made = json.loads(scene.must(f"{commands_in(fix)[0]} --json"))
    scene.environment["PROOF"] = f"-u {made['name']}:{made['password']}"


def at_a_label_for_cas(scene: Scene, fix: str) -> None:
    """Write the server's line, and below the URLs, which end the device's configuration, the device's."""
    configured(1)(scene, fix)
    with (scene.directory / CONFIG).open("a") as file:
        file.write(f"{literals_in(fix)[0]}\n")


EST_DOORS: Mapping[str, Scenario] = {
    "est.approval_pending": Scenario(GOT, after(asking, ANY), config=APPROVAL),
    "est.approval_rejected": Scenario(
        POST,
        after(asking, ANY, f"{POST}; birthmark pki request reject {WAITING}"),
        config=APPROVAL,
    ),
    "est.too_many_waiting": Scenario(
        f"{ASK}; {POST}",
        after(asking, ANY, f"for n in $(seq 8); do {ASK}; {POST}; done; true"),
        is_instead=True,
        config=APPROVAL,
    ),
    "dps.devices_own_ca": Scenario(
        REGISTER,
        after(
            asking,
            OWN,
            *(POST.replace("simpleenroll", "edge/simpleenroll"), LEAF, *BY_A_GATEWAY),
            'birthmark dps ca create fix-root "$BIRTHMARK_DATA/trust.pem" --verified',
            "birthmark device enroll-group fix-gateways --ca-name fix-root",
        ),
        config='est.labels.edge.profile = "edge_ca"\n',
    ),
    "iothub.devices_own_ca": Scenario(
        'birthmark device send hello --hub "$PROVISIONING_HOST" --device-id fix-below --cert shown.pem --key own.key',
        after(
            asking,
            OWN,
            *(POST.replace("simpleenroll", "edge/simpleenroll"), LEAF, *BY_A_GATEWAY),
            'eval "$(birthmark env)"',
            'birthmark hub ca create fix-root "$BIRTHMARK_DATA/trust.pem" --verified',
            "birthmark hub device create fix-below --by-ca",
        ),
        config='est.labels.edge.profile = "edge_ca"\n',
    ),
    "est.ca_elsewhere": Scenario(
        APPLY,
        a_device("fix-edge-ca", '1i edge_ca = { method = "est" }'),
        apply=at_a_label_for_cas,
        config="est.device_lifetime_s = 3600\n",
    ),
    "est.request_unknown": Scenario("birthmark pki request approve 0123456789abcdef", is_instead=True),
    "est.authority_unknown": Scenario(f"birthmark pki ra rm {'0' * 64} --yes", is_instead=True),
    "est.not_an_authority": Scenario(
        "[ ! -e new-ra.pem ] || mv new-ra.pem ra.pem; birthmark pki ra create ra.pem",
        typed("birthmark ca init --name Maker --dir ca; cp ca/root.pem ra.pem"),
    ),
    "est.token_ended": Scenario(
        POST, after(asking, FREE, TOKEN.format(more="--lifetime 1s "), "sleep 2"), apply=by_token
    ),
    "est.token_lifetime": Scenario("birthmark pki token create device-1 --lifetime 400d", is_instead=True),
    "est.token_used": Scenario(POST, after(asking, FREE, TOKEN.format(more=""), POST, ASK), apply=by_token),
    "est.comeback_too_late": Scenario(
        POST,
        after(asking, ANY, POST, LEAF, SHOW_LEAF, "sleep 4"),
        apply=by_token,
        config=SHORT.format(s=1, window="1s"),
    ),
    "est.busy": Scenario(POST, after(asking, ANY, POST), apply=waited, config="est.renewals_per_s = 0.2\n"),
    "est.clone_suspected": Scenario(
        POST,
        after(
            asking,
            ANY,
            *(POST, LEAF, "cp leaf.pem first.pem", SHOW_LEAF),
            *(POST, LEAF, POST, "cp first.pem leaf.pem", "sleep 5"),
        ),
        apply=by_token,
        config=SHORT.format(s=4, window="1d"),
    ),
    "est.full_cmc": Scenario(
        SEND,
        after(asking, FREE, ANY, ENCODE, "export EST_PATH=/.well-known/est/fullcmc"),
        apply=into("EST_PATH"),
    ),
    "est.method_wrong": Scenario(CALL, after(asking, 'export METHOD="-X PUT"'), apply=into("METHOD")),
    "ca.too_many_alive": Scenario(POST, after(asking, OWN, POST), apply=configured(), config="est.max_live = 1\n"),
    "est.key_generation_off": Scenario(
        KEYGEN, after(asking, with_password("fix-keygen", "--any-name")), apply=configured(), config=OWN_SERVER
    ),
    "est.key_encryption_unsupported": Scenario(KEYGEN, after(asking, ANY, DECRYPT), config="est.serverkeygen = true\n"),
}
