"""Certification path validation from a leaf to a trust anchor.

Source: RFC 5280 section 6, as far as devices need it.

The certificates that a client sends with its leaf are unordered and may include extras: Azure's agent sends everything
it ever received from `cacerts`. Paths are checked for dates, signatures, CA:TRUE, path length, key usage, name
constraints and unknown critical extensions. Each certificate is checked individually (`checks`) before any signature.
Each failure has its own class, because each has its own fix.

Not here: revocation by this installation (`ca`), selection of trust anchors (the caller).
"""

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from birthmark.errors import BirthmarkError
from birthmark.pki import single_certificate_checks
from birthmark.pki.certificates import Certificate, Thumbprint, is_signed_by
from birthmark.pki.extension_parser import names_of
from birthmark.pki.name_constraints import NameUnusableError, find_excluded_name
from birthmark.pki.names_and_registration_ids import MAKE_CA, MAKE_CERTIFICATE, SEND_LESS
from birthmark.pki.single_certificate_checks import ChainError

MAX_DEPTH = 8
MAX_BAG = 32
MAX_NEW_SIGNATURES = 24
_MAX_STEPS = 64
T = TypeVar("T")


class ChainIncompleteError(ChainError):
    """An issuer in the chain is missing."""

    code = "pki.chain_incomplete"
    cause = "The issuer '{issuer}' of '{subject}' was neither sent by the device nor registered as a CA."
    fix = (
        "Append the intermediate certificates to the device's certificate file, after the leaf, or enroll that CA. "
        f"If the CA was recreated with the same name and another key ID, reissue the certificate. {MAKE_CERTIFICATE}"
    )
    issuer: str
    subject: str


class ChainTooLongError(ChainError):
    """Too many certificates were sent, or the chain is too deep."""

    code = "pki.chain_too_long"
    cause = "The device sent {count} certificates, or a chain deeper than 8."
    fix = SEND_LESS
    count: int


class CertificateExpiredError(ChainError):
    """The certificate has expired."""

    code = "pki.certificate_expired"
    cause = "The certificate '{subject}' expired at {not_after}; the server's time is {now}."
    fix = (
        "Renew the certificate. To issue a certificate with a key from your own CA: `birthmark ca issue {device} "
        "--dir ca`. If the device's key is still in its secure element, renew over EST with the device's factory "
        "certificate."
    )
    not_after: str
    now: str
    subject: str
    device: str = "device-1"
    """The device's name, if it is a device certificate."""


class CertificateNotYetValidError(ChainError):
    """The certificate is not yet valid."""

    code = "pki.certificate_not_yet_valid"
    cause = "The certificate '{subject}' is valid from {not_before}; the server's time is {now}."
    fix = (
        "Compare the clocks of the issuing machine and of this one: `date -u`. If this one is right, reissue the "
        f"certificate. {MAKE_CERTIFICATE}"
    )
    not_before: str
    now: str
    subject: str


class SignatureBrokenError(ChainError):
    """The issuer's key did not create the signature."""

    code = "pki.signature_broken"
    cause = "'{subject}' names '{issuer}' as its issuer, but that CA's key did not sign the certificate."
    fix = (
        "The CA was probably recreated with the same name: reissue the device certificate, or enroll the right CA. "
        f"{MAKE_CERTIFICATE}"
    )
    issuer: str
    subject: str
    registration_id: str = ""


class NotACAError(ChainError):
    """A certificate that is not a CA's signed another."""

    code = "pki.not_a_ca"
    message = "The issuer is not allowed to sign: {detail}"
    cause = "'{issuer}' signed '{subject}' but is not allowed to sign certificates: {detail}."
    fix = (
        "Create the CA certificate with basicConstraints CA:TRUE and keyUsage keyCertSign, and a sufficient path "
        f"length. {MAKE_CA}"
    )
    detail: str
    issuer: str
    subject: str


class UnknownCriticalExtensionError(ChainError):
    """A critical extension is not supported."""

    code = "pki.unknown_critical_extension"
    cause = "'{subject}' has the critical extension {oid}, which is not supported."
    fix = f"Reissue the certificate without that extension, or mark the extension as not critical. {MAKE_CERTIFICATE}"
    oid: str
    subject: str


class NameForbiddenError(ChainError):
    """A CA's name constraints exclude this name."""

    code = "pki.name_forbidden"
    cause = "'{issuer}' cannot certify the {form} of '{subject}': the CA's name constraints exclude this name."
    fix = (
        "Reissue the certificate with another name, or from a CA without name constraints or with constraints that "
        f"permit this name. {MAKE_CA}"
    )
    form: str
    issuer: str
    subject: str


class TooMuchWorkError(ChainError):
    """The certificates require too many signature checks."""

    code = "pki.too_much_work"
    cause = "The received certificates require more than {limit} signature checks."
    fix = f"Send only the leaf and its intermediates. {MAKE_CERTIFICATE}"
    limit: int


@dataclass(slots=True)
class SignatureCache:
    """Cache of verified signatures, by digest; these never change. Dates and revocation are not cached."""

    max_entries: int = 65536
    _verdicts: OrderedDict[tuple[Thumbprint, Thumbprint], bool] = field(default_factory=OrderedDict, repr=False)

    def is_signed_by(self, certificate: Certificate, issuer: Certificate) -> bool:
        pair = (certificate.thumbprint, issuer.thumbprint)
        if (verdict := self._verdicts.get(pair)) is not None:
            self._verdicts.move_to_end(pair)
            return verdict
        try:
            single_certificate_checks.check_strength(issuer)  # a foreign key may be as large as the certificate allows
            verdict = is_signed_by(certificate, issuer)
        except ChainError:
            verdict = False
        self._verdicts[pair] = verdict
        if len(self._verdicts) > self.max_entries:
            self._verdicts.popitem(last=False)
        return verdict

    def knows(self, certificate: Certificate, issuer: Certificate) -> bool:
        """Return whether the result is cached."""
        return (certificate.thumbprint, issuer.thumbprint) in self._verdicts


@dataclass(slots=True)
class Signatures:
    """Signature checks of one validation: a limited number of new ones, backed by a shared cache."""

    cache: SignatureCache
    left: int = MAX_NEW_SIGNATURES
    asks: bool = False
    """Whether a new signature raises `_AskedError` instead of being verified."""

    def is_signed_by(self, certificate: Certificate, issuer: Certificate) -> bool:
        """Return whether `issuer` signed `certificate`.

        Raise `TooMuchWorkError` if the limit of new checks is exceeded.
        """
        if not self.cache.knows(certificate, issuer):
            if self.asks:
                raise _AskedError(certificate, issuer)
            if self.left <= 0:
                raise TooMuchWorkError(limit=MAX_NEW_SIGNATURES)
            self.left -= 1
        return self.cache.is_signed_by(certificate, issuer)

    def is_self_signed(self, certificate: Certificate) -> bool:
        return certificate.is_self_issued and self.is_signed_by(certificate, certificate)


class _AskedError(Exception):
    """Signal to the caller to check whether the second certificate signed the first."""

    def __init__(self, certificate: Certificate, issuer: Certificate) -> None:
        super().__init__()
        self.pair = certificate, issuer


def decide_in_steps(decide: Callable[[Signatures], T], cache: SignatureCache) -> Generator[None, None, T]:
    """Run a decision in steps of one new signature each.

    A check takes milliseconds, and a chain may need many. The decision is repeated after each step with the known
    results. If all are cached, there is no step.
    """
    asking, looking = Signatures(cache, asks=True), Signatures(cache)
    while True:
        try:
            return decide(asking)
        except _AskedError as asked:
            pair = asked.pair
        yield
        looking.is_signed_by(*pair)


def build_chain(
    leaf: Certificate,
    bag: Sequence[Certificate],
    anchors: Iterable[Certificate],
    now: datetime,
    *,
    allow_partial: bool = False,
    cache: "SignatureCache | Signatures | None" = None,
    purpose: str | None = None,
    max_intermediates: int | None = None,
) -> tuple[Certificate, ...]:
    """Return the chain (leaf first, anchor last) that is valid at `now`, or raise a `ChainError`.

    `allow_partial` permits a chain to end at an anchor that is not self-signed, such as an enrolled intermediate. For a
    registered certificate, key and name count (RFC 5280 section 6.1.1 (d)). `purpose` is a required extended key usage
    of the leaf (dotted). Of several errors the deepest is raised: it is closest to a valid chain.
    """
    if len(bag) > MAX_BAG:
        raise ChainTooLongError(count=len(bag))
    verdicts = cache if isinstance(cache, Signatures) else Signatures(cache or SignatureCache(max_entries=_MAX_STEPS))
    if purpose is not None:
        single_certificate_checks.check_purpose(leaf, purpose)
    trusted = {one.thumbprint: one for one in anchors if allow_partial or verdicts.is_self_signed(one)}
    search = _Search(trusted, _by_subject([*trusted.values(), *bag]), now, verdicts, max_intermediates)
    found = search.extend((leaf,))
    if found is None:
        raise search.reason()
    return found


def check_dates(certificate: Certificate, now: datetime) -> None:
    """Raise `CertificateExpiredError` or `CertificateNotYetValidError`."""
    not_before, not_after = certificate.not_before, certificate.not_after
    if not_before <= now.replace(microsecond=0) <= not_after:  # to the end of that second (RFC 5280 section 4.1.2.5)
        return
    facts = {"subject": certificate.subject_text, "now": _shown(now)}
    if now > not_after:
        device = {} if certificate.is_ca or certificate.subject_cn is None else {"device": certificate.subject_cn}
        raise CertificateExpiredError(not_after=_shown(not_after), **facts, **device)
    if now < not_before:
        raise CertificateNotYetValidError(not_before=_shown(not_before), **facts)


def walk_up(
    leaf: Certificate, bag: Sequence[Certificate], cache: SignatureCache | None = None
) -> tuple[Certificate, ...]:
    """Return the issuers in `bag`, closest to the leaf first, each with a verified signature on the previous.

    Dates and trust are not checked: it is the order in which DPS searches for an enrollment group.
    """
    verdicts = cache or SignatureCache(max_entries=_MAX_STEPS)
    by_subject = _by_subject(bag[:MAX_BAG])
    found: list[Certificate] = []
    current = leaf
    while len(found) < MAX_DEPTH:
        seen = {leaf.thumbprint, *(certificate.thumbprint for certificate in found)}
        candidates = (
            candidate
            for candidate in _issuers_of(current, by_subject)
            if candidate.thumbprint not in seen and verdicts.is_signed_by(current, candidate)
        )
        if (issuer := next(candidates, None)) is None:
            break
        found.append(issuer)
        current = issuer
    return tuple(found)


@dataclass(slots=True)
class _Search:
    """Depth-first search over candidate issuers with limited work; records the failure of the deepest attempt."""

    anchors: dict[Thumbprint, Certificate]
    by_subject: dict[bytes, list[Certificate]]
    now: datetime
    cache: Signatures
    max_intermediates: int | None = None
    steps: int = 0
    failures: list[tuple[int, BirthmarkError]] = field(default_factory=list)

    def extend(self, path: tuple[Certificate, ...]) -> tuple[Certificate, ...] | None:
        """Return the complete chain that starts with `path`, or None after recording the failure."""
        current = path[-1]
        try:
            self._check_alone(current, is_leaf=len(path) == 1)
            if current.thumbprint in self.anchors:
                _check_names(path)
                return path
        except ChainError as error:
            self.failures.append((2 * len(path), error))
            return None
        if len(path) >= MAX_DEPTH or self._is_too_deep(path):
            self.failures.append((2 * len(path), ChainTooLongError(count=len(path))))
            return None
        seen = {certificate.thumbprint for certificate in path}
        for candidate in _issuers_of(current, self.by_subject):
            self.steps += 1
            if candidate.thumbprint in seen or self.steps > _MAX_STEPS:
                continue
            try:
                self._check_issuer(path, candidate)
            except TooMuchWorkError:
                raise
            except ChainError as error:
                self.failures.append((2 * len(path) + 1, error))
                continue
            if (found := self.extend((*path, candidate))) is not None:
                return found
        missing = ChainIncompleteError(subject=current.subject_text, issuer=current.issuer_text)
        self.failures.append((2 * len(path) - 1, missing))
        return None

    def reason(self) -> BirthmarkError:
        return max(self.failures, key=lambda failure: failure[0])[1]

    def _check_alone(self, certificate: Certificate, *, is_leaf: bool) -> None:
        if is_leaf:
            single_certificate_checks.check_strength(certificate)
            single_certificate_checks.check_conforming(certificate)
        else:
            single_certificate_checks.check_ca(certificate)
        if unknown := certificate.extensions.unknown_critical:
            raise UnknownCriticalExtensionError(subject=certificate.subject_text, oid=unknown[0])
        check_dates(certificate, self.now)

    def _is_too_deep(self, path: tuple[Certificate, ...]) -> bool:
        """Return whether another issuer would exceed the maximum of intermediates; self-issued ones do not count."""
        counted = sum(not certificate.is_self_issued for certificate in path[1:])
        return self.max_intermediates is not None and counted > self.max_intermediates

    def _check_issuer(self, path: tuple[Certificate, ...], issuer: Certificate) -> None:
        current = path[-1]

        def facts() -> dict[str, str]:
            return {"subject": current.subject_text, "issuer": issuer.subject_text}

        if not self.cache.is_signed_by(current, issuer):
            raise SignatureBrokenError(**facts())
        says = issuer.extensions
        if not says.is_ca:
            raise NotACAError(detail="it lacks basicConstraints CA:TRUE", **facts())
        if says.key_usage is not None and "key_cert_sign" not in says.key_usage:
            raise NotACAError(detail="its keyUsage lacks keyCertSign", **facts())
        # RFC 5280 section 4.2.1.9: intermediates between this CA and the leaf; self-issued ones do not count.
        below = sum(not certificate.is_self_issued for certificate in path[1:])
        if says.path_length is not None and below > says.path_length:
            raise NotACAError(detail="its path length is exceeded", **facts())


def _check_names(path: Sequence[Certificate]) -> None:
    """Raise `NameForbiddenError` for a name that a CA above excludes (RFC 5280 sections 6.1.3 (b) and (c))."""
    for place, authority in enumerate(path):
        if not place or authority.extensions.name_constraints_der is None:
            continue
        for below, certificate in enumerate(path[:place]):
            if below and certificate.is_self_issued:  # constraints skip self-issued intermediates
                continue
            try:
                constraints = authority.extensions.name_constraints
                refused = None if constraints is None else find_excluded_name(constraints, names_of(certificate.der))
                form = None if refused is None else refused.form
            except (ValueError, TypeError) as error:
                form = str(error) if isinstance(error, NameUnusableError) else "names"
            if form is not None:
                raise NameForbiddenError(
                    subject=certificate.subject_text, issuer=authority.subject_text, form=form.replace("_", " ")
                )


def _by_subject(certificates: Iterable[Certificate]) -> dict[bytes, list[Certificate]]:
    index: dict[bytes, list[Certificate]] = {}
    for certificate in certificates:
        index.setdefault(certificate.subject_der, []).append(certificate)
    return index


def _issuers_of(certificate: Certificate, by_subject: dict[bytes, list[Certificate]]) -> Iterator[Certificate]:
    """Yield the candidates with the issuer's name and a compatible key ID (RFC 5280 section 4.2.1.1)."""
    wanted = certificate.extensions.authority_key_id
    for candidate in by_subject.get(certificate.issuer_der, ()):
        offered = candidate.extensions.subject_key_id
        if wanted is None or offered is None or wanted == offered:
            yield candidate


def _shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
