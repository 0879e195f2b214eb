"""Identities for the contract: a key in a file, EC and RSA keys in a real token, no key at all."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from birthmark.clock_and_entropy import SystemClock
from birthmark.device_transports.identity_and_trust import Identity, identity_of
from birthmark.keys.file_key import FileKey
from birthmark.keys.pin import Pin
from birthmark.pki.certificates import Certificate
from birthmark.secure_elements.chip_profiles import PROFILES
from birthmark.secure_elements.softhsm_element import SoftwareElement, create_software_element
from support.agent.swarm_links import SwarmIdentity
from support.fakes import SeededEntropy
from support.pki.pki_builders import a_ca, a_device


@pytest.fixture(scope="session")
def chip(tmp_path_factory: pytest.TempPathFactory) -> SoftwareElement:
    directory = tmp_path_factory.mktemp("links-se050")
    now = SystemClock().now() - timedelta(hours=1)
    return create_software_element(directory, PROFILES["se050"], now=now, entropy=SeededEntropy(9))


@pytest.fixture(params=["file", "swarm", "token-ec", "token-rsa"])
def identity(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Identity]:
    """Each kind of identity in turn; the contract holds for all."""
    if request.param in {"file", "swarm"}:
        holder = a_device(a_ca(now=SystemClock().now()), now=SystemClock().now())
        path = tmp_path / "device.key"
        path.touch(mode=0o600)
        path.write_text(holder.key_pem)
        chain: tuple[Certificate, ...] = (holder.certificate,)
        key = FileKey.load(path)
        if request.param == "file":
            yield identity_of(key, chain)
            return
        path.write_text(holder.key_pem + holder.certificate.pem())
        yield SwarmIdentity(chain, key, pem=path)
        return
    monkeypatch.delenv("SOFTHSM2_CONF", raising=False)
    made: SoftwareElement = request.getfixturevalue("chip")
    selector = "0xF0000100" if request.param == "token-ec" else "0xF0000110"
    with made.open() as element:
        chain = element.chain(selector)
        yield identity_of(element.key(selector), chain, pin=Pin.from_file(made.pin_file))
    # The library is not stopped after each test: awscrt's threads may still be closing their sessions.


@pytest.fixture
def name_of_identity(identity: Identity) -> Callable[[], str | None]:
    return lambda: identity.chain[0].subject_cn
