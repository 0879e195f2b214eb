"""A change of a CA that names an etag counts for that state alone, whoever else changes it at once."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from birthmark.actor import Actor
from birthmark.azure_arm.service import CertificatesOf
from birthmark.dps.service.ca_certificates import UnknownAuthorityError
from birthmark.errors import BirthmarkError, ChangedMeanwhileError
from birthmark.iothub.service.ca_certificates import UnknownCaError
from birthmark.pki.ca_possession_proof import prove_possession
from birthmark.pki.registered_ca_certificate import NOTHING, AuthorityChangedError
from support.azure.dps_world import DpsWorld, a_dps
from support.fakes import NOON
from support.pki.pki_builders import a_ca

pytestmark = [pytest.mark.integration, pytest.mark.anyio]
ME = Actor("test")
CA = a_ca("Maker", now=NOON)
Room = tuple[CertificatesOf, Any]
LOST = (AuthorityChangedError, ChangedMeanwhileError, UnknownAuthorityError, UnknownCaError)


def rooms_of(world: DpsWorld) -> tuple[Room, Room]:
    return (world.authorities, world.instance.id_scope), (world.iothub.authorities, world.hub)


async def test_of_two_changes_of_one_state_one_counts(database_url: str) -> None:
    async with a_dps(database_url) as world:
        for room, of in rooms_of(world):
            made = await room.add(of, "ca", CA.certificate, is_verified=False, actor=ME, etag=None)
            coded = await room.new_code(of, "ca", actor=ME, etag=made.etag)
            proof = prove_possession(
                coded.verification_code or "",
                *(CA.as_issuer, CA.private_key.public_key()),
                serial=7,
                now=NOON,
                lifetime=timedelta(hours=1),
            )
            done = await asyncio.gather(
                room.new_code(of, "ca", actor=ME, etag=coded.etag),
                room.verify(of, "ca", proof, actor=ME, etag=coded.etag),
                room.remove(of, "ca", actor=ME, etag=coded.etag),
                return_exceptions=True,
            )
            lost = [one for one in done if isinstance(one, BirthmarkError)]
            assert len(lost) == 2, done
            assert all(isinstance(one, LOST) for one in lost), done


async def test_who_says_that_nothing_is_there_changes_nothing_that_is(database_url: str) -> None:
    async with a_dps(database_url) as world:
        for room, of in rooms_of(world):
            made = await room.add(of, "ca", CA.certificate, is_verified=False, actor=ME, etag=NOTHING)
            with pytest.raises(AuthorityChangedError):
                await room.add(of, "ca", CA.certificate, is_verified=True, actor=ME, etag=NOTHING)
            assert await room.get(of, "ca") == made
