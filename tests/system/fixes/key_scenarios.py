"""Keys in files and in tokens, and the URIs that name them."""

import shlex
from collections.abc import Mapping

from fixes.applied import into
from fixes.element_scenarios import chip
from fixes.scenario import REGISTER, Scenario, after, device, typed
from fixes.scene import Scene, literals_in

ON_RECORD = 'birthmark device enroll --cert "$X509_CERT_FILE"'
BY_URI = 'birthmark device register --cert chip.pem --key "$URI"'
_SECOND = "softhsm2-util --init-token --free --label second --so-pin 12345678 --pin 12345678"


def corrected(scene: Scene, fix: str) -> None:
    """Use the first literal as the URI, and type the others; the PIN is typed where one is asked for."""
    uri, *commands = literals_in(fix)
    (scene.environment["URI"],) = shlex.split(uri)
    for command in commands:
        done = scene.type(command, (scene.directory / "chip/pin").read_text())
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


KEYS: Mapping[str, Scenario] = {
    "keys.file_invalid": Scenario(
        REGISTER,
        after(
            device("fix-cut"),
            "birthmark ca init --name Fixes --dir ca",
            'truncate -s -80 "$X509_KEY_FILE"',
        ),
        is_instead=True,
    ),
    "keys.key_ambiguous": Scenario(
        "birthmark chip refkey id:07 --uri",
        chip("birthmark chip keygen one --id 07; birthmark chip keygen two --id 07"),
        is_instead=True,
    ),
    "keys.key_unsupported": Scenario(
        REGISTER,
        after(
            device("fix-ed25519"),
            "birthmark ca init --name Fixes --dir ca",
            'rm "$X509_KEY_FILE"; openssl genpkey -algorithm ed25519 -out "$X509_KEY_FILE"',
        ),
        is_instead=True,
    ),
    "keys.module_broken": Scenario(
        "birthmark chip cert", typed("touch chip.so", "export BIRTHMARK_PKCS11_MODULE=$PWD/chip.so")
    ),
    "keys.passphrase_wrong": Scenario(
        REGISTER,
        after(
            device("fix-locked"),
            ON_RECORD,
            'echo "open sesame" > phrase',
            'openssl pkey -in "$X509_KEY_FILE" -aes256 -passout file:phrase -out locked.pem',
            'export X509_KEY_FILE="$PWD/locked.pem"',
        ),
        stdin="phrase",
    ),
    "keys.pin_in_uri": Scenario(
        BY_URI,
        chip(
            'export URI="pkcs11:token=SSS_PKCS11;object=sss:F0000100?pin-value=$(cat chip/pin)"',
            "unset BIRTHMARK_PIN_FILE",
        ),
        apply=corrected,
    ),
    "keys.pin_source_in_path": Scenario(
        BY_URI,
        chip(
            'export URI="pkcs11:token=SSS_PKCS11;object=sss:F0000100;pin-source=file:$PWD/chip/pin"',
            "unset BIRTHMARK_PIN_FILE",
        ),
        apply=into("URI"),
    ),
    "keys.token_ambiguous": Scenario("birthmark chip cert", chip(_SECOND, "unset BIRTHMARK_TOKEN"), is_instead=True),
    "keys.uri_invalid": Scenario(BY_URI, chip("export URI=pkcs11:slot=1"), apply=into("URI")),
}
