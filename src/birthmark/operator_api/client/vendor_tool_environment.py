"""Environment variables that point the vendors' tools at a server, from its `endpoints.json`."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_BYPASS = ("no_proxy", "NO_PROXY")


def proxy_bypass_variables(host: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that exclude a host from the environment's proxies; empty if there are none."""
    if not any(environment.get(name) or environment.get(name.upper()) for name in _PROXIES):
        return {}
    known = next((environment[name] for name in _BYPASS if environment.get(name)), "")
    if known.strip() == "*":
        return {}
    named = [one for one in map(str.strip, known.split(",")) if one]
    return dict.fromkeys(_BYPASS, ",".join(named if host in named else [*named, host]))


_SYSTEM_ROOTS = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def variables(endpoints: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment that the vendors' tools read."""
    # These replace a program's own root list, so they also contain the system's roots.
    bundle = str(Path(endpoints["trust_bundle"]).with_name("bundle.pem"))
    found: dict[str, str] = {}
    if (dps := endpoints["dps"]) is not None:
        found |= {
            "PROVISIONING_HOST": dps["host"],
            "PROVISIONING_IDSCOPE": dps["id_scope"],
            "PROVISIONING_CONNECTION_STRING": dps["service_connection_string"],
        }
    if (hub := endpoints["iothub"]) is not None:
        found["IOTHUB_CONNECTION_STRING"] = hub["service_connection_string"]
        if (events := hub.get("event_hubs_connection_string")) is not None:  # null at an older server
            # The samples of azure-eventhub use the first names, those of @azure/event-hubs the others.
            found |= {"EVENT_HUB_CONNECTION_STR": events, "EVENT_HUB_NAME": hub["event_hubs_name"]}
            found |= {"EVENTHUB_CONNECTION_STRING": events, "EVENTHUB_NAME": hub["event_hubs_name"]}
    if (aws := endpoints["aws"]) is not None:
        found |= {
            "AWS_ENDPOINT_URL_IOT": aws["endpoint_url"],
            "AWS_ENDPOINT_URL_IOT_DATA_PLANE": aws["endpoint_url"],
            "AWS_ENDPOINT_URL_IOT_JOBS_DATA_PLANE": aws["endpoint_url"],
            "AWS_REGION": aws["region"],
            "AWS_DEFAULT_REGION": aws["region"],  # the only one for awscli 1
            "AWS_ACCESS_KEY_ID": aws["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": aws["secret_access_key"],
            "AWS_CA_BUNDLE": bundle,
        }
    return found | {
        **_for_our_own(endpoints),
        "CURL_CA_BUNDLE": bundle,
        "SSL_CERT_FILE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "NODE_EXTRA_CA_CERTS": endpoints["trust_bundle"],
    }


def _for_our_own(endpoints: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that direct our own commands to the same server."""
    if "login" in endpoints:
        return {"BIRTHMARK_LOGIN": endpoints["login"]}
    return {"BIRTHMARK_DATA": str(Path(endpoints["trust_bundle"]).parent)}


def as_shell(endpoints: Mapping[str, Any]) -> str:
    """Return `export` lines for `eval "$(birthmark env)"`."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables(endpoints).items())


def as_shell_with_files(endpoints: Mapping[str, Any], directory: str) -> str:
    """Return the same with leading lines that write the roots into a directory of the evaluating shell.

    The roots are then available where the server's own files are not: outside its container, or for another user.
    """
    trust = Path(endpoints["trust_bundle"])
    named = {str(trust): "trust.pem", str(trust.with_name("bundle.pem")): "bundle.pem"}
    place = shlex.quote(directory) if directory.startswith("/") else f'"$PWD"/{shlex.quote(directory)}'
    lines = [f"mkdir -p {place}\n"]
    for path, name in named.items():
        lines.append(f"cat > {place}/{name} <<'END OF ROOTS'\n{Path(path).read_text().rstrip()}\nEND OF ROOTS\n")
    for name, value in variables(endpoints).items():
        lines.append(f"export {name}={f'{place}/{named[value]}' if value in named else shlex.quote(value)}\n")
    return "".join(lines)


def as_bypass(endpoints: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Return `export` lines that exclude a local server from proxies; empty if no proxy is set.

    Clients otherwise send requests for localhost to a network proxy, which fails.
    """
    host = str((endpoints["est"] and urlsplit(endpoints["est"]["url"]).hostname) or "localhost")
    if not (host == "localhost" or host.startswith("127.")):
        return ""
    found = proxy_bypass_variables(host, environment)
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in found.items())


def as_dotenv(endpoints: Mapping[str, Any]) -> str:
    """Return unquoted `NAME=value` lines, for `docker --env-file`, `.env` files and `$GITHUB_ENV`."""
    return "".join(f"{name}={value}\n" for name, value in variables(endpoints).items())


def system_roots() -> bytes:
    """Return the system's root certificates as PEM; empty if there are none."""
    for path in _SYSTEM_ROOTS:
        if Path(path).exists():
            return Path(path).read_bytes().rstrip() + b"\n"
    return b""
