"""What the operator interface lists: what was issued, page by page, and other certificates of a device."""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark.auth.principals import MACHINE
from birthmark.ca.service import CertificateAuthority
from birthmark.operator_api.api_router import ApiRequest, Rows
from birthmark.operator_api.certificate_inventory import InventoryQuery, inventory_endpoints
from birthmark.operator_api.est_users_and_certificates import IssuedQuery, certificate_endpoints
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.pki.csr import parse_csr
from support.pki.ca_world import OPERATOR, an_authority
from support.pki.pki_builders import a_csr

pytestmark = pytest.mark.integration
ANOTHER = Thumbprint(b"\7" * 32)


class Desk:
    def __init__(self, ca: CertificateAuthority) -> None:
        self.ca = ca
        self.on_record: set[Thumbprint] = {ANOTHER}
        """Of other CAs, by which device-1 is on record."""

    async def inventory(self, **query: Any) -> Rows:
        endpoint, *_ = inventory_endpoints(self.ca)
        answer: Rows = await endpoint.handler(ApiRequest({}, InventoryQuery(**query), None, MACHINE))
        return answer

    async def of(self, subject: str) -> list[dict[str, Any]]:
        async def presented_by(name: str) -> list[Thumbprint]:
            held = [one.certificate.thumbprint for one in await self.ca.search(name)]
            return [*held, *self.on_record] if name.lower() == "device-1" else held

        endpoint = certificate_endpoints(self.ca, presented_by)[0]
        answer: Rows = await endpoint.handler(ApiRequest({}, IssuedQuery(subject), None, MACHINE))
        return [dict(row) for row in answer.items]


@contextlib.asynccontextmanager
async def a_desk(path: Path) -> AsyncIterator[Desk]:
    async with an_authority(path) as ca:
        for number in range(3):
            request = parse_csr(a_csr(f"device-{number}"))
            await ca.issue(request, OPERATOR, lifetime=timedelta(days=number + 1))
        yield Desk(ca)


async def test_pages_follow_each_other_without_gap_or_twin(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk:
        first = await desk.inventory(limit=2)
        second = await desk.inventory(limit=2, after=first.next)
        names = [row["device"] for row in (*first.items, *second.items)]
        assert names[:3] == ["device-0", "device-1", "device-2"]
        assert (len(names), second.next) == (4, None)


async def test_a_ca_is_named_by_purpose_or_thumbprint(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk:
        thumbprint = desk.ca.hierarchy.issuing.certificate.thumbprint.hex()
        by_purpose, by_thumbprint = [await desk.inventory(issuer=name) for name in ("issuing", thumbprint)]
        assert by_purpose == by_thumbprint
        assert len(by_purpose.items) == 3
        with pytest.raises(OperatorRequestError):
            await desk.inventory(issuer="nobody")


async def test_within_a_time_and_expired_are_told_apart(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk:
        soon = await desk.inventory(expiring_s=36 * 3600)
        assert [row["device"] for row in soon.items] == ["device-0"]
        assert (await desk.inventory(expired=True)).items == []


async def test_a_certificate_of_another_ca_by_which_a_device_is_known_is_shown(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk:
        assert [row["profile"] for row in await desk.of("device-1")] == ["device", "of another CA"]
        assert (await desk.of("device-1"))[1]["thumbprint"] == ANOTHER.hex()
        assert [row["profile"] for row in await desk.of("device-2")] == ["device"]


async def test_a_certificate_of_another_ca_that_was_taken_back_stays_listed_with_when_and_why(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk:
        reason = RevocationReason.KEY_COMPROMISE
        await desk.ca.revocations.device("Device-1", OPERATOR, reason, [ANOTHER])
        now = desk.ca.clock.now().isoformat()
        while_on_record = [row for row in await desk.of("device-1") if row["thumbprint"] == ANOTHER.hex()]
        assert [(row["revoked"], row["reason"]) for row in while_on_record] == [(now, "keyCompromise")]
        desk.on_record.clear()  # as the device is known by another certificate now
        assert [row for row in await desk.of("device-1") if row["thumbprint"] == ANOTHER.hex()] == while_on_record
        assert [row["profile"] for row in await desk.of("device-1")] == ["device", "of another CA"]
