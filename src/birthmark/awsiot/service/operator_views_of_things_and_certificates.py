"""Lists of things and certificates for operators, with what is attached to each."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from birthmark.awsiot.model import DeviceCertificate, Thing
from birthmark.awsiot.store import certificates_and_access_keys as certificate_store
from birthmark.awsiot.store import (
    registry,
)
from birthmark.store import Database, Statement
from birthmark.store.pagination import Page, page_of


class Overview:
    """Overview queries for operators."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def things(self, after: str, size: int) -> Page[tuple[Thing, Sequence[str]]]:
        """Return things in order of name, each with its certificates' ids."""
        rows = await self._database.all(registry.LIST_THINGS, after=after, limit=size + 1)
        names = [str(row["name"]) for row in rows]
        ids = await self._between(registry.CERTIFICATES_BETWEEN, names, "thing", "certificate_id")
        return page_of([(registry.THINGS.of(row), ids[row["name"]]) for row in rows], size, names)

    async def certificates(self, after: str, size: int) -> Page[tuple[DeviceCertificate, Sequence[str], Sequence[str]]]:
        """Return certificates in order of id, each with its things and its policies."""
        rows = await self._database.all(certificate_store.BY_ID, after=after, limit=size + 1)
        ids = [str(row["id"]) for row in rows]
        things = await self._between(registry.THINGS_BETWEEN, ids, "certificate_id", "thing")
        policies = await self._between(registry.POLICIES_BETWEEN, ids, "target", "policy")
        found = [(certificate_store.CERTIFICATES.of(row), things[row["id"]], policies[row["id"]]) for row in rows]
        return page_of(found, size, ids)

    async def _between(
        self, statement: Statement, keys: Sequence[str], key: str, value: str
    ) -> Mapping[str, Sequence[str]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for row in await self._database.all(statement, first=keys[0], last=keys[-1]) if keys else ():
            found[row[key]].append(row[value])
        return found
