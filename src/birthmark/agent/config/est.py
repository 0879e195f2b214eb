"""`[cert_issuance.est]` and the EST keys beside `method = "est"`: URL, credentials, trust."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from birthmark.agent.config.locations import file_of, key_of, take_file
from birthmark.agent.config.model import EstAuth, EstIssuance, X509Pair
from birthmark.agent.config.reader import Table
from birthmark.agent.config.renewals import parse_renewal
from birthmark.links.urls import UrlInvalidError, meant_url, parse_url

_PATH = "/.well-known/est"
_HTTPS = f"https://host:8085{_PATH}"


@dataclass(frozen=True, slots=True)
class EstDefaults:
    """The global EST settings, for certificates that do not bring their own."""

    trusted: tuple[Path, ...] | None = None
    auth: EstAuth | None = None
    urls: Mapping[str, str] | None = None


def parse_est_defaults(table: Table) -> EstDefaults:
    trusted = table.take("trusted_certs")
    files: tuple[Path, ...] | None = None
    if trusted is not None:
        if not isinstance(trusted, list) or not trusted:
            uri = f"file://{trusted.removeprefix('file://')}" if isinstance(trusted, str) else "file:///etc/ca.pem"
            raise table.error("trusted_certs", "must be a list of file URIs", f'`trusted_certs = ["{uri}"]`')
        files = tuple(file_of(table, "trusted_certs", one, in_list=True) for one in trusted)
    auth_table, urls_table = table.take_table("auth"), table.take_table("urls")
    auth = None if auth_table is None else parse_auth(auth_table)
    urls = {}
    if urls_table is not None:
        urls = {name: _url(urls_table, name) for name in urls_table.names}
    renew = table.take_table("identity_auto_renew")
    if renew is not None:
        parse_renewal(renew)
        table.warn("identity_auto_renew", "is not needed: renewals show the device certificate itself")
    for one in (auth_table, urls_table, table):
        if one is not None:
            one.finish()
    return EstDefaults(files, auth, urls)


def parse_auth(table: Table) -> EstAuth | None:
    """Return the credentials in a table, None when it has none; they may stand beside other keys."""
    username, password = table.take_text("username"), table.take_text("password", is_secret=True)
    if (username is None) != (password is None):
        missing = "password" if password is None else "username"
        raise table.error(missing, "is missing: user name and password belong together", f'`{missing} = "…"`')
    if username is not None and ":" in username:
        raise table.error("username", "has a colon, which HTTP Basic cannot carry", '`username = "without-colon"`')
    bootstrap = _pair(table, "bootstrap_identity", is_bootstrap=True)
    identity = _pair(table, "identity", is_bootstrap=False)
    if bootstrap is not None and identity is not None:
        raise table.error(
            "identity_cert",
            "stands beside bootstrap_identity_cert, and only one of them can count",
            "Keep bootstrap_identity_cert and _pk for a first introduction, or identity_cert and _pk; not both",
        )
    if username is None and bootstrap is None and identity is None:
        return None
    return EstAuth(username, password, bootstrap or identity)


def est_issuance(table: Table, defaults: EstDefaults | None, certificate_id: str) -> EstIssuance:
    """Return how `certificate_id` is issued: its own URL and credentials before the global ones."""
    defaults = defaults or EstDefaults()
    urls = defaults.urls or {}
    url = _url(table, "url") if "url" in table else urls.get(certificate_id) or urls.get("default")
    if url is None:
        raise table.error("url", "no EST URL is given", f'Under `[cert_issuance.est.urls]`: `default = "{_HTTPS}"`')
    auth = parse_auth(table) or defaults.auth
    if auth is None:
        raise table.error(
            "method",
            "EST auth is not configured",
            "`[cert_issuance.est.auth]` with username and password, or bootstrap_identity_cert and _pk",
        )
    return EstIssuance(url, auth, defaults.trusted)


def _pair(table: Table, prefix: str, *, is_bootstrap: bool) -> X509Pair | None:
    certificate, key = take_file(table, f"{prefix}_cert"), table.take(f"{prefix}_pk")
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        missing = f"{prefix}_cert" if certificate is None else f"{prefix}_pk"
        raise table.error(missing, "is missing: certificate and key belong together", f'`{missing} = "file:///path"`')
    return X509Pair(certificate, key_of(table, f"{prefix}_pk", key), is_bootstrap)


def _url(table: Table, name: str) -> str:
    url = table.need_text(name, f'"{_HTTPS}"')
    accepted = f'`{name} = "{meant_url(url, _PATH) or _HTTPS}"`'
    if url.lower().startswith("http://"):
        raise table.error(name, "is http, which shows the password to everyone on the way", accepted)
    try:
        parse_url(url)
    except UrlInvalidError as error:
        raise table.error(name, "is not a URL", accepted) from error
    return url
