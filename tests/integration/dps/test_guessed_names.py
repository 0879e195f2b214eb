"""A stranger guesses the name of a CA on record and shows many of that name: it waits for itself."""

import asyncio
from itertools import count

import pytest

from birthmark.dps.model import Claim
from birthmark.errors import BirthmarkError
from birthmark.net import fair_scheduler
from birthmark.net.fair_scheduler import SLICE_S, TURN_S
from birthmark.pki import path_validation
from birthmark.pki.certificates import Certificate, is_signed_by
from support.azure.dps_world import a_dps
from support.pki.pki_builders import a_ca, a_device

pytestmark = pytest.mark.integration
STRANGERS, SHOWN = 5, 19


async def test_signatures_of_a_bag_are_looked_at_in_the_turns_of_who_shows_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, ticks = 0, count()

    def look(certificate: Certificate, issuer: Certificate) -> bool:
        nonlocal looked
        looked += 1
        return is_signed_by(certificate, issuer)

    async with a_dps(database_url) as world:
        ours = a_ca("Ours")
        await world.group("ours", ours)
        bag = tuple(a_ca("Ours").certificate for _ in range(SHOWN))
        monkeypatch.setattr(path_validation, "is_signed_by", look)
        monkeypatch.setattr(fair_scheduler, "now", lambda: next(ticks) * SLICE_S)

        async def come(name: str) -> None:
            unauthenticated = a_device(a_ca("Ours"), name).certificate
            with pytest.raises(BirthmarkError):
                await world.registrations.attester.attest(
                    Claim(world.instance.id_scope, name, unauthenticated, bag, address="192.0.2.1")
                )

        coming = [asyncio.create_task(come(f"device-{number}")) for number in range(STRANGERS)]
        while not all(one.done() for one in coming):
            before = looked
            await asyncio.sleep(0)
            assert looked - before <= TURN_S / SLICE_S + 1
        await asyncio.gather(*coming)
        assert looked >= STRANGERS * SHOWN
        await world.register(a_device(ours))
