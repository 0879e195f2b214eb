"""The device's side: files, chips and options that are not there or not meant so."""

from collections.abc import Mapping

from fixes.scenario import REGISTER, Scenario, after, device, typed

CHIP = 'eval "$(birthmark chip simulate chip)"; birthmark chip cert --out chip.pem'


def enrolled(name: str, act: str, *before: str, is_instead: bool = False) -> Scenario:
    """A device that is on record, whose command lacks something."""
    on_record = after(device(name), 'birthmark device enroll --cert "$X509_CERT_FILE"', *before)
    return Scenario(act, on_record, is_instead=is_instead)


DEVICE: Mapping[str, Scenario] = {
    "device.certificate_missing": enrolled(
        "fix-no-cert", 'birthmark device register --cert nowhere.pem --key "$X509_KEY_FILE"', is_instead=True
    ),
    "device.certificate_not_named": enrolled(
        "fix-cert",
        'env -u X509_CERT_FILE birthmark device register --key "$X509_KEY_FILE"',
        is_instead=True,
    ),
    "device.key_not_named": enrolled(
        "fix-no-key",
        'env -u X509_KEY_FILE birthmark device register --cert "$X509_CERT_FILE"',
        is_instead=True,
    ),
    "device.remember_without_element": enrolled("fix-remember", f"{REGISTER} --remember", is_instead=True),
    "elements.key_exists": Scenario(
        "birthmark chip keygen extra", typed(CHIP, "birthmark chip keygen extra"), is_instead=True
    ),
    "keys.file_missing": enrolled(
        "fix-key-file", 'birthmark device register --cert "$X509_CERT_FILE" --key nowhere.pem', is_instead=True
    ),
    "keys.module_missing": Scenario("birthmark chip cert", typed("export BIRTHMARK_PKCS11_MODULE=/nowhere.so")),
    "keys.pin_missing": Scenario(
        "birthmark chip keygen extra < /dev/null",
        typed(CHIP, 'cp "$BIRTHMARK_PIN_FILE" pin.kept; unset BIRTHMARK_PIN_FILE'),
        stdin="pin.kept",
        types_all=True,
    ),
    "keys.token_not_found": Scenario("birthmark chip cert --token none", typed(CHIP), is_instead=True),
    "links.host_unknown": enrolled("fix-dns", REGISTER, "export PROVISIONING_HOST=nowhere.invalid"),
    "links.unreachable": enrolled("fix-address", REGISTER, "export PROVISIONING_HOST=127.9.8.7"),
}
