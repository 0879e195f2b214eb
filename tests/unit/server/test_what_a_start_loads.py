"""A server starts without the libraries of what it may never do: each is loaded by the first who needs it."""

import subprocess
import sys

LATE = {
    *("alembic", "asyncpg", "authlib", "babel", "jinja2", "joserfc", "nats", "pkcs11", "prometheus_client", "re2"),
    "websockets",
}


def test_a_start_loads_none_of_what_only_some_servers_use() -> None:
    program = f"import sys; import birthmark.server.server_process; print(sorted({LATE!r} & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"
