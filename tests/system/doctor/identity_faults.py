"""The device's files: certificate, key, chain, name."""

from collections.abc import Mapping

from doctor.environment_faults import ENV
from doctor.fault import CHIP, Fault, typed

CA = "birthmark ca init --name Faults --dir ca"
FILES = 'export X509_CERT_FILE="$PWD/device-1.cert.pem" X509_KEY_FILE="$PWD/device-1.key.pem"'
ISSUED = (CA, "birthmark ca issue device-1 --dir ca", FILES)
NAMED = 'for kind in cert key; do mv "$NAME.$kind.pem" device-1.$kind.pem; done'
PYTHON = (
    "python3 -c 'import os, ssl; "
    'ssl.create_default_context().load_cert_chain(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])\''
)
ENROLLED = (
    ENV,
    CA,
    f'NAME="device-$(date +%s%N)"; birthmark ca issue "$NAME" --dir ca; {NAMED}',
    FILES,
    'birthmark device enroll --cert "$X509_CERT_FILE"',
)
"""The server is every row's, so the name is another each time."""
REGISTER = "birthmark device register"

IDENTITY: Mapping[str, Fault] = {
    "key open to others": Fault(
        typed(*ENROLLED, "chmod 0644 device-1.key.pem"),
        "keys.file_exposed",
        "0644",
        works=REGISTER,
    ),
    "certificate and key exchanged": Fault(
        typed(*ENROLLED, 'export X509_CERT_FILE="$X509_KEY_FILE" X509_KEY_FILE="$X509_CERT_FILE"'),
        "keys.file_is_certificate",
        "contains a certificate",
        works=REGISTER,
    ),
    "certificate of another key": Fault(
        typed(*ENROLLED, "birthmark ca issue device-2 --dir ca", 'export X509_CERT_FILE="$PWD/device-2.cert.pem"'),
        "links.certificate_key_mismatch",
        "CN=device-2",
        works=REGISTER,
    ),
    "certificate is gone": Fault(
        typed(*ENROLLED, 'export X509_CERT_FILE="$PWD/device.pem"'),
        "device.certificate_missing",
        "no such file",
        works=REGISTER,
    ),
    "key is gone": Fault(
        typed(*ENROLLED, 'export X509_KEY_FILE="$PWD/device.key"'),
        "keys.file_missing",
        "device.key",
        works=REGISTER,
    ),
    "key with a passphrase": Fault(
        typed(
            *ENROLLED,
            "echo secret-1 > phrase; openssl pkey -aes256 -in device-1.key.pem -passout file:phrase -out new.pem",
            "chmod 0600 new.pem; mv new.pem device-1.key.pem",
        ),
        "keys.passphrase_wrong",
        "PASS_PHRASE",
        stdin="phrase",
        works=REGISTER,
    ),
    "certificate in binary form": Fault(
        typed(
            *ENROLLED,
            "openssl x509 -in device-1.cert.pem -outform der -out device.der",
            'export X509_CERT_FILE="$PWD/device.der"',
        ),
        "doctor.certificate_is_der",
        "DER",
        then=("doctor.chain_incomplete",),  # the binary form holds one certificate
        works=PYTHON,
    ),
    "certificate that has ended": Fault(
        typed(CA, "birthmark ca issue device-1 --dir ca --lifetime 1s", FILES, "sleep 2"),
        "doctor.certificate_expired",
        "CN=device-1",
    ),
    "chain without the CA in between": Fault(
        typed(*ISSUED, "openssl x509 -in device-1.cert.pem -out leaf.pem; mv leaf.pem device-1.cert.pem"),
        "doctor.chain_incomplete",
        "issuing.pem",
    ),
    "registration id that is not the certificate's": Fault(
        typed(*ENROLLED, "export DPS_X509_REGISTRATION_ID=device-7"),
        "doctor.registration_id_mismatch",
        "device-7",
        works=REGISTER,
    ),
    "reference key without a chip": Fault(
        typed(
            CHIP,
            "birthmark chip refkey --out ref.pem; birthmark chip cert --chain --out chip.pem",
            'export X509_KEY_FILE="$PWD/ref.pem" X509_CERT_FILE="$PWD/chip.pem"',
            "unset BIRTHMARK_PKCS11_MODULE BIRTHMARK_TOKEN BIRTHMARK_PIN_FILE SOFTHSM2_CONF",
        ),
        "keys.reference_key",
        "0xF0000100",
    ),
    "reference key of another chip": Fault(
        typed(
            'eval "$(birthmark chip simulate other)"; birthmark chip refkey --out ref.pem',
            CHIP,
            "birthmark chip cert --chain --out chip.pem",
            'export X509_KEY_FILE="$PWD/ref.pem" X509_CERT_FILE="$PWD/chip.pem"',
        ),
        "doctor.reference_key_of_another_chip",
        "sss:F0000100",
    ),
}
