"""Software elements of each kind, made once; every test opens its own."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from birthmark.keys.pkcs11_library_lifecycle import stop_library
from birthmark.secure_elements.chip_profiles import PROFILES
from birthmark.secure_elements.element_session import Element
from birthmark.secure_elements.softhsm_element import SoftwareElement, create_software_element
from support.fakes import SeededEntropy

# Long ago by any real clock: OpenSSL checks these certificates against the machine's time.
BORN = datetime(2024, 1, 1, tzinfo=UTC)


def make(directory: Path, profile: str, *, has_swapped_labels: bool = False) -> SoftwareElement:
    return create_software_element(
        directory, PROFILES[profile], now=BORN, entropy=SeededEntropy(), has_swapped_labels=has_swapped_labels
    )


@pytest.fixture(scope="session")
def se050(tmp_path_factory: pytest.TempPathFactory) -> SoftwareElement:
    return make(tmp_path_factory.mktemp("se050"), "se050")


@pytest.fixture(scope="session")
def old_se050(tmp_path_factory: pytest.TempPathFactory) -> SoftwareElement:
    """With the labels of middleware up to 4.3."""
    return make(tmp_path_factory.mktemp("old"), "se050", has_swapped_labels=True)


@pytest.fixture(params=["se050", "old_se050"])
def any_se050(request: pytest.FixtureRequest) -> SoftwareElement:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, SoftwareElement)
    return found


@pytest.fixture
def atecc608(tmp_path: Path) -> SoftwareElement:
    """A fresh one for each test: these are written to."""
    return make(tmp_path / "atecc608", "atecc608")


@pytest.fixture
def chip(any_se050: SoftwareElement) -> Iterator[Element]:
    with any_se050.open() as element:
        yield element


@pytest.fixture(autouse=True)
def fresh_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("SOFTHSM2_CONF", raising=False)
    yield
    stop_library()
