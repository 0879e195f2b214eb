"""Command `birthmark server status`: report a server's state, readiness and addresses."""

import json
import urllib.error
import urllib.request
from typing import Any

import typer

from birthmark.cli.options.server import ServerOutputOptions
from birthmark.cli.output.command_output import FAILED, emit
from birthmark.operator_api.client.server_discovery_and_api_client import not_running, read_endpoints
from birthmark.untrusted_json_and_text import reason_of

_PATIENCE_S = 10.0
_MAX_BYTES = 64 * 1024


def status(server: ServerOutputOptions) -> None:
    """Show the status and addresses of this machine's server.

    Also shows whether it is ready, and which parts are not.

    Exit code 0: ready; 1: a part is not ready; 5: no server runs.
    """
    endpoints = read_endpoints(server.directory)
    told = _readiness(server, str(endpoints["health_url"]).removesuffix("healthz") + "readyz")
    is_ready = bool(told.pop("ready", False))
    row: dict[str, Any] = {"data": str(server.directory), "ready": is_ready}
    row["not_ready"] = {name: state for name, state in told.items() if state != "ready"} or None
    dps, hub, aws = (endpoints[name] or {} for name in ("dps", "iothub", "aws"))
    row |= {
        "est": (endpoints["est"] or {}).get("url"),
        "dps": dps and f"{dps['host']} (scope {dps['id_scope']})",
        "hub": hub.get("host"),
        "aws": aws.get("endpoint_url"),
        "trust": endpoints["trust_bundle"],
    }
    emit(server.as_json, {name: value for name, value in row.items() if value not in (None, {})})
    if not is_ready:
        raise typer.Exit(FAILED)


def _readiness(server: ServerOutputOptions, url: str) -> dict[str, Any]:
    """Return the response of the health endpoint, ready or not. Raise `ServerNotRunningError`."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # same machine
    try:
        with opener.open(url, timeout=_PATIENCE_S) as answer:
            text = answer.read(_MAX_BYTES)
    except urllib.error.HTTPError as refused:
        text = refused.read(_MAX_BYTES)
    except OSError as error:
        raise not_running(server.directory, reason_of(error)) from error
    found = json.loads(text)
    return found if isinstance(found, dict) else {}
