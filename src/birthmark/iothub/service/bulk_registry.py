"""Bulk registry operations: each item succeeds or fails separately, and a repetition is idempotent."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from birthmark.errors import BirthmarkError, ConflictError
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication, Hub, name_of
from birthmark.iothub.service.modules import ModuleExistsError
from birthmark.iothub.service.registry import DeviceExistsError, Registry
from birthmark.iothub.service.twins import Twins
from birthmark.iothub.wire import BodyInvalidError, BulkItem
from birthmark.net.fair_scheduler import begin_task
from birthmark.store import retry_on_conflict

_ANY = "*"
_ATTEMPTS = 8


class Bulk:
    """Bulk operations on devices and modules."""

    def __init__(self, registry: Registry, twins: Twins) -> None:
        self._registry = registry
        self._twins = twins

    async def do(self, hub: Hub, items: Sequence[BulkItem], *, actor: str) -> Sequence[BirthmarkError | None]:
        """Apply all valid items; return an error or None for each."""
        twice = {name for name, count in Counter(name_of(one.id, one.module_id) for one in items).items() if count > 1}
        made = sum(one.makes_device for one in items)
        # Near the device limit each item is checked after the previous one is created.
        room = await self._registry.room(hub) if made else None
        one_by_one = asyncio.Lock() if room is not None and room < made else None

        async def one(item: BulkItem) -> BirthmarkError | None:
            if one_by_one is None or not item.makes_device:
                return await alone(item)
            async with one_by_one:
                return await alone(item)

        async def alone(item: BulkItem) -> BirthmarkError | None:
            try:
                if name_of(item.id, item.module_id) in twice:
                    raise BodyInvalidError(detail=f"{item.id[:128]} occurs more than once")
                await self._do(hub, item, actor)
            except BirthmarkError as error:
                return error
            return None

        return await asyncio.gather(*(begin_task(one(item)) for item in items))

    async def _do(self, hub: Hub, item: BulkItem, actor: str) -> None:
        match item.import_mode:
            case "create":
                await self._put(hub, item, None, actor)
            case "update":
                await self._update(hub, item, _ANY, _ANY, actor)
            case "updateIfMatchETag":
                twin_etag = _said(item.twin_etag, "twinETag") if item.twin else _ANY
                await self._update(hub, item, _said(item.etag, "eTag"), twin_etag, actor)
            case "createOrUpdate" | "createOrUpdateIfMatchETag":
                await self._create_or_update(hub, item, actor)
            case "delete":
                await self._remove(hub, item, _ANY, actor)
            case "deleteIfMatchETag":
                await self._remove(hub, item, _said(item.etag, "eTag"), actor)
            case "updateTwin":
                await self._change_twin(hub, item, _ANY, actor)
            case _:
                await self._change_twin(hub, item, _said(item.twin_etag, "twinETag"), actor)

    async def _update(self, hub: Hub, item: BulkItem, etag: str, twin_etag: str, actor: str) -> None:
        await self._put(hub, item, etag, actor)
        if item.twin:
            await self._change_twin(hub, item, twin_etag, actor)

    async def _create_or_update(self, hub: Hub, item: BulkItem, actor: str) -> None:
        try:
            await self._put(hub, item, None, actor)
        except (DeviceExistsError, ModuleExistsError):
            is_conditional = item.import_mode == "createOrUpdateIfMatchETag"
            etag = _said(item.etag, "eTag") if is_conditional else _ANY
            twin_etag = item.twin_etag.strip('"') if is_conditional and item.twin_etag else _ANY
            await self._update(hub, item, etag, twin_etag, actor)

    async def _put(self, hub: Hub, item: BulkItem, etag: str | None, actor: str) -> None:
        wanted = item.proof()
        if etag is None or wanted.type is not AuthenticationType.SAS or wanted.primary_key or wanted.secondary_key:
            await self._put_with(hub, item, wanted, etag, actor)
            return

        async def decide() -> None:
            present = await self._registry.identity(hub, name_of(item.id, item.module_id))
            known, expected = present.authentication, present.etag if etag == _ANY else etag
            proof = known if known.type is AuthenticationType.SAS else wanted
            await self._put_with(hub, item, proof, expected, actor)

        if etag != _ANY:
            await decide()
        else:  # an item without keys keeps those of the device
            await retry_on_conflict(decide, after=ConflictError, attempts=_ATTEMPTS)

    async def _put_with(
        self, hub: Hub, item: BulkItem, proof: DeviceAuthentication, etag: str | None, actor: str
    ) -> None:
        twin = item.twin if etag is None else None
        if item.module_id is None:
            await self._registry.put(hub, item.id, item.body(), proof, etag, twin=twin, actor=actor)
            return
        device = await self._registry.device(hub, item.id)
        made = await self._registry.modules.put(
            device, item.module_id, proof, managed_by=item.managed_by, etag=etag, actor=actor
        )
        if twin:
            await self._twins.desire(hub, made.name, twin, None, replaces=False, actor=actor)

    async def _remove(self, hub: Hub, item: BulkItem, etag: str, actor: str) -> None:
        if item.module_id is None:
            await self._registry.remove(hub, item.id, etag, actor=actor)
        else:
            await self._registry.modules.remove(hub, item.id, item.module_id, etag, actor=actor)

    async def _change_twin(self, hub: Hub, item: BulkItem, etag: str, actor: str) -> None:
        name = name_of(item.id, item.module_id)
        await self._twins.desire(hub, name, item.twin, etag, replaces=False, actor=actor)


def _said(etag: str | None, member: str) -> str:
    if not etag:
        raise BodyInvalidError(detail=f"{member} is missing; this importMode requires it")
    return etag.strip('"')
