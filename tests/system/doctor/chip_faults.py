"""Chips: library, settings, token, PIN, label."""

from collections.abc import Mapping

from doctor.fault import CHIP, Fault, typed

KEEP_PIN = 'cp "$BIRTHMARK_PIN_FILE" right-pin; rm chip/pin'
ELSEWHERE = f"{KEEP_PIN}; (umask 077; cp right-pin pin)"
MODULE = 'export BIRTHMARK_PKCS11_MODULE="$PWD/libchip.so"'
# e_machine is AArch64's, 183; on such a machine it is x86-64's.
FOREIGN = "import os; n = 62 if os.uname().machine == 'aarch64' else 183; "
FOREIGN += r"open('libchip.so', 'wb').write(b'\x7fELF\x02\x01\x01' + bytes(9) + b'\x03\0' + bytes((n, 0)) + bytes(44))"
SIGN = "birthmark chip csr --cn device-1 --out device.csr"


def built(body: str) -> str:
    """Build a library that does this when it is loaded."""
    source = f"#include <unistd.h>\\nvoid __attribute__((constructor)) begin(void) {{ {body} }}\\n"
    return f"printf '{source}' > chip.c; gcc -shared -fPIC -w -o libchip.so chip.c"


CHIPS: Mapping[str, Fault] = {
    "no library": Fault(
        typed(CHIP, "export BIRTHMARK_PKCS11_MODULE=/nowhere.so"), "keys.module_missing", "/nowhere.so", works=SIGN
    ),
    "library for another machine": Fault(
        typed(CHIP, f'python -c "{FOREIGN}"', MODULE), "doctor.library_foreign", "built for", works=SIGN
    ),
    "text in the place of a library": Fault(
        typed(CHIP, "echo libsss_pkcs11.so.1 > libchip.so", MODULE),
        "doctor.library_foreign",
        "not a library",
        works=SIGN,
    ),
    "library that crashes": Fault(
        typed(CHIP, built("*(volatile int *)0 = 1;"), MODULE), "doctor.library_crashes", "SIGSEGV", works=SIGN
    ),
    "library that hangs": Fault(typed(CHIP, built("pause();"), MODULE), "doctor.library_hangs", "no response within"),
    "library that is no PKCS#11": Fault(typed(CHIP, built(""), MODULE), "keys.module_broken", "libchip.so", works=SIGN),
    "middleware that nobody named": Fault(
        typed(
            CHIP,
            "mkdir -p root/usr/lib/plug-and-trust",
            'cp "$BIRTHMARK_PKCS11_MODULE" root/usr/lib/plug-and-trust/libsss_pkcs11.so',
            "unset BIRTHMARK_PKCS11_MODULE BIRTHMARK_TOKEN BIRTHMARK_PIN_FILE SOFTHSM2_CONF",
        ),
        "doctor.library_not_named",
        "plug-and-trust",
        options="--offline --root root",
        leaves=("keys.token_not_found", "keys.module_broken", "doctor.channel_plain"),
    ),
    "SoftHSM's settings are gone": Fault(
        typed(CHIP, "export SOFTHSM2_CONF=/gone/softhsm2.conf"),
        "doctor.softhsm_settings_missing",
        "/gone/softhsm2.conf",
        works=SIGN,
    ),
    "SoftHSM's tokens were moved": Fault(
        typed(
            CHIP,
            "mv chip moved",
            'export SOFTHSM2_CONF="$PWD/moved/softhsm2.conf" BIRTHMARK_PIN_FILE="$PWD/moved/pin"',
        ),
        "doctor.softhsm_tokens_missing",
        "chip/tokens",
        works=SIGN,
    ),
    "wrong token label": Fault(
        typed(CHIP, "export BIRTHMARK_TOKEN=SSS"), "keys.token_not_found", "BIRTHMARK_TOKEN=SSS", works=SIGN
    ),
    "wrong slot": Fault(
        typed(CHIP, "unset BIRTHMARK_TOKEN; export BIRTHMARK_SLOT=77"), "keys.token_not_found", "BIRTHMARK_SLOT=77"
    ),
    "several tokens": Fault(
        typed(
            'eval "$(birthmark chip simulate other --chip atecc608)"',
            CHIP,
            "cp -r other/tokens/* chip/tokens/",
            "unset BIRTHMARK_TOKEN",
        ),
        "keys.token_ambiguous",
        "00ABC",
        leaves=("keys.pin_wrong",),  # whichever is named first: the PIN is the other's
    ),
    "wrong PIN": Fault(
        typed(CHIP, KEEP_PIN, '(umask 077; echo 0000 > pin); export BIRTHMARK_PIN_FILE="$PWD/pin"'),
        "keys.pin_wrong",
        "pin incorrect",
        stdin="right-pin",
        works=SIGN,
    ),
    "PIN of another chip": Fault(
        typed(CHIP, '(umask 077; echo 0000 > pin); export BIRTHMARK_PIN_FILE="$PWD/pin"'),
        "keys.pin_wrong",
        "pin incorrect",
        works=SIGN,
    ),
    "white space after the PIN": Fault(
        typed(CHIP, ELSEWHERE, "sed -i 's/$/  /' pin; export BIRTHMARK_PIN_FILE=\"$PWD/pin\""),
        "doctor.pin_has_spaces",
        "white space",
        works=SIGN,
    ),
    "no PIN": Fault(
        typed(CHIP, f"{KEEP_PIN}; unset BIRTHMARK_PIN_FILE"),
        "keys.pin_missing",
        "BIRTHMARK_PIN_FILE",
        stdin="right-pin",
        works=SIGN,
    ),
    "PIN file is gone": Fault(
        typed(CHIP, f'{KEEP_PIN}; export BIRTHMARK_PIN_FILE="$PWD/pin"'),
        "keys.pin_file_missing",
        "no such file",
        stdin="right-pin",
        works=SIGN,
    ),
    "PIN file is open to others": Fault(typed(CHIP, "chmod 0644 chip/pin"), "keys.pin_file", "0644", works=SIGN),
    "label in the other byte order": Fault(
        typed('eval "$(birthmark chip simulate chip --swapped-labels)"'),
        "doctor.label_byte_order",
        "sss:000100F0",
        options="--offline --key sss:F0000100",
        is_instead=True,
    ),
    "label that the chip does not have": Fault(
        typed(CHIP), "keys.key_not_found", "sss:F0000100", options="--offline --key device", is_instead=True
    ),
}
