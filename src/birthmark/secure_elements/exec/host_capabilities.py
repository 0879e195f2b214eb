"""Host support for keys in tokens: OpenSSL's PKCS#11 engine and the provider that succeeded it."""

from dataclasses import dataclass
from pathlib import Path

from birthmark.secure_elements.errors import EngineMissingError

_ENGINES = (
    "usr/lib/*/engines-3/pkcs11.so",  # Debian: one directory per architecture
    "usr/lib64/engines-3/pkcs11.so",
    "usr/lib/engines-3/pkcs11.so",
)
_PROVIDERS = (
    "usr/lib/*/ossl-modules/pkcs11.so",
    "usr/lib64/ossl-modules/pkcs11.so",
    "usr/lib/ossl-modules/pkcs11.so",
    "usr/local/lib*/ossl-modules/pkcs11.so",
)


@dataclass(frozen=True, slots=True)
class HostCapabilities:
    """Detected components; None if not installed."""

    engine: Path | None
    provider: Path | None


def detect_capabilities(root: Path = Path("/")) -> HostCapabilities:
    """Return the components installed under `root`."""
    return HostCapabilities(_first(root, _ENGINES), _first(root, _PROVIDERS))


def find_engine(root: Path = Path("/")) -> Path:
    """Return OpenSSL's PKCS#11 engine. Raise `EngineMissingError`, which names the package."""
    found = _first(root, _ENGINES)
    if found is None:
        raise EngineMissingError(looked_in=", ".join("/" + pattern.rsplit("/", 1)[0] for pattern in _ENGINES))
    return found


def _first(root: Path, patterns: tuple[str, ...]) -> Path | None:
    return next((path for pattern in patterns for path in sorted(root.glob(pattern))), None)
