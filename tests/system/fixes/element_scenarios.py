"""Chips: what they hold, what they prove, and which programs can use them."""

from collections.abc import Callable, Mapping

from fixes.scenario import Scenario, typed
from fixes.scene import Scene

ENV = 'eval "$(birthmark env)"'
NONCE = "5f2d9c01"


def chip(*lines: str, profile: str = "se050") -> Callable[[Scene], None]:
    """A software chip whose certificate is on record, and what comes after it."""
    return typed(
        ENV,
        f'eval "$(birthmark chip simulate chip --chip {profile})"; birthmark chip cert --out chip.pem',
        "birthmark device enroll --cert chip.pem",
        *lines,
    )


ELEMENTS: Mapping[str, Scenario] = {
    "elements.certificate_mismatch": Scenario(
        "birthmark chip write device.pem",
        chip(
            "birthmark ca init --name Fixes --dir ca; birthmark ca issue another --dir ca",
            "cp another.cert.pem device.pem",
        ),
    ),
    "elements.certificate_missing": Scenario(
        "birthmark chip cert extra --token SSS_PKCS11 --pin-file=chip/pin",
        chip(
            "birthmark ca init --name Fixes --dir ca; birthmark chip keygen extra",
            "unset BIRTHMARK_TOKEN BIRTHMARK_PIN_FILE",
        ),
    ),
    "elements.data_occupied": Scenario(
        "birthmark device register --chip --remember",
        chip("echo another > foreign; birthmark chip write foreign --object slot8", profile="atecc608"),
        types_all=True,
    ),
    "elements.data_too_large": Scenario(
        "birthmark chip write large.bin --object slot8",
        chip("head -c 500 /dev/urandom > large.bin", profile="atecc608"),
        is_instead=True,
    ),
    "elements.layout_too_small": Scenario(
        "birthmark device register --chip --remember --layout howto",
        typed(
            ENV,
            'eval "$(birthmark chip simulate chip --chip atecc608)"; birthmark chip cert --out chip.pem',
            "birthmark device enroll a-device-of-many-letters --cert chip.pem",
        ),
        is_instead=True,
    ),
    "elements.memory_invalid": Scenario(
        "birthmark device send hello --chip",
        chip("echo another > foreign; birthmark chip write foreign --object slot8", profile="atecc608"),
    ),
    "elements.no_memory": Scenario("birthmark device register --chip --remember", chip(), is_instead=True),
    "elements.no_tls": Scenario(
        "birthmark chip exec -- curl https://localhost/",
        typed('eval "$(birthmark chip simulate chip --chip atecc608 --variant TNGTLS)"'),
        is_instead=True,
    ),
    "elements.program_unsupported": Scenario(
        'birthmark chip exec --how hook -- curl -sSf --cacert "$SSL_CERT_FILE" --cert chip.pem '
        '"https://$PROVISIONING_HOST:8085/.well-known/est/cacerts"',
        chip(),
        is_instead=True,
    ),
    "elements.proof_invalid": Scenario(
        f"birthmark chip prove --check proof.json --nonce {NONCE}",
        chip("birthmark chip prove --nonce another-one > proof.json"),
    ),
    "elements.proof_unreadable": Scenario(
        f"birthmark chip prove --check proof.json --nonce {NONCE}", chip("echo '{}' > proof.json")
    ),
    "elements.software_exists": Scenario("birthmark chip simulate chip", typed("mkdir chip; touch chip/softhsm2.conf")),
}
