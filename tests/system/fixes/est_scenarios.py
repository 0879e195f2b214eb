"""EST and its CA: requests by curl, made anew where that is the fix."""

from collections.abc import Mapping

from fixes.agent_scenarios import APPLY, CONFIG, configured, configured_anew
from fixes.scenario import Scenario, after, typed
from fixes.scene import Scene

ASK = (
    "openssl req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout old.key -subj /CN=device-1 "
    "-out device.csr"
)
AGAIN = "openssl req -new -key old.key -subj /CN=device-1 -out device.csr"
NEW = "[ ! -e new.csr ] || mv new.csr device.csr"
POST = (
    f"{NEW}; openssl req -in device.csr -outform DER | openssl base64 -out device.b64; "
    'curl -sSf --cacert "$SSL_CERT_FILE" $PROOF -H "Content-Type: application/pkcs10" --data-binary @device.b64 '
    "https://$PROVISIONING_HOST:8085/.well-known/est/simpleenroll -o issued.b64"
)
LEAF = "openssl base64 -d -in issued.b64 | openssl pkcs7 -inform DER -print_certs -out leaf.pem"


def asking(scene: Scene) -> None:
    scene.must('eval "$(birthmark env)"')
    scene.must(ASK)


def with_password(user: str, option: str) -> str:
    """Make a user and have curl show its password."""
    add = f"birthmark pki user create {user} {option} --json"
    get = "python3 -c 'import json,sys; print(json.load(sys.stdin)[\"password\"])'"
    return f'birthmark pki user rm {user} --yes; export PROOF="-u {user}:$({add} | {get})"'


def named(name: str, user: str) -> str:
    """Ask for another name with the same key, by a password for any name."""
    return f"openssl req -new -key old.key -subj /CN={name} -out device.csr && {with_password(user, '--any-name')}"


ANY = with_password("fix-any", "--any-name")
OWN = with_password("fix-own", "--device device-1")
FREE = "birthmark pki revoke --device device-1; true"
EST: Mapping[str, Scenario] = {
    "ca.already_revoked": Scenario(
        "birthmark pki revoke $(openssl x509 -in leaf.pem -noout -fingerprint -sha256 | cut -d= -f2)",
        after(asking, OWN, POST, LEAF, FREE),
        is_instead=True,
    ),
    "ca.device_not_alive": Scenario("birthmark pki revoke --device fix-nobody", is_instead=True),
    "ca.key_revoked": Scenario(POST, after(asking, OWN, POST, FREE)),
    "ca.key_taken": Scenario(
        POST,
        after(asking, FREE, named("fix-holder", "fix-taken"), POST, AGAIN, with_password("fix-taken", "--any-name")),
    ),
    "ca.name_held": Scenario(POST, after(asking, FREE, OWN, POST, ASK, ANY)),
    "ca.name_not_allowed": Scenario(
        POST, after(asking, with_password("fix-other", "--device another")), is_instead=True
    ),
    "ca.name_lost": Scenario(
        POST,
        after(asking, "birthmark device revoke device-1 --block --yes", OWN),
        config="# a server of its own\n",
    ),
    "device.not_on_record": Scenario("birthmark device revoke fix-nobody --yes", is_instead=True),
    "device.name_unseen": Scenario(
        "birthmark device revoke $'fix-unseen\\xc2\\xa0' --yes",
        typed("birthmark hub device create fix-unseen"),
        is_instead=True,
    ),
    "ca.name_not_held": Scenario("birthmark pki release fix-nobody", is_instead=True),
    "ca.revoked": Scenario(
        POST,
        after(asking, 'birthmark pki revoke --key-of "$BIRTHMARK_DATA/ca/issuing.pem" --yes', OWN),
        is_instead=True,
        config="# a server of its own\n",
    ),
    "est.client_certificate_revoked": Scenario(  # told to an agent, which goes on to ask by its password
        APPLY,
        after(
            configured("fix-revoked"),
            APPLY,
            "birthmark pki revoke --device fix-revoked",
            f"sed -i 's|^password = .*|password = \"of-before\"|' {CONFIG}",
        ),
        apply=configured_anew,
    ),
    "est.client_certificate_unknown": Scenario(
        POST,
        after(
            asking,
            FREE,
            "birthmark ca init --name Maker --dir ca; cp ca/root.pem CA.pem",
            "birthmark ca issue device-1 --dir ca",
            'export PROOF="--cert device-1.cert.pem --key device-1.key.pem"',
        ),
    ),
    "est.credentials_missing": Scenario(
        POST, after(asking, "birthmark pki user rm device-1 --yes; true"), is_instead=True
    ),
    "est.not_a_bootstrap_ca": Scenario(
        "birthmark pki manufacturer create leaf.pem",
        after(asking, OWN, POST, LEAF, "birthmark ca init --name Maker --dir ca; cp ca/root.pem CA.pem"),
        is_instead=True,
    ),
    "est.user_name_invalid": Scenario(
        "birthmark pki user create a:b --any-name", typed("birthmark pki user rm device-1 --yes; true"), is_instead=True
    ),
}
