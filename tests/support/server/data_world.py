"""A server's data directory with some rows in its database, and what is in it."""

from pathlib import Path

from birthmark.audit.chain_verification import verify_chains
from birthmark.audit.signed_heads import AuditKey
from birthmark.ca import ca_directory
from birthmark.ca.service import CertificateAuthority
from birthmark.clock_and_entropy import SystemClock
from birthmark.pki.csr import parse_csr
from birthmark.store import open_database
from support.fakes import SeededEntropy
from support.pki.ca_world import OPERATOR
from support.pki.pki_builders import a_csr


async def a_data_directory(path: Path, url: str) -> Path:
    """A server's directory with some rows, as far as a backup looks."""
    data, clock = path / "data", SystemClock()
    data.mkdir(mode=0o700)
    made = ca_directory.create(data / "ca", "Test", now=clock.now(), entropy=SeededEntropy())
    (data / "audit.seed").write_text("seed\n")
    (data / "endpoints.json").write_text("{}")
    database = await open_database(url, clock, signer=AuditKey("seed"))
    ca = CertificateAuthority(made, database, clock, SeededEntropy(2))
    for number in range(3):
        leaf, *_ = await ca.issue(parse_csr(a_csr(f"d-{number}")), OPERATOR)
    await ca.revocations.certificate(leaf.thumbprint, OPERATOR)
    await ca.crl()
    await database.close()
    return data


async def contents(data: Path, url: str) -> tuple[list[str], int, int]:
    """Return the devices, the rows of the verified audit chain's end, and the number of the next list."""
    clock = SystemClock()
    database = await open_database(url, clock, signer=AuditKey("seed"))
    ca = CertificateAuthority(ca_directory.load(data / "ca"), database, clock, SeededEntropy(3))
    (verified,) = await verify_chains(database, key=AuditKey("seed").public_key)
    found = sorted(f"{one.device_id} {one.is_revoked}" for one in await ca.latest())
    number = (await ca.lists.of(ca.hierarchy.issuing)).number
    await database.close()
    return found, verified.rows, number
