"""Who fetches the anchors is taken note of, where a guess is not needed to know it."""

from pathlib import Path

import pytest

from birthmark.est import wire
from birthmark.est.service import EstCredentials
from support.fakes import SeededEntropy
from support.pki.est_server import an_est_server, shown
from support.pki.pki_builders import a_ca, a_csr, a_device

pytestmark = pytest.mark.anyio
RIGHT = {"Authorization": wire.render_basic("pump", "right")}


async def test_a_password_seen_before_counts_beside_a_certificate_that_proves_nothing(tmp_path: Path) -> None:
    fetched: list[str] = []

    async def note(device_id: str) -> None:
        fetched.append(device_id)

    strange = shown(a_device(a_ca("Strange"), "device-1").certificate)
    async with an_est_server(tmp_path) as server:
        credentials = EstCredentials(server.ca.database, server.clock, SeededEntropy(7))
        await credentials.add_user("pump", "right", device_id="device-1", actor="operator:local")
        server.service.note_fetched = note
        assert (await server.get("cacerts", headers=RIGHT, peer=strange)).status == 200
        assert fetched == []  # nobody has shown this password yet
        await server.issued(a_csr("device-1"), headers=RIGHT, peer=strange)
        await server.get("cacerts", headers=RIGHT, peer=strange)
        assert fetched == ["device-1"]
        await server.get("cacerts", peer=strange)
        assert fetched == ["device-1"]
