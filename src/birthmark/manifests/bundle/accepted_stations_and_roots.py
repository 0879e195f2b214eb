"""Trust of a bundle's reader: accepted stations and manufacturer roots."""

from dataclasses import dataclass

from birthmark.pki.certificates import Certificate


@dataclass(frozen=True, slots=True)
class BundleTrust:
    """Trusted stations and manufacturer roots. Without roots, chains are not verified."""

    stations: tuple[Certificate, ...]
    roots: tuple[Certificate, ...] = ()
