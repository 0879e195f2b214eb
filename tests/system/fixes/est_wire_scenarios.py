"""EST as it is on the wire: requests that curl sends wrongly, and servers as the agent meets them."""

from collections.abc import Callable, Mapping

from fixes.applied import Apply, in_file, into, waited
from fixes.est_scenarios import ANY, ASK, LEAF, POST, asking, with_password
from fixes.scenario import Scenario, after
from fixes.scene import Scene, commands_in, fix_shown

SEND = (
    "[ ! -e new.b64 ] || mv new.b64 device.b64; "
    'curl -sSf --cacert "$SSL_CERT_FILE" $PROOF -H "${HEADER:-Content-Type: application/pkcs10}" --data-binary '
    '@device.b64 "https://$PROVISIONING_HOST:8085${EST_PATH:-/.well-known/est/simpleenroll}" -o issued.b64'
)
RENEW = POST.replace("simpleenroll", "simplereenroll")
ENCODE = "openssl req -in device.csr -outform DER | openssl base64 -out device.b64"
FREE = "birthmark pki revoke --device device-1; birthmark pki release device-1; true"
ISSUED = f"{LEAF}; openssl x509 -in leaf.pem -out device.pem; mv old.key device.key"
APPLY = "birthmark agent apply --root device"
CONFIG = "device/etc/aziot/config.toml"
CHALLENGE = (
    "printf '[req]\\nprompt=no\\ndistinguished_name=n\\nattributes=a\\n[n]\\nCN=device-1\\n[a]\\n"
    "challengePassword=abcd\\n' > asked.cnf"
)
OWN_SERVER = "est.device_lifetime_s = 3600\n"
GUESSES = (  # at the very user who comes with the right password then, until six seconds remain to the next one
    'guess() { curl -sS --cacert "$SSL_CERT_FILE" -u fix-late:wrong -H "Content-Type: application/pkcs10" --data x'
    " -o /dev/null -w '%{http_code}' https://$PROVISIONING_HOST:8085/.well-known/est/simpleenroll; }; "
    "until [ $(guess) = 429 ]; do :; done; until [ $(guess) = 401 ]; do :; done"
)
LATE = (
    'eval "$(birthmark env)"',
    with_password("fix-late", "--device fix-est-busy"),
    f"sed -i 's/^username = .*/username = \"fix-late\"/' {CONFIG}",
    f'sed -i "s/^password = .*/password = \\"${{PROOF##*:}}\\"/" {CONFIG}',
    GUESSES,
)


def sent(*before: str) -> Callable[[Scene], None]:
    """A request that is ready to be sent, by somebody who may ask for any name."""
    return after(asking, FREE, ANY, ENCODE, *before)


def agent(name: str, *before: str) -> Callable[[Scene], None]:
    """A device with an agent that is configured as the server says, and may register."""
    return after(
        asking,
        'birthmark dps ca create est-root "$BIRTHMARK_DATA/trust.pem" --verified; '
        "birthmark device enroll-group est --ca-name est-root; true",
        f"mkdir -p $(dirname {CONFIG}); birthmark env --format aziot --registration-id {name} > {CONFIG}",
        f"chmod 0600 {CONFIG}",
        *before,
    )


def told(then: str, suffix: str = "") -> Apply:
    """The command shows the server's refusal, whose fix is typed; `suffix` is what a person adds."""

    def apply(scene: Scene, fix: str) -> None:
        shown = scene.must(commands_in(fix)[0])
        scene.must(commands_in(fix_shown(shown, then))[0] + suffix)

    return apply


EST_WIRE: Mapping[str, Scenario] = {
    "est.authorization_invalid": Scenario(
        'PROOF="$HOW $CREDENTIALS"; ' + SEND,
        sent('export HOW=--oauth2-bearer CREDENTIALS="${PROOF#-u }"'),
        apply=into("HOW"),
    ),
    "est.body_invalid": Scenario(SEND, sent("sed '2s/^./*/' device.csr > device.b64")),
    "est.body_too_large": Scenario(SEND, sent("head -c 50000 /dev/zero | openssl base64 > device.b64")),
    "est.channel_binding_mismatch": Scenario(
        POST,
        after(
            asking,
            FREE,
            ANY,
            CHALLENGE,
            "mv old.key device.key; openssl req -new -batch -config asked.cnf -key device.key -out device.csr",
        ),
    ),
    "est.label_unknown": Scenario(
        SEND, sent("export EST_PATH=/.well-known/est/none/simpleenroll"), apply=into("EST_PATH")
    ),
    "est.media_type": Scenario(SEND, sent("export HEADER='Content-Type: text/plain'"), apply=into("HEADER")),
    "est.reenroll_identity_changed": Scenario(
        RENEW,
        after(
            asking,
            FREE,
            ANY,
            POST,
            ISSUED,
            'export PROOF="--cert device.pem --key device.key"',
            ASK.replace("CN=device-1", "CN=device-2"),
        ),
    ),
    "est.reenroll_without_certificate": Scenario(
        RENEW, after(asking, FREE, ANY, POST, ISSUED, "cp device.key old.key"), apply=into("PROOF")
    ),
    "est.throttled": Scenario(
        POST, after(asking, with_password("fix-late", "--any-name"), GUESSES), apply=waited, config=OWN_SERVER
    ),
    "est.server_answer": Scenario(
        APPLY,
        agent("fix-est-url", f"sed -i 's#8085/.well-known/est#8085/est#' {CONFIG}"),
        apply=in_file(CONFIG, '"(https://[^"]*8085[^"]*)"'),
    ),
    "est.server_busy": Scenario(APPLY, agent("fix-est-busy", *LATE), apply=waited, config=OWN_SERVER),
    "est.server_forbidden": Scenario(
        APPLY,
        agent(
            "fix-est-held",
            with_password("fix-held", "--device fix-est-held"),
            ASK.replace("CN=device-1", "CN=fix-est-held"),
            POST,
            ANY,
            f"sed -i 's/^username = .*/username = \"fix-any\"/' {CONFIG}",
            f'sed -i "s/^password = .*/password = \\"${{PROOF##*:}}\\"/" {CONFIG}',
        ),
        apply=told("ca.name_held"),
    ),
    "est.server_unauthenticated": Scenario(
        APPLY,
        agent("fix-est-wrong", f"sed -i 's/^password = .*/password = \"wrong\"/' {CONFIG}"),
        apply=told("est.password_wrong", f" > {CONFIG}"),
    ),
}
