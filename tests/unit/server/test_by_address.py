"""Who does not come by loopback gets health and nothing else."""

from typing import Any

import pytest

from birthmark.server.health_and_operator_listeners import _ByAddress


@pytest.mark.parametrize(
    ("called", "caller", "answer"),
    [
        ("127.0.0.1", "127.0.0.1", "operator"),
        ("::1", "::1", "operator"),
        ("192.0.2.7", "192.0.2.9", "probe"),
        ("192.0.2.7", "192.0.2.7", "probe"),
        ("127.0.0.1", "192.0.2.9", "probe"),
    ],
)
async def test_the_operator_interface_is_for_loopback(called: str, caller: str, answer: str) -> None:
    reached: list[str] = []

    def app(name: str) -> Any:
        async def run(_scope: Any, _receive: Any, _send: Any) -> None:
            reached.append(name)

        return run

    scope: dict[str, Any] = {"type": "http", "server": (called, 8080), "client": (caller, 50000), "path": "/metrics"}
    scope["headers"] = [(b"host", b"localhost:8080")]
    await _ByAddress(app("probe"), app("operator"), ())(scope, None, None)  # type: ignore[arg-type]  # channels that are not used
    assert reached == [answer]
