"""`[cert_issuance.est]` and the EST keys beside `method = "est"`: URL, credentials, trust."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from birthmark.agent.config.locations import files_of, take_pair
from birthmark.agent.config.model import EstAuth, EstIssuance, X509Pair
from birthmark.agent.config.reader import SECRET, TEXT, MistakeError, Table
from birthmark.agent.config.renewals import parse_renewal
from birthmark.links.urls import UrlInvalidError, meant_url, parse_url

_PATH = "/.well-known/est"
_HTTPS = f"https://host:8085{_PATH}"


@dataclass(frozen=True, slots=True)
class EstDefaults:
    """The global EST settings, for certificates that do not bring their own."""

    trusted: tuple[Path, ...] | None = None
    auth: EstAuth | None = None
    urls: Mapping[str, str | None] = field(default_factory=dict)


def parse_est_defaults(table: Table) -> EstDefaults:
    """Return what `[cert_issuance.est]` says."""
    auth_table, urls_table = table.take_table("auth"), table.take_table("urls")
    trusted = table.take("trusted_certs", files_of)
    auth = None if auth_table is None else parse_auth(auth_table)
    urls = {} if urls_table is None else {name: urls_table.take(name, _url_of) for name in urls_table.names}
    renew = table.take_table("identity_auto_renew")
    if renew is not None:
        parse_renewal(renew)
        table.warn("identity_auto_renew", "is not needed: renewals show the device certificate itself")
    for one in (auth_table, table):
        if one is not None:
            one.finish()
    return EstDefaults(trusted, auth, urls)


def parse_auth(table: Table) -> EstAuth | None:
    """Return the credentials in a table, None when it has none; they may stand beside other keys."""
    username, password = table.take("username", TEXT), table.take("password", SECRET)
    if (username is None) != (password is None):
        missing = "password" if password is None else "username"
        table.wrong(missing, "is missing: user name and password belong together", f'`{missing} = "…"`')
    if username is not None and ":" in username:
        table.wrong("username", "has a colon, which HTTP Basic cannot carry", '`username = "without-colon"`')
    bootstrap = take_pair(table, "bootstrap_identity_cert", "bootstrap_identity_pk")
    identity = take_pair(table, "identity_cert", "identity_pk")
    if bootstrap is not None and identity is not None:
        table.wrong(
            "identity_cert",
            "stands beside bootstrap_identity_cert, and only one of them can count",
            "Keep bootstrap_identity_cert and _pk for a first introduction, or identity_cert and _pk; not both",
        )
    pair = bootstrap or identity
    if username is None and password is None and pair is None:
        return None
    shown = None if pair is None else X509Pair(pair.certificate, pair.key, is_bootstrap=pair is bootstrap)
    return EstAuth(username, password, shown)


def est_issuance(table: Table, defaults: EstDefaults, certificate_id: str) -> EstIssuance:
    """Return how `certificate_id` is issued: its own URL and credentials before the global ones."""
    url = table.take("url", _url_of) or defaults.urls.get(certificate_id) or defaults.urls.get("default")
    is_told = table.source.has_mistakes("cert_issuance")  # what is wrong there is missing here
    if url is None and not is_told:
        table.wrong("url", "no EST URL is given", f'Under `[cert_issuance.est.urls]`: `default = "{_HTTPS}"`')
    auth = parse_auth(table) or defaults.auth
    if auth is None and not is_told:
        table.wrong(
            "method",
            "EST auth is not configured",
            "`[cert_issuance.est.auth]` with username and password, or bootstrap_identity_cert and _pk",
        )
    return EstIssuance(url or "", auth or EstAuth(), defaults.trusted)


def _url_of(value: object) -> str:
    url = TEXT(value)
    accepted = f'`{{name}} = "{meant_url(url, _PATH) or _HTTPS}"`'
    if url.lower().startswith("http://"):
        raise MistakeError("is http, which shows the password to everyone on the way", accepted)
    try:
        parse_url(url)
    except UrlInvalidError as error:
        raise MistakeError("is not a URL", accepted) from error
    return url
