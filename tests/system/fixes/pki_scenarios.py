"""Requests and certificates that are not what they should be, refused by the command that reads them."""

import math
import random
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric import rsa
from fixes.scenario import REGISTER, Scenario, after, device, typed
from fixes.scene import Scene

from support.pki.pki_builders import a_csr

NEW = "[ ! -e new.csr ] || mv new.csr device.csr"
SIGN = f"{NEW}; birthmark ca sign device.csr --dir ca --out signed.pem"
REQUEST = "openssl req -new -nodes -keyout old.key -newkey ec -pkeyopt ec_paramgen_curve:P-256 -out device.csr"
A_CA = "birthmark ca init --name Fixes --dir ca"


def asked_by(*lines: str) -> Scenario:
    """A request, made by these lines, that is refused and made anew."""
    return Scenario(SIGN, typed(A_CA, *lines))


def broken_signature(scene: Scene) -> None:
    scene.must(f"{A_CA}; {REQUEST} -subj /CN=device-1 -outform DER")
    path = scene.directory / "device.csr"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def from_a_broken_generator(scene: Scene) -> None:
    """A request with a key as ROCA's generator made them: each prime a power of 65537 modulo many small ones."""
    product = math.prod((11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157))
    chance = random.Random(1)
    primes: list[int] = []
    while len(primes) < 2:
        start = chance.getrandbits(1023) | 3 << 1022  # so that two of them have 2048 bits together
        prime = start - start % product + pow(65537, chance.getrandbits(64), product)
        if prime.bit_length() == 1024 and pow(2, prime - 1, prime) == 1 and prime % 65537 != 1:
            primes.append(prime)
    p, q = primes
    d = pow(65537, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), rsa.rsa_crt_iqmp(p, q), public)
    scene.must(A_CA)
    (scene.directory / "device.csr").write_bytes(a_csr(key=numbers.private_key()))


def swapped(name: str) -> Callable[[Scene], None]:
    return after(
        device(name),
        'birthmark device enroll --cert "$X509_CERT_FILE"',
        'export X509_CERT_FILE="$X509_KEY_FILE" X509_KEY_FILE="$X509_CERT_FILE"',
    )


OWN = "device-1.cert.pem"


def given(*lines: str) -> Scenario:
    """A device's certificate file, made by these lines, that is refused and issued anew."""
    return Scenario(f"birthmark device enroll --cert {OWN} --update", typed(A_CA, *lines))


def shown(extensions: str) -> Scenario:
    """A certificate that is put on record by force and refused when it is shown; another is issued instead."""
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout odd.key"
    make = f"openssl req -x509 -nodes {key} -subj /CN=fix-odd -days 1 {extensions} -out odd.pem"
    files = "export X509_CERT_FILE=odd.pem X509_KEY_FILE=odd.key"
    on_record = "birthmark device enroll --cert odd.pem --force --update"
    return Scenario(REGISTER, typed(A_CA, 'eval "$(birthmark env)"', make, on_record, files), is_instead=True)


ISSUED = (A_CA, "birthmark ca issue device-1 --dir ca", "echo > no-password")
PFX = "openssl pkcs12 -export -in device-1.cert.pem -inkey device-1.key.pem -passout pass: -out device.pfx"
P7B = "openssl crl2pkcs7 -nocrl -outform DER -out device.p7b"


def in_order(scene: Scene, fix: str) -> None:
    """Put the device's certificate, which the fix names, first."""
    assert "'CN=device-1' first" in fix
    scene.must("cat device-1.cert.pem ca/root.pem > chain.pem")


PKI: Mapping[str, Scenario] = {
    "pki.certificate_is_pkcs12": Scenario(
        "birthmark device enroll --cert device.pfx", typed(*ISSUED, PFX), is_instead=True, stdin="no-password"
    ),
    "pki.certificate_is_pkcs12_without_key": Scenario(
        "birthmark device enroll --cert device.pfx",
        typed(*ISSUED, PFX.replace("-inkey device-1.key.pem", "-nokeys")),
        is_instead=True,
        stdin="no-password",
    ),
    "pki.certificate_is_pkcs12_text": Scenario(
        "birthmark device enroll --cert pfx.txt",
        typed(*ISSUED, PFX, "base64 device.pfx > pfx.txt; rm device.pfx"),
        is_instead=True,
    ),
    "pki.certificate_is_pkcs7": Scenario(
        "birthmark device enroll --cert device.p7b", typed(A_CA, P7B), is_instead=True
    ),
    "keys.file_is_pkcs12": Scenario(
        "birthmark device register --cert device-1.cert.pem --key device.pfx",
        typed(*ISSUED, PFX, "chmod 0600 device.pfx"),
        is_instead=True,
        stdin="no-password",
    ),
    "links.chain_order": Scenario(
        "birthmark device register --cert chain.pem --key device-1.key.pem",
        typed(
            *ISSUED,
            'eval "$(birthmark env)"; birthmark device rm device-1; true',  # of a scene before
            "birthmark device enroll --cert device-1.cert.pem --update",
            "cat ca/root.pem device-1.cert.pem > chain.pem",
        ),
        apply=in_order,
    ),
    "pki.certificate_invalid": given(f"printf '0\\003\\002\\001\\005' > {OWN}"),
    "pki.certificate_is_request": Scenario(
        "birthmark device enroll --cert device.csr", typed(A_CA, f"{REQUEST} -subj /CN=device-1"), is_instead=True
    ),
    "pki.certificate_too_large": given(f"(printf '0\\202\\377\\377'; head -c 70000 /dev/zero) > {OWN}"),
    "pki.common_name_invalid": Scenario(f"birthmark ca issue {'a' * 80} --dir ca", typed(A_CA), is_instead=True),
    "pki.wrong_purpose": shown("-addext extendedKeyUsage=serverAuth"),
    "ca.ca_not_issued": asked_by(f"{REQUEST} -subj /CN=device-1 -addext basicConstraints=critical,CA:TRUE"),
    "ca.no_common_name": asked_by(f"{REQUEST} -subj /CN=device-1/CN=device-2"),
    "keys.file_is_certificate": Scenario(REGISTER, swapped("fix-swapped-key")),
    "pki.certificate_key_swapped": Scenario('birthmark device enroll --cert "$X509_CERT_FILE"', swapped("fix-swapped")),
    "pki.csr_extension_refused": asked_by(f"{REQUEST} -subj /CN=device-1 -addext 1.2.3.4=critical,ASN1:NULL"),
    "pki.csr_hash_refused": asked_by(f"{REQUEST} -subj /CN=device-1 -sha1"),
    "pki.csr_key_size_refused": asked_by(
        "openssl req -new -nodes -keyout old.key -newkey rsa:1024 -subj /CN=device-1 -out device.csr"
    ),
    "pki.csr_key_type_refused": asked_by(
        "openssl genpkey -algorithm ed25519 -out old.key",
        "openssl req -new -key old.key -subj /CN=device-1 -out device.csr",
    ),
    "pki.csr_key_weak": Scenario(SIGN, from_a_broken_generator),
    "pki.csr_malformed": asked_by("printf '0\\003\\002\\001\\005' > device.csr"),
    "pki.csr_signature_invalid": Scenario(SIGN, broken_signature),
    "pki.csr_subject_invalid": asked_by(f"{REQUEST} -subj /"),
    "pki.pem_invalid": asked_by("echo nonsense! > device.csr"),
    "pki.requests_several": asked_by(
        f"{REQUEST} -subj /CN=device-1", "cat device.csr device.csr > two", "mv two device.csr"
    ),
    "pki.ocsp_malformed": Scenario(
        'curl -sSf --cacert "$SSL_CERT_FILE" -H "Content-Type: application/ocsp-request" --data-binary @request.der '
        '"https://$PROVISIONING_HOST:8085/ocsp" -o answer.der && openssl ocsp -respin answer.der -noverify',
        typed(
            'eval "$(birthmark env)"',
            'cp "$BIRTHMARK_DATA/ca/root.pem" issuing.pem; cp "$BIRTHMARK_DATA/ca/issuing.pem" device.pem',
            "echo junk > request.der",
        ),
    ),
    "pki.registration_id_invalid": given(
        "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout odd.key -subj '/CN=a b' -days 1 "
        f"-addext basicConstraints=critical,CA:FALSE -out {OWN}"
    ),
    "pki.csr_too_large": asked_by("head -c 70000 /dev/zero > device.csr"),
}
