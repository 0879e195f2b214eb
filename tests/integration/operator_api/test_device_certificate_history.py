"""By which certificates a device was known to its hub: as the audit trail has it, on both databases."""

from pathlib import Path
from typing import Any

import pytest

from birthmark.iothub import wire
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication
from birthmark.operator_api.device_certificate_history import _names_of, _told_of, history
from support.azure.issuing_world import IssuingWorld, an_issuing_world
from support.pki.pki_builders import a_key

pytestmark = pytest.mark.integration


async def told(world: IssuingWorld) -> list[Any]:
    identity = await world.device()
    rows = [row for name in _names_of(identity) for row in await _told_of(world.dps.database, name)]
    return list(history(identity, world.hub.host, rows))


async def test_a_device_that_renews_has_a_row_for_each_certificate_and_what_counts_now(
    database_url: str, tmp_path: Path
) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        first = await world.issued(a_key())
        await world.iothub.credentials.used(world.hub, await world.device(), first)
        second = await world.issue(first, a_key())
        rows = await told(world)
        assert {row["thumbprint"]: row["now"] for row in rows if row["now"]} == {
            first.thumbprint.hex(): "primary",
            second.thumbprint.hex(): "secondary",
        }
        assert [(row["how"], row["thumbprint"]) for row in rows if row["thumbprint"] == second.thumbprint.hex()] == [
            ("issued", second.thumbprint.hex())
        ]
        assert {row["how"] for row in rows} == {"issued as it registered", "issued", "used first"}
        assert {row["thumbprint"] for row in rows} == {first.thumbprint.hex(), second.thumbprint.hex()}


async def test_what_an_operator_puts_on_record_is_told_and_what_nobody_wrote_down_too(
    database_url: str, tmp_path: Path
) -> None:
    async with an_issuing_world(tmp_path, database_url) as world:
        proof = DeviceAuthentication(AuthenticationType.SELF_SIGNED, b"o" * 32, b"p" * 20)
        made = await world.iothub.registry.put(
            world.hub, "by-hand", wire.DeviceBody("by-hand"), proof, None, actor="anna"
        )
        rows = history(made, world.hub.host, await _told_of(world.dps.database, "by-hand"))
        assert [(row["how"], row["now"], row["by"]) for row in rows] == [
            ("put on record", "primary", "anna"),
            ("put on record", "secondary", "anna"),
        ]
        assert [row["how"] for row in history(made, world.hub.host, [])] == ["before this was written down"] * 2
