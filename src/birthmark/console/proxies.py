"""Proxies that a machine has for its way out, which would be asked for what is on it, too."""

from collections.abc import Mapping

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_BYPASS = ("no_proxy", "NO_PROXY")


def past_proxies(host: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables by which programs reach a host without the proxies of their environment; nothing without any."""
    if not any(environment.get(name) or environment.get(name.upper()) for name in _PROXIES):
        return {}
    known = next((environment[name] for name in _BYPASS if environment.get(name)), "")
    if known.strip() == "*":
        return {}
    named = [one for one in map(str.strip, known.split(",")) if one]
    return dict.fromkeys(_BYPASS, ",".join(named if host in named else [*named, host]))
