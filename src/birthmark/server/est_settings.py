"""EST configuration: `[est]`, an EST label for each `[est.labels.NAME]`, and the rules for late renewal."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Literal

import msgspec

from birthmark.durations import FORMS, lifetime_of
from birthmark.est.model import EstLabel, EstSettings, LateRenewalRule
from birthmark.est.rules.csr_attributes_and_template import KeyRequirements, render_wish
from birthmark.est.wire import OPERATIONS
from birthmark.pki.certificate_profiles import CertificateProfile
from birthmark.server.ca_settings import CaSubject

_LABEL = re.compile("[A-Za-z0-9][A-Za-z0-9._~-]{0,63}")
_Percent = Annotated[int, msgspec.Meta(ge=1, le=99)]
_Key = Literal["P-256", "P-384", "RSA-2048", "RSA-3072", "RSA-4096"]


class CsrAttributes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The attributes that `csrattrs` requests from devices."""

    key: _Key = "P-256"
    channel_binding: bool = False


class EstLabelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of an EST label: one path segment before the operation."""

    profile: str = "device"
    approval: bool = False
    serverkeygen: bool = False
    csr_attributes: CsrAttributes | None = None
    base64_lines: bool = True


class LateRenewalTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Late renewal: whether devices whose certificate of this profile has expired may renew it."""

    window: str
    approval: bool = False


class UpstreamTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An upstream EST server that signs for this one, and the credentials for it.

    Credentials are a certificate with its key, a user, or both.
    """

    url: Annotated[str, msgspec.Meta(pattern="^https://")]
    trusted_certs: tuple[str, ...] = ()
    certificate: str | None = None
    key: str | None = None
    username: str | None = None
    password_file: str | None = None
    labels: dict[str, str] = {}


class EstConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """EST settings: lifetime of device certificates, further subject attributes, and the rules of each EST label."""

    device_lifetime_s: int = 86400
    subject: CaSubject = CaSubject()
    user: str = "estuser"
    """The user that version 0.1.0 created at its first start; later versions create none."""
    profile: str = "device"
    approval: bool = False
    serverkeygen: bool = False
    csr_attributes: CsrAttributes | None = None
    base64_lines: bool = True
    renewals_per_s: Annotated[float, msgspec.Meta(ge=0.1, le=1e6)] = 400.0
    renewal_window: tuple[_Percent, _Percent] = (60, 80)
    max_live: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1000
    labels: dict[str, EstLabelSettings] = {}
    late_renewal: dict[str, LateRenewalTable] = {}
    upstream: UpstreamTable | None = None


def validate_est(est: EstConfiguration, profiles: Mapping[str, CertificateProfile]) -> Iterator[tuple[str, str]]:
    """Yield key and problem for values that pass the type checks but are invalid."""
    known = ", ".join(sorted(profiles))
    if est.renewal_window[0] > est.renewal_window[1]:
        yield "est.renewal_window", "starts after its end: [60, 80] means 60 to 80 percent of a certificate's lifetime"
    if est.profile not in profiles:
        yield "est.profile", f"is '{est.profile}', which is not a profile; profiles: {known}"
    for name, label in est.labels.items():
        if _LABEL.fullmatch(name) is None or name in OPERATIONS:
            yield (
                f"est.labels.{name}",
                "is not a valid EST label: use 1 to 64 of A-Z a-z 0-9 . _ ~ -, but not the name of an EST operation",
            )
        if label.profile not in profiles:
            yield f"est.labels.{name}.profile", f"is '{label.profile}', which is not a profile; profiles: {known}"
    if est.upstream is not None:
        yield from _mistakes_of_upstream(est.upstream, profiles)
    for name, rule in est.late_renewal.items():
        if name not in profiles:
            yield f"est.late_renewal.{name}", f"is not a profile; profiles: {known}"
        try:
            lifetime_of(rule.window)
        except ValueError:
            yield f"est.late_renewal.{name}.window", f"must be like {FORMS}"


def _mistakes_of_upstream(
    table: UpstreamTable, profiles: Mapping[str, CertificateProfile]
) -> Iterator[tuple[str, str]]:
    for one, other in (("certificate", "key"), ("username", "password_file")):
        if (getattr(table, one) is None) != (getattr(table, other) is None):
            yield f"est.upstream.{one}", f"and est.upstream.{other} must both be set, or neither"
    if table.certificate is None and table.username is None:
        yield "est.upstream", "requires certificate and key, or username and password_file, to authenticate this server"
    for name in table.labels:
        if name not in profiles:
            yield f"est.upstream.labels.{name}", f"is not a profile; profiles: {', '.join(sorted(profiles))}"


def build_est_settings(
    est: EstConfiguration, profiles: Mapping[str, CertificateProfile], workers: int = 1
) -> EstSettings:
    """Return the settings of the EST service; the configuration must have passed `mistakes_of_est`."""
    labels = {name: _door(label, profiles) for name, label in est.labels.items()}
    late_renewal = {name: _late_renewal(rule) for name, rule in est.late_renewal.items()}
    earliest, latest = (percent / 100 for percent in est.renewal_window)
    pace = est.renewals_per_s / workers
    return EstSettings(_door(est, profiles), labels, late_renewal, pace, (earliest, latest), est.max_live, workers)


def _door(said: EstConfiguration | EstLabelSettings, profiles: Mapping[str, CertificateProfile]) -> EstLabel:
    wish = said.csr_attributes
    attributes = None if wish is None else render_wish(KeyRequirements(wish.key, wish.channel_binding))
    return EstLabel(profiles[said.profile], said.approval, said.serverkeygen, attributes, said.base64_lines)


def _late_renewal(rule: LateRenewalTable) -> LateRenewalRule:
    window: timedelta = lifetime_of(rule.window)
    return LateRenewalRule(window, rule.approval)
