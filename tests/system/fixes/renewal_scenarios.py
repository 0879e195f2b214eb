"""A renewed certificate at AWS IoT, which is a new principal there."""

from collections.abc import Callable, Mapping

from fixes.scenario import Scenario, after, device
from fixes.scene import Scene, commands_in

from support.aws.device import document, statement

_ANY = document(statement("iot:*"))
CONNECT = (
    '(timeout 100 mosquitto_sub -h "$PROVISIONING_HOST" -p 8883 --cafile "$SSL_CERT_FILE" -i {name} -t {name} '
    "--cert new/{name}.cert.pem --key new/{name}.key.pem > told 2>&1 < /dev/null &) ; true"
)
RENEW = "birthmark device renew {name} --to aws --cert new/{name}.cert.pem"


def with_two(name: str, *more: str) -> Callable[[Scene], None]:
    """A device at AWS, and another certificate of its name."""
    return after(
        device(name),
        f"aws iot create-policy --policy-name {name} --policy-document '{_ANY}'",
        f'birthmark device enroll --to aws --cert "$X509_CERT_FILE" --policy {name}',
        "birthmark ca init --name Another --dir ca",
        f"birthmark ca issue {name} --dir ca --out-dir new",
        *more,
    )


def connecting(name: str) -> Callable[[Scene, str], None]:
    """Let the device connect by its new certificate, and type the fix."""

    def apply(scene: Scene, fix: str) -> None:
        scene.must(CONNECT.format(name=name))
        (command,) = commands_in(fix)
        scene.must(command)

    return apply


RENEWALS: Mapping[str, Scenario] = {
    "awsiot.no_successor": Scenario(
        'birthmark aws certificate renew "$OLD" "$X509_CERT_FILE"',
        with_two(
            "fix-itself",
            'export OLD="$(openssl x509 -in "$X509_CERT_FILE" -outform der | sha256sum | cut -d" " -f1)"',
        ),
        is_instead=True,
    ),
    "fleet.not_connected_by_it": Scenario(
        RENEW.format(name="fix-renewed") + " --wait 1s",
        with_two("fix-renewed"),
        apply=connecting("fix-renewed"),
        is_instead=True,
    ),
    "fleet.no_thing": Scenario(
        RENEW.format(name="fix-nobody"),
        after(
            device("fix-nobody"),
            "birthmark ca init --name Another --dir ca",
            "birthmark ca issue fix-nobody --dir ca --out-dir new",
        ),
        is_instead=True,
    ),
    "fleet.several_certificates": Scenario(
        RENEW.format(name="fix-several").replace("new/", "newer/"),
        with_two(
            "fix-several",
            RENEW.format(name="fix-several"),
            "birthmark ca issue fix-several --dir ca --out-dir newer",
            CONNECT.format(name="fix-several").replace("new/", "newer/"),
        ),
        is_instead=True,
    ),
}
