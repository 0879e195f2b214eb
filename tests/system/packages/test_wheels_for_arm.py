"""What is promised for ARM comes ready built: pip itself resolves it, for that kind of machine."""

import socket

import pytest

import wheels

pytestmark = pytest.mark.system


def reaches_pypi() -> bool:
    try:
        with socket.create_connection(("pypi.org", 443), timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not reaches_pypi(), reason="PyPI is asked, and is not reached")
@pytest.mark.parametrize("extra", sorted(wheels.PROMISED["aarch64, glibc"]))
def test_it_installs_from_wheels_alone_on_arm64(extra: str) -> None:
    assert list(wheels.compiled("aarch64, glibc", extra)) == []


def test_what_32_bit_arm_lacks_is_said() -> None:
    page = (wheels.TOP / "docs/howto/install.md").read_text()
    assert "On 32-bit ARM `cryptography`, `msgspec` and `python-pkcs11` are compiled" in page
    assert "armv7, glibc" not in wheels.PROMISED
