"""What the CA took back, and names that many ask for at once."""

import tomllib
from collections.abc import Mapping

from fixes.agent_scenarios import ON_RECORD
from fixes.applied import by_itself
from fixes.element_scenarios import chip
from fixes.est_scenarios import ASK, FREE, LEAF, NEW, POST, asking, with_password
from fixes.scenario import Scenario, after, typed
from fixes.scene import Scene, commands_in

OWN = with_password("fix-own", "--device device-1")
CROWD = with_password("fix-crowd", "--device device-1")  # so many at once leave nobody else of that name a turn
AT_ONCE = (  # by one process: sixteen of them would not come at the same moment; on a slow machine they may all pass
    "for round in 1 2 3 4 5; do "
    'yes "url = https://$PROVISIONING_HOST:8085/.well-known/est/simpleenroll" | head -n $COUNT | '
    'curl -sSf --parallel --parallel-immediate --parallel-max 24 --cacert "$SSL_CERT_FILE" $PROOF '
    '-H "Content-Type: application/pkcs10" --data-binary @device.b64 --config - > issued.b64 || exit; '
    "[ $COUNT -gt 1 ] || break; sleep 16; done"  # until the name may send sixteen again
)
CHAIN = f'{LEAF}; cat "$BIRTHMARK_DATA/ca/issuing.pem" >> leaf.pem'
REGISTER = "birthmark device register --cert leaf.pem --key old.key"


def with_the_printed_password(scene: Scene, fix: str) -> None:
    """Type the fix, and ask by the password of the configuration that it prints for another certificate."""
    (command,) = commands_in(fix)
    auth = tomllib.loads(scene.must(command))["cert_issuance"]["est"]["auth"]
    scene.environment["PROOF"] = f"-u {auth['username']}:{auth['password']}"
    scene.must(f"{ASK}; {POST} && {CHAIN}")


def alone(scene: Scene) -> None:
    scene.environment["COUNT"] = "1"


def profiled(lines: str) -> Scenario:
    """A request that a profile of one's own refuses; another is made in its place."""
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout old.key"
    return Scenario(
        f"{NEW}; birthmark ca sign device.csr --dir ca --cert-profile gateway --config server.toml --out device.pem",
        typed(
            "birthmark ca init --name Fixes --dir ca",
            f"openssl req -new {key} -subj /CN=device-1 -addext subjectAltName=DNS:evil.example -out device.csr",
            f"printf '[ca.profiles.gateway]\\nbased_on = \"device\"\\n{lines}\\n' > server.toml",
        ),
    )


AWAY = ("birthmark ca init --name Fixes --dir ca", "cp -r ca root-ca", "rm ca/root.key")
CA: Mapping[str, Scenario] = {
    "ca.answer_refused": Scenario(
        "birthmark ca install servers.answer --dir ca",
        typed(
            *AWAY,
            "birthmark ca request --purpose servers --dir ca --out servers.csr",
            "birthmark ca root sign servers.csr --dir root-ca --out servers.answer",
            "birthmark ca request --purpose servers --dir ca --out servers.csr",
        ),
    ),
    "ca.busy": Scenario(
        "birthmark ca crl --dir ca",
        typed(
            "birthmark ca init --name Fixes --dir ca",
            "(flock --no-fork ca sh -c 'kill -STOP $$' > held 2>&1 < /dev/null &)",
            "until [ -e held ] && ! flock -n ca true; do sleep 0.1; done",
        ),
    ),
    "ca.of_a_server": Scenario('birthmark ca crl --dir "$BIRTHMARK_DATA/ca"', is_instead=True),
    "ca.waiting": Scenario(
        "birthmark ca issue web --dir ca",
        typed(
            "birthmark ca init --name Root --flat --dir root-ca",
            "birthmark ca init --name Fixes --offline-root --dir ca --out issuing.csr",
            "birthmark ca root sign issuing.csr --dir root-ca --out issuing.answer",
        ),
    ),
    "ca.links_refused": Scenario(
        "birthmark ca install links.pem --dir ca-next",
        typed(
            *AWAY,
            "birthmark ca init --name Next --dir next-root-ca; birthmark ca init --name Other --dir other-ca",
            "birthmark ca init --name Next --offline-root --dir ca-next --out issuing.csr",
            "birthmark ca root sign issuing.csr --dir next-root-ca --out issuing.answer",
            "birthmark ca install issuing.answer --dir ca-next",
            "birthmark ca root link other-ca --dir next-root-ca --out links.pem",
        ),
    ),
    "ca.purpose_missing": Scenario(
        "birthmark ca issue web --cert-profile server --dir ca", typed(*AWAY), types_all=True
    ),
    "ca.passphrase_missing": Scenario(
        "birthmark ca issue web --dir ca",
        typed(
            "birthmark ca init --name Fixes --dir ca",
            'birthmark ca passphrase --new "file:$HOME/ca.passphrase" --dir ca',
        ),
    ),
    "ca.passphrase_unusable": Scenario(
        'birthmark ca passphrase --new "file:$PWD/two-lines" --dir ca',
        typed("birthmark ca init --name Fixes --dir ca", "(umask 077; printf 'a\\nb\\n' > two-lines)"),
        is_instead=True,
    ),
    "ca.request_refused": Scenario(
        "birthmark ca root sign servers.csr --dir root-ca --out servers.answer",
        typed(
            *AWAY,
            "birthmark ca init --name Others --dir other",
            "birthmark ca request --purpose servers --dir other --out servers.csr",
        ),
    ),
    "ca.key_kind_refused": profiled('keys = [\\"RSA-3072\\"]'),
    "ca.names_refused": profiled('san = \\"keep\\"\\nsan_dns = [\\"example.org\\"]'),
    "ca.token_away": Scenario(
        "birthmark ca issue web --dir ca",
        chip(
            'cp "$BIRTHMARK_PIN_FILE" ca.pin && chmod 600 ca.pin',
            'birthmark ca init --name Fixes --dir ca --token "$BIRTHMARK_TOKEN" --pin-file ca.pin',
            "rm ca.pin",
        ),
        is_instead=True,
    ),
    "ca.profile_unknown": Scenario(
        "birthmark ca issue device-1 --cert-profile gatewy",
        typed("birthmark ca init --name Fixes --dir ca"),
        is_instead=True,
    ),
    "ca.certificate_revoked": Scenario(
        REGISTER,
        after(
            asking,
            FREE,
            OWN,
            f"{POST} && {CHAIN}",
            "birthmark device rm device-1; true",
            *ON_RECORD,
            "birthmark pki revoke --device device-1",
        ),
        apply=with_the_printed_password,
    ),
    "ca.name_moved": Scenario(AT_ONCE, after(asking, FREE, CROWD, POST, "export COUNT=16"), apply=by_itself(alone)),
}
