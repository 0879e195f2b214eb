"""Requests and certificates that are not what they should be, refused by the command that reads them."""

from collections.abc import Callable, Mapping

from fixes.scenario import REGISTER, Scenario, after, device, typed
from fixes.scene import Scene

SIGN = "birthmark ca sign device.csr --dir ca --out signed.pem"
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


def swapped(name: str) -> Callable[[Scene], None]:
    return after(
        device(name),
        'birthmark enroll device --cert "$X509_CERT_FILE"',
        'export X509_CERT_FILE="$X509_KEY_FILE" X509_KEY_FILE="$X509_CERT_FILE"',
    )


PKI: Mapping[str, Scenario] = {
    "ca.ca_not_issued": asked_by(f"{REQUEST} -subj /CN=device-1 -addext basicConstraints=critical,CA:TRUE"),
    "ca.no_common_name": asked_by(f"{REQUEST} -subj /CN=device-1/CN=device-2"),
    "keys.file_is_certificate": Scenario(REGISTER, swapped("fix-swapped-key")),
    "pki.certificate_key_swapped": Scenario('birthmark enroll device --cert "$X509_CERT_FILE"', swapped("fix-swapped")),
    "pki.csr_extension_refused": asked_by(f"{REQUEST} -subj /CN=device-1 -addext 1.2.3.4=critical,ASN1:NULL"),
    "pki.csr_hash_refused": asked_by(f"{REQUEST} -subj /CN=device-1 -sha1"),
    "pki.csr_key_size_refused": asked_by(
        "openssl req -new -nodes -keyout old.key -newkey rsa:1024 -subj /CN=device-1 -out device.csr"
    ),
    "pki.csr_key_type_refused": asked_by(
        "openssl genpkey -algorithm ed25519 -out old.key",
        "openssl req -new -key old.key -subj /CN=device-1 -out device.csr",
    ),
    "pki.csr_malformed": asked_by("printf '0\\003\\002\\001\\005' > device.csr"),
    "pki.csr_signature_invalid": Scenario(SIGN, broken_signature),
    "pki.csr_subject_invalid": asked_by(f"{REQUEST} -subj /"),
    "pki.csr_too_large": asked_by("head -c 70000 /dev/zero > device.csr"),
}
