"""Hubs, their registry and telemetry; `IotHub` is all of them, for the shells."""

from dataclasses import dataclass

from birthmark.clock import Clock, Entropy
from birthmark.iothub.service.c2d import CloudToDevice
from birthmark.iothub.service.hubs import Hubs
from birthmark.iothub.service.index import Index
from birthmark.iothub.service.queries import Queries
from birthmark.iothub.service.registry import Registry, RevocationCheck
from birthmark.iothub.service.telemetry import Telemetry
from birthmark.iothub.service.twins import Twins
from birthmark.store import Database


@dataclass(frozen=True, slots=True)
class IotHub:
    """All of it, on one database. `hubs.load` must have run before anyone asks."""

    hubs: Hubs
    registry: Registry
    telemetry: Telemetry
    twins: Twins
    c2d: CloudToDevice
    queries: Queries
    index: Index

    @classmethod
    def of(
        cls,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        revocations: RevocationCheck | None = None,
        **kept: int,
    ) -> "IotHub":
        """Return all of it; `keep_s` and `keep_bytes` are for telemetry."""
        hubs = Hubs(database, clock, entropy)
        telemetry = Telemetry(hubs, database, clock, **kept)
        hubs.without_telemetry = telemetry.without
        registry = Registry(database, clock, entropy, hubs, revocations)
        c2d = CloudToDevice(database, clock, entropy, registry)
        queries = Queries(database, clock, registry, c2d)
        return cls(hubs, registry, telemetry, Twins(database, clock, registry), c2d, queries, Index(database))


__all__ = ["CloudToDevice", "Hubs", "Index", "IotHub", "Queries", "Registry", "Telemetry", "Twins"]
