"""A bootstrap certificate gets an EST identity, which asks for everything else; what is not believed makes room."""

import contextlib
from datetime import timedelta
from pathlib import Path

import pytest

from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.state_directory import DEVICE_ID, EST_ID
from birthmark.device_transports.errors import ServerUntrustedError
from birthmark.device_transports.ports import HttpResponse
from birthmark.errors import BirthmarkError, UnauthenticatedError, UnavailableError
from birthmark.est import wire
from birthmark.est.service.approvals import ApprovalRejectedError
from birthmark.pki.certificates import Certificate
from support.agent.world import BOOTSTRAP, LIFETIME, World, certified


def a_device(directory: Path) -> tuple[World, Agent]:
    world = World(directory)
    return world, world.agent(BOOTSTRAP)


def identity_of(agent: Agent) -> Certificate:
    held = agent.identities.slot(EST_ID).current()
    assert held is not None
    return held.leaf


async def test_the_bootstrap_certificate_gets_the_est_identity_and_that_the_device_identity(tmp_path: Path) -> None:
    world, agent = a_device(tmp_path)
    await agent.apply()
    assert world.shown == ["born", "est-id"]
    held = agent.held()
    assert held is not None
    assert identity_of(agent).spki_der != held.leaf.spki_der


async def test_a_renewal_of_the_device_shows_the_est_identity_alone(tmp_path: Path) -> None:
    world, agent = a_device(tmp_path)
    await agent.apply()
    world.shown.clear()
    await agent.renew(await certified(agent))
    assert world.shown == ["est-id"]


async def test_a_renewed_est_identity_enrolls_once_before_it_replaces_the_old(tmp_path: Path) -> None:
    world, agent = a_device(tmp_path)
    await agent.apply()
    before = identity_of(agent)
    world.shown.clear()
    after = await agent.keeper.renew(agent.managed[EST_ID])
    assert world.shown == ["est-id", "est-id-temp"]
    assert after.leaf.spki_der != before.spki_der
    assert identity_of(agent) == after.leaf


async def test_a_new_est_identity_that_is_refused_never_replaces_the_old(tmp_path: Path) -> None:
    world, agent = a_device(tmp_path)
    await agent.apply()
    before = identity_of(agent)
    world.disbelieved.add("est-id-temp")
    with pytest.raises(UnauthenticatedError):
        await agent.keeper.renew(agent.managed[EST_ID])
    assert identity_of(agent) == before
    assert not agent.keeper.is_unfinished(EST_ID)


async def test_an_est_server_that_is_away_while_it_is_proven_leaves_it_to_be_proven_later(tmp_path: Path) -> None:
    world, agent = a_device(tmp_path)
    await agent.apply()
    before = identity_of(agent)
    world.failing_for.add("est-id-temp")
    with pytest.raises(UnavailableError):
        await agent.keeper.renew(agent.managed[EST_ID])
    assert identity_of(agent) == before
    assert agent.keeper.is_unfinished(EST_ID)
    world.failing_for.clear()
    world.shown.clear()
    assert (await agent.keeper.renew(agent.managed[EST_ID])).leaf != before
    assert world.shown == ["est-id-temp"]


async def test_after_expiry_each_shows_itself_before_the_bootstrap_certificate_introduces_it_again(
    tmp_path: Path,
) -> None:
    world, agent = a_device(tmp_path)
    await agent.apply()
    world.clock.move(3 * LIFETIME)
    world.shown.clear()
    await certified(agent)
    assert world.shown == ["device-id", "est-id", "device-id", "born", "est-id"]


async def test_an_expired_identity_that_the_server_takes_needs_nobody_else(tmp_path: Path) -> None:
    world, agent = a_device(tmp_path)
    await agent.apply()
    world.clock.move(3 * LIFETIME)
    world.takes_expired = True
    world.shown.clear()
    await certified(agent)
    assert world.shown == ["device-id"]


async def test_an_est_identity_that_nobody_believes_is_replaced_by_a_new_one(tmp_path: Path) -> None:
    world, agent = a_device(tmp_path)
    await agent.apply()
    world.disbelieved |= {"est-id", "device-id"}
    world.shown.clear()
    with pytest.raises(UnauthenticatedError):
        await agent.renew(await certified(agent))
    assert world.shown == ["est-id", "device-id", "device-id", "born", "est-id"]


async def test_a_lost_answer_is_asked_for_again_by_the_same_request(tmp_path: Path) -> None:
    world, agent = a_device(tmp_path)
    world.losing_answers = 1
    with pytest.raises(UnavailableError):
        await agent.apply()
    again = world.agent(BOOTSTRAP)
    again.keeper.recover()
    await again.apply()
    assert world.requests[0] == world.requests[1]


async def test_a_device_of_an_earlier_release_gets_its_est_identity_by_its_certificate(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.agent().apply()  # by password, with no EST identity
    agent = world.agent(BOOTSTRAP)
    world.shown.clear()
    await agent.renew(await certified(agent))
    assert world.shown == ["device-id", "est-id"]


async def test_the_est_identity_is_renewed_by_its_own_rule(tmp_path: Path) -> None:
    world = World(tmp_path)
    rule = '[cert_issuance.est.identity_auto_renew]\nrotate_key = true\nthreshold = "50%"\nretry = "4%"\n'
    agent = world.agent(BOOTSTRAP + rule)
    await agent.apply()
    world.clock.move(0.55 * LIFETIME)
    due = agent.due_in(agent.managed[EST_ID])
    assert due is not None
    assert due < timedelta(0)
    held = agent.held()
    assert held is not None
    assert agent.renewal_due_in(held) > timedelta(0)  # type: ignore[operator]  # it is renewed at all
    assert list(agent.managed) == [EST_ID, DEVICE_ID]


async def test_a_request_that_was_answered_is_not_asked_again_after_a_crash(tmp_path: Path) -> None:
    world, agent = a_device(tmp_path)
    await agent.apply()
    held = await certified(agent)
    world.failing = {"dps"}
    with pytest.raises(UnavailableError):
        await agent.renew(held)
    slot = agent.identities.slot(DEVICE_ID)
    slot.keep_request(world.requests[-1])  # as if killed between the certificate's writing and this one's end
    world.failing = set()
    await agent.renew(held)
    assert not agent.keeper.is_unfinished(DEVICE_ID)


@pytest.mark.parametrize("is_believed", [True, False])
async def test_at_the_end_of_the_old_est_identity_an_unproven_one_is_put_to_use_where_it_is_believed(
    tmp_path: Path, *, is_believed: bool
) -> None:
    world, agent = a_device(tmp_path)
    await agent.apply()
    world.clock.move(0.7 * LIFETIME)
    world.failing_for.add("est-id-temp")
    with pytest.raises(UnavailableError):
        await agent.keeper.renew(agent.managed[EST_ID])
    pending = agent.identities.slot(EST_ID).pending()
    assert pending is not None
    world.clock.move(0.4 * LIFETIME)
    world.failing_for.clear()
    world.taken_back = set() if is_believed else {pending.mark}
    used = await agent.keeper.ensure(agent.managed[EST_ID])
    assert (used.leaf.spki_der == pending.leaf.spki_der) == is_believed


async def test_a_request_that_an_operator_rejected_is_asked_again_as_it_was(tmp_path: Path) -> None:
    """So that one device is one row in the operator's queue, and its approval finds it."""
    world, agent = a_device(tmp_path)
    rejected = HttpResponse(403, {}, f"{wire.REJECTED}\nReference: 1".encode())
    for answer in (HttpResponse(202, {}, b"waits"), rejected, rejected, None):
        world.busy = answer
        with contextlib.suppress(BirthmarkError):
            await world.agent(BOOTSTRAP).keeper.ensure(agent.managed[EST_ID])
    assert len({wire.parse_csr(one).spki_der for one in world.requests}) == 1


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_request_that_is_refused_otherwise_comes_by_another_key(tmp_path: Path, status: int) -> None:
    world, agent = a_device(tmp_path)
    world.busy = HttpResponse(status, {}, b"This key was taken back")
    for _ in range(2):
        with pytest.raises(BirthmarkError):
            await world.agent(BOOTSTRAP).keeper.ensure(agent.managed[EST_ID])
    assert len({wire.parse_csr(one).spki_der for one in world.requests}) == 2


@pytest.mark.parametrize("first", [HttpResponse(202, {}, b"waits"), None])
@pytest.mark.parametrize(
    "between", ["another server", "no trusted file", HttpResponse(404, {}, b""), HttpResponse(200, {}, b"<html>")]
)
async def test_what_is_no_word_of_the_est_server_leaves_the_key_that_was_approved_or_that_a_password_was_spent_for(
    tmp_path: Path, first: HttpResponse | None, between: str | HttpResponse
) -> None:
    world = World(tmp_path, busy=first, losing_answers=1)
    trusted, away = tmp_path / "trust.pem", tmp_path / "trust.away"
    with pytest.raises(UnavailableError):
        await world.agent().ensure()
    agent = world.agent()
    if between == "no trusted file":
        trusted.rename(away)
    world.untrusted = {"est.test"} if between == "another server" else set()
    world.busy = between if isinstance(between, HttpResponse) else None
    with pytest.raises(BirthmarkError):
        await agent.ensure()
    world.untrusted, world.busy, world.losing_answers = set(), None, 0
    await world.agent().ensure()
    assert len({wire.parse_csr(one).spki_der for one in world.requests}) == 1


async def test_a_server_that_is_not_trusted_is_not_asked_again_by_the_password(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent()
    held = await certified(agent)
    world.shown.clear()
    world.untrusted = {"est.test"}
    with pytest.raises(ServerUntrustedError):
        await agent.keeper.fresh(agent.managed[DEVICE_ID], held)
    assert world.shown == ["device-id"]


async def test_an_est_identity_stays_to_be_proven_while_the_server_is_not_trusted(tmp_path: Path) -> None:
    world, agent = a_device(tmp_path)
    await agent.apply()
    world.failing_for.add("est-id-temp")
    with pytest.raises(UnavailableError):
        await agent.keeper.renew(agent.managed[EST_ID])
    world.untrusted = {"est.test"}
    with pytest.raises(ServerUntrustedError):
        await agent.keeper.renew(agent.managed[EST_ID])
    assert agent.keeper.unproven(agent.managed[EST_ID]) is not None


def test_what_the_agent_takes_for_a_rejection_is_what_the_server_says() -> None:
    said = str(ApprovalRejectedError(id="1", device_id="device-1", decided_at="now"))
    assert said.startswith(wire.REJECTED)
