"""The agent's configuration: a mistake, a chip, CAs, host, port."""

from collections.abc import Mapping

from doctor.fault import CHIP, Fault, after, typed
from fixes.agent_scenarios import CONFIG, ON_RECORD

APPLIED = ("doctor.agent_not_running", "doctor.configuration_not_applied")
ROOT = "--root root"
OFFLINE = f"{ROOT} --offline"
UNSET = "unset BIRTHMARK_PKCS11_MODULE BIRTHMARK_TOKEN BIRTHMARK_PIN_FILE"


def configured(*changes: str) -> tuple[str, ...]:
    """A configuration that works but for these changes by sed."""
    made = f"(umask 077; birthmark env --format aziot --registration-id doctor-1 > {CONFIG})"
    return (*ON_RECORD, f"mkdir -p root/etc/aziot; {made}", *(f"sed -i '{one}' {CONFIG}" for one in changes))


def in_a_chip(uri: str) -> tuple[str, ...]:
    """A configuration whose identity is in the software chip, by this URI."""
    text = (
        '[provisioning]\\nsource = \\"dps\\"\\nglobal_endpoint = \\"https://$PROVISIONING_HOST:8443\\"\\n'
        'id_scope = \\"$PROVISIONING_IDSCOPE\\"\\n[provisioning.attestation]\\nmethod = \\"x509\\"\\n'
        'identity_cert = \\"file://$PWD/chip.pem\\"\\n'
        f'identity_pk = \\"{uri}\\"\\n[aziot_keys]\\npkcs11_lib_path = \\"$BIRTHMARK_PKCS11_MODULE\\"\\n'
    )
    return (
        'eval "$(birthmark env)"',
        "birthmark chip cert --chain --out chip.pem",
        f'mkdir -p root/etc/aziot; (umask 077; printf "{text}" > {CONFIG})',
        UNSET,
    )


APPLY = "birthmark agent apply --root root"
GOOD = "pkcs11:token=SSS_PKCS11;object=sss:F0000100?pin-source=file:$PWD/chip/pin"
AGENT: Mapping[str, Fault] = {
    "mistake in the configuration": Fault(
        typed(*configured('s|^source = .*|source = "dbs"|')),
        "agent.config_invalid",
        "source",
        options=OFFLINE,
        leaves=APPLIED,
        works=APPLY,
    ),
    "password in a file that others read": Fault(
        typed(*configured(), f"chmod 0644 {CONFIG}"),
        "doctor.configuration_warning",
        "password",
        options=OFFLINE,
        leaves=APPLIED,
    ),
    "not applied": Fault(
        typed(*configured()),
        "doctor.configuration_not_applied",
        "not applied yet",
        options=OFFLINE,
        leaves=("doctor.agent_not_running",),
    ),
    "configured token that is not there": Fault(
        typed(CHIP, *in_a_chip(GOOD.replace("SSS_PKCS11", "SSS"))),
        "keys.token_not_found",
        "token=SSS",
        options=OFFLINE,
        leaves=APPLIED,
    ),
    "configured label in the other byte order": Fault(
        typed('eval "$(birthmark chip simulate chip --swapped-labels)"', *in_a_chip(GOOD)),
        "doctor.label_byte_order",
        "object=sss:F0000100",
        options=OFFLINE,
        leaves=APPLIED,
    ),
    "configured library that is not there": Fault(
        typed(CHIP, *in_a_chip(GOOD), f"sed -i 's|^pkcs11_lib_path.*|pkcs11_lib_path = \"/gone.so\"|' {CONFIG}"),
        "keys.module_missing",
        "/gone.so",
        options=OFFLINE,
        leaves=APPLIED,
    ),
    "configured PIN that is wrong": Fault(
        typed(
            CHIP, *in_a_chip(GOOD.replace("?pin-source=file:$PWD/chip/pin", "?pin-value=0000")), "mv chip/pin right-pin"
        ),
        "keys.pin_wrong",
        "configuration",
        options=OFFLINE,
        stdin="right-pin",
        leaves=APPLIED,
    ),
    "configured CAs that are gone": Fault(
        typed(*configured('s|^trust_bundle_cert.*|trust_bundle_cert = "file:///gone.pem"|')),
        "agent.certificate_missing",
        "/gone.pem",
        options=OFFLINE,
        leaves=APPLIED,
        works=APPLY,
    ),
    "configured CAs of another server": Fault(
        after(
            typed("birthmark ca init --name Other --dir other"),
            *configured(),
            f'sed -i "s|$BIRTHMARK_DATA/trust.pem|$PWD/other/root.pem|" {CONFIG}',
            "unset SSL_CERT_FILE PROVISIONING_HOST ${!AWS_ENDPOINT*}",
        ),
        "links.server_untrusted",
        "not trusted",
        options=ROOT,
        leaves=APPLIED,
        works=APPLY,
    ),
    "configured host that is not known": Fault(
        typed(*configured('s|^global_endpoint.*|global_endpoint = "https://nowhere.invalid:8443"|')),
        "links.host_unknown",
        "nowhere.invalid",
        options=ROOT,
        leaves=APPLIED,
        works=APPLY,
    ),
    "configured port at which nobody answers": Fault(
        typed(*configured("s|:8085/|:8084/|")),
        "links.unreachable",
        "8084",
        options=ROOT,
        leaves=APPLIED,
        works=APPLY,
    ),
}
