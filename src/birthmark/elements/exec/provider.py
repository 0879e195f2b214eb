"""OpenSSL's configuration for pkcs11-provider, for one program: it is never the system's that is changed."""

from pathlib import Path

from birthmark.keys.uri import Pkcs11Uri

# `default` first and active, or TLS has no algorithms. Keys are not shared between loads: a program that reconnects
# would hold one of a session that is gone. And the provider does not shut SoftHSM down: programs crashed at their end.
_CONFIGURATION = """\
openssl_conf = birthmark
[birthmark]
providers = providers
[providers]
default = default_provider
pkcs11 = pkcs11_provider
[default_provider]
activate = 1
[pkcs11_provider]
module = {provider}
pkcs11-module-path = {module}
pkcs11-module-cache-keys = false
pkcs11-module-quirks = no-deinit
{pin}activate = 1
"""


def configuration(provider: Path, module: Path, pin: Path | None) -> str:
    """Return what OPENSSL_CONF names; `pin` is the file of the PIN, which has no line's end."""
    line = "" if pin is None else f"pkcs11-module-token-pin = file:{pin}\n"
    return _CONFIGURATION.format(provider=provider, module=module, pin=line)


def without_query(uri: Pkcs11Uri) -> Pkcs11Uri:
    """Return the URI as a file may have it: what opens the token stands in the configuration."""
    return Pkcs11Uri(token=uri.token, object=uri.object, id=uri.id, serial=uri.serial, type="private")
