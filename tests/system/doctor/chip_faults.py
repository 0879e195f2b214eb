"""Chips: library, settings, token, PIN, label."""

from collections.abc import Mapping

from doctor.fault import CHIP, Fault, typed

KEEP_PIN = 'cp "$BIRTHMARK_PIN_FILE" right-pin; rm chip/pin'
LIBRARY = "libsofthsm2.so"

CHIPS: Mapping[str, Fault] = {
    "no library": Fault(
        typed(CHIP, "export BIRTHMARK_PKCS11_MODULE=/nowhere.so"), "keys.module_missing", "/nowhere.so"
    ),
    "wrong PIN": Fault(
        typed(CHIP, KEEP_PIN, '(umask 077; echo 0000 > pin); export BIRTHMARK_PIN_FILE="$PWD/pin"'),
        "keys.pin_wrong",
        "PinIncorrect",
        stdin="right-pin",
    ),
    "wrong token label": Fault(
        typed(CHIP, "export BIRTHMARK_TOKEN=SSS"), "keys.token_not_found", "BIRTHMARK_TOKEN=SSS"
    ),
    "label in the other byte order": Fault(
        typed('eval "$(birthmark element simulate chip --swapped-labels)"'),
        "doctor.label_byte_order",
        "sss:000100F0",
        options="--offline --key sss:F0000100",
        is_instead=True,
    ),
}
