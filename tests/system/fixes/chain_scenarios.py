"""Certificates and chains that do not hold, shown by a device; another certificate is issued and put on record."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from fixes.applied import Apply
from fixes.est_scenarios import POST, asking
from fixes.est_wire_scenarios import FREE
from fixes.scenario import REGISTER, Scenario, typed
from fixes.scene import Scene, commands_in

from birthmark.ca import ca_directory
from birthmark.clock_and_entropy import SystemEntropy
from support.pki.odd_certificates import a_certificate, usage
from support.pki.pki_builders import Holder, a_ca, a_device, an_rsa_key

NOW = datetime.now(UTC)
A_CA = "birthmark ca init --name Fixes --dir ca"
FILES = {"X509_CERT_FILE": "odd.pem", "X509_KEY_FILE": "odd.key"}
ALONE = "birthmark device enroll --cert odd.pem --force --update"
BY_OLD_CLIENT = (
    "printf 'openssl_conf=a\\n[a]\\nssl_conf=b\\n[b]\\nsystem_default=c\\n[c]\\n"
    "CipherString=DEFAULT@SECLEVEL=0\\n' > old.cnf; "
    'OPENSSL_CONF=old.cnf curl -sSf --cacert "$SSL_CERT_FILE" --cert "$X509_CERT_FILE" --key "$X509_KEY_FILE" '
    """-X PUT -H "Content-Type: application/json" -d '{"registrationId": "device-1"}' """
    '"https://$PROVISIONING_HOST:8443/$PROVISIONING_IDSCOPE/registrations/device-1/register?api-version=2019-03-31"'
)
MAY_SIGN = (usage("digital_signature"), True)
CA_KEY = (usage("key_cert_sign"), True)


def shown(scene: Scene, leaf: Holder, *sent: Holder) -> None:
    """Have the device show this."""
    (scene.directory / "odd.pem").write_text("".join(one.certificate.pem() for one in (leaf, *sent)))
    key = scene.directory / "odd.key"
    key.write_text(leaf.key_pem)
    key.chmod(0o600)
    scene.environment |= FILES
    scene.must('eval "$(birthmark env)"')


def renewed(scene: Scene, fix: str) -> None:
    """Type the fix, which issues device-1's certificate; put it on record and show it from now on."""
    scene.must(next(command for command in commands_in(fix) if "ca issue" in command))
    scene.must("birthmark device rm device-1; birthmark device enroll --cert device-1.cert.pem --update")
    scene.environment |= {"X509_CERT_FILE": "device-1.cert.pem", "X509_KEY_FILE": "device-1.key.pem"}


def alone(make: Callable[[], Holder]) -> Scenario:
    """A certificate that is on record by itself."""

    def prepare(scene: Scene) -> None:
        scene.must(A_CA)
        shown(scene, make())
        scene.must(ALONE)

    return Scenario(REGISTER, prepare, apply=renewed)


def below(
    name: str,
    make: Callable[[Holder], Holder],
    ca: Callable[[str], Holder] = lambda name: a_ca(name, now=NOW),
    apply: Apply | None = renewed,
    more: Callable[[Holder, Holder], tuple[Holder, ...]] = lambda _ca, _leaf: (),
) -> Scenario:
    """A certificate of a CA that is on record for a group."""

    def prepare(scene: Scene) -> None:
        scene.must(A_CA)
        above = ca(name)
        leaf = make(above)
        shown(scene, leaf, *more(above, leaf))
        Path(scene.directory / "above.pem").write_text(above.certificate.pem())
        scene.must(f"birthmark device rm device-1; birthmark dps ca create {name} above.pem --verified")
        scene.must(f"birthmark device enroll-group {name} --ca-name {name}")

    return Scenario(REGISTER, prepare, apply=apply)


def odd(*extensions: tuple[x509.ExtensionType, bool], **fields: object) -> Callable[[Holder], Holder]:
    return lambda ca: a_certificate(*extensions, signer=ca, now=NOW, **fields)  # type: ignore[arg-type]  # fields by name


def without_sign(name: str) -> Holder:
    return a_certificate((usage("digital_signature"), True), subject=name, is_ca=True, now=NOW)


def for_example_only(name: str) -> Holder:
    allowed = x509.NameConstraints([x509.DNSName("devices.example")], None)
    return a_certificate(CA_KEY, (allowed, True), subject=name, is_ca=True, now=NOW)


def of_a_namesake(ca: Holder) -> Holder:
    """A certificate of a CA that had the same name, and another key."""
    return a_device(a_ca(ca.certificate.subject_cn or "", now=NOW), now=NOW)


def of_an_intermediate(ca: Holder) -> Holder:
    return a_certificate(
        MAY_SIGN, signer=a_certificate(CA_KEY, subject="Between", signer=ca, is_ca=True, now=NOW), now=NOW
    )


def namesakes(ca: Holder, _leaf: Holder) -> tuple[Holder, ...]:
    """CAs of one name below the one that is on record, any of which may have signed."""
    each = {"subject": "Between", "signer": ca, "is_ca": True, "names_keys": False, "now": NOW}
    return tuple(a_certificate(CA_KEY, **each) for _ in range(30))  # type: ignore[arg-type]  # fields by name


def ended_ca(scene: Scene) -> None:
    ca_directory.create(scene.directory / "ca", "Old", now=NOW - timedelta(days=365 * 40), entropy=SystemEntropy())
    scene.environment["BIRTHMARK_CA_DIR"] = "ca"


def ca_of_later(scene: Scene) -> None:
    ca_directory.create(scene.directory / "ca", "Later", now=NOW + timedelta(days=365 * 9), entropy=SystemEntropy())
    scene.environment["BIRTHMARK_CA_DIR"] = "ca"


def proven(name: str, proof: str) -> Scenario:
    """A CA on record whose proof of possession is wrong."""
    ready = typed(A_CA, f"birthmark dps ca create {name} ca/root.pem", f"birthmark dps ca code {name} > code", proof)
    return Scenario(f"birthmark dps ca verify {name} proof.pem", ready)


def of_another_key_id(ca: Holder) -> Holder:
    """A certificate that names its issuer's key by another id."""
    other = x509.AuthorityKeyIdentifier(b"another", None, None)
    return a_certificate(MAY_SIGN, (other, False), signer=ca, names_keys=False, now=NOW)


def introduced(scene: Scene) -> None:
    """A maker's certificate with far too many behind it, shown to EST."""
    maker = a_ca("Maker", now=NOW)
    scene.must(A_CA)
    shown(scene, a_device(maker, now=NOW), *[a_ca(f"Some CA {n}", now=NOW) for n in range(40)])
    (scene.directory / "maker.pem").write_text(maker.certificate.pem())
    asking(scene)
    scene.must(f"{FREE}; birthmark pki manufacturer create maker.pem")


def padded(scene: Scene, count: int) -> None:
    """A good leaf with far too many CA certificates behind it."""
    leaf = a_device(now=NOW)
    shown(scene, leaf, *[a_ca(f"Some CA {n}", now=NOW) for n in range(count)])
    scene.must("openssl x509 -in odd.pem -out alone.pem && birthmark device enroll --cert alone.pem --force --update")


CHAINS: Mapping[str, Scenario] = {
    "pki.chain_incomplete": below("fix-key-id", of_another_key_id),
    "pki.chain_too_long": Scenario('PROOF="--cert $X509_CERT_FILE --key $X509_KEY_FILE"; ' + POST, introduced),
    "pki.certificate_expired": alone(lambda: a_device(now=NOW - timedelta(days=3), lifetime=timedelta(days=1))),
    "pki.certificate_not_yet_valid": alone(lambda: a_device(now=NOW + timedelta(days=3))),
    "pki.certificate_nonconforming": alone(lambda: a_certificate(CA_KEY, is_ca=False, now=NOW)),
    "pki.key_strength": replace(alone(lambda: a_device(now=NOW, key=an_rsa_key(1024))), act=BY_OLD_CLIENT),
    "pki.issuer_expired": Scenario("birthmark ca issue device-1", ended_ca),
    "pki.issuer_not_begun": Scenario("birthmark ca issue device-1", ca_of_later),
    "pki.name_forbidden": below(
        "fix-names",
        odd(MAY_SIGN, (x509.SubjectAlternativeName([x509.DNSName("elsewhere.example")]), False), is_ca=False),
        for_example_only,
    ),
    "pki.not_a_ca": below("fix-no-ca", odd(MAY_SIGN, is_ca=False), without_sign),
    "pki.possession_code_mismatch": proven("fix-code", "birthmark ca verify-possession 00 --dir ca --out proof.pem"),
    "pki.possession_signature_invalid": proven(
        "fix-sign",
        "birthmark ca init --name Other --dir other; "
        'birthmark ca verify-possession "$(grep -oE "[0-9A-F]{48}" code)" --dir other --out proof.pem',
    ),
    "pki.signature_broken": below("fix-namesake", of_a_namesake),
    "tls.chain_too_large": Scenario(REGISTER, lambda scene: padded(scene, 120)),
    "pki.too_much_work": below("fix-work", of_an_intermediate, more=namesakes),
    "pki.unknown_critical_extension": below(
        "fix-extension",
        odd(MAY_SIGN, (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True), is_ca=False),
    ),
}
