"""Which refusals count as renewals that failed: of certificates of this server, and wanted by nobody."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark.pki.certificates import Certificate
from birthmark.refusals.ledger import FAILED_RENEWALS, FIGURE
from birthmark.server.counter_verification import CounterValues
from support.pki.est_server import OPERATOR, EstServer, an_est_server, shown
from support.pki.pki_builders import a_ca, a_csr, a_device
from support.server.asgi import FakePeer

pytestmark = [pytest.mark.anyio, pytest.mark.integration]
NO_PASSWORD: Mapping[str, str] = {}


async def refused(server: EstServer, operation: str, csr: bytes, peer: Any, **headers: str) -> int:
    answer = await server.post(operation, csr, headers=headers, peer=peer)
    assert answer.status >= 300, answer.text
    return answer.status


async def a_holder(server: EstServer, name: str = "pump-1") -> FakePeer:
    return shown(await server.issued(a_csr(name)))


async def test_a_renewal_that_is_refused_is_counted_by_its_code_in_the_figures_too(tmp_path: Path) -> None:
    async with an_est_server(tmp_path) as server:
        holder = await a_holder(server)
        await refused(server, "simplereenroll", a_csr("pump-2"), holder)
        await refused(server, "simplereenroll", b"nonsense", holder)
        assert server.ledger.failed_renewals == {"est.reenroll_identity_changed": 1, "pki.csr_malformed": 1}
        await server.ledger.wait_until_written()
        figures = CounterValues(server.ca.database, server.clock)
        of = {name: {one.state: one.value for one in await figures.read(name)} for name in (FIGURE, FAILED_RENEWALS)}
        assert of[FAILED_RENEWALS] == of[FIGURE] == server.ledger.failed_renewals
        assert await figures.prove() == []


async def test_who_asks_with_simpleenroll_for_the_certificate_that_it_has_renews(tmp_path: Path) -> None:
    async with an_est_server(tmp_path) as server:
        holder = await a_holder(server)
        server.clock.move(timedelta(days=4000))  # it has ended
        await refused(server, "simpleenroll", a_csr("pump-1"), holder)
        assert sum(server.ledger.failed_renewals.values()) == 1
        await refused(server, "simpleenroll", a_csr("pump-2"), holder)
        assert sum(server.ledger.failed_renewals.values()) == 1


async def test_what_a_stranger_asks_is_no_renewal(tmp_path: Path) -> None:
    async with an_est_server(tmp_path) as server:
        await a_holder(server)
        strange = shown(a_device(a_ca("Strange"), "pump-1").certificate)
        for peer in (strange, FakePeer()):
            await refused(server, "simplereenroll", a_csr("pump-1"), peer)
            await refused(server, "simpleenroll", a_csr("pump-1"), peer)
        assert server.ledger.failed_renewals == {}
        assert server.ledger.counts


async def test_a_device_that_was_taken_back_is_no_failure(tmp_path: Path) -> None:
    async with an_est_server(tmp_path) as server:
        holder = await a_holder(server)
        assert isinstance(holder.leaf, Certificate)
        await server.ca.revocations.certificate(holder.leaf.thumbprint, OPERATOR)
        await refused(server, "simplereenroll", a_csr("pump-1"), holder)
        assert server.ledger.failed_renewals == {}


async def test_who_is_told_to_come_back_has_not_failed(tmp_path: Path) -> None:
    async with an_est_server(tmp_path) as server:
        holder = await a_holder(server)
        while (await server.post("simplereenroll", a_csr("pump-1"), headers={}, peer=holder)).status != 429:
            pass
        assert "est.throttled" in server.ledger.counts
        assert server.ledger.failed_renewals == {}
