"""Inspection of OpenSSL's configuration, and of the bus settings of NXP's and Microchip's libraries."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from birthmark.doctor.facts import BusFacts, OpensslFacts
from birthmark.doctor.file_inspection import inspect_file, libraries, text_of
from birthmark.doctor.rules import i2c_bus_and_scp03, openssl_config
from birthmark.doctor.rules.chip import NXP_LIBRARY
from birthmark.doctor.setting_sources import SourcedSetting

_ENC = re.compile(r"^[ \t]*ENC[ \t]+([0-9A-Fa-f]{32})[ \t]*$", re.MULTILINE)
_FILESTORE = re.compile(r"^[ \t]*filestore[ \t]*=[ \t]*(\S+)", re.MULTILINE)
_MAX_SLOTS = 16

# Platform SCP keys ENC that NXP publishes per variant (AN12436): first half of the SHA-256 -> variant.
PUBLISHED: Mapping[str, str] = {
    "a97d7e385e275ee55a4e0cf6b602508f": "SE050A1",
    "17febec335ac662576d3464f66990bfd": "SE050A2",
    "742b8c7c8d28ba2ccc9fac85672e9365": "SE050B1",
    "1db0f07e7a2b98566f5651bafe8627a9": "SE050B2",
    "fda1ce991d13b5bbcfbb6ad0e9121e89": "SE050C1",
    "0fd71e1a8af42915b72443cee1143384": "SE050C2",
    "bd10d2c1891b010a4a4fc1d3b0776266": "SE050 development kit",
    "e57ea58a807aab4d2e1d95d225e34854": "SE051A2",
    "7e7605aa200d8a411b370721bd8e785a": "SE051C2",
    "e52aa4a0f984ffb51295e2eb07735ae8": "SE050F2",
    "1cc6ccdcc32487d14d9f3d2b7f6506d3": "SE051C",
    "99ac268cf6a1d662860deb207033a63e": "SE051A",
    "2bf09ca38b6e6140e92e69960f374aa4": "SE050E",
    "95c2b05a99a1f03b89e304f683546396": "A5000",
    "2434517e69a7b3b0daf61fa9f6678416": "SE050F2 (A92A)",
}


def look_at_openssl(setting: SourcedSetting | None, root: Path) -> OpensslFacts | None:
    """Return the file of OPENSSL_CONF; None if the variable is not set."""
    if setting is None:
        return None
    path = Path(setting.value)
    sections = openssl_config.parse(text_of(path))
    missing = tuple(one for one in openssl_config.paths_in(sections) if not Path(one).exists())
    return OpensslFacts(setting, inspect_file(path), sections, missing, tuple(libraries(root)))


def look_at_bus(settings: Mapping[str, SourcedSetting], root: Path) -> BusFacts:
    """Return the bus settings of the secure element."""
    port, scp03, module = (settings.get(one) for one in ("EX_SSS_BOOT_SSS_PORT", "EX_SSS_BOOT_SCP03_PATH", "module"))
    device = "" if port is None else i2c_bus_and_scp03.device_in(port.value)
    devices = () if not device else tuple(str(one) for one in sorted(Path(device).parent.glob("i2c-*")))
    keys = None if scp03 is None else Path(scp03.value)
    main = root / "etc/cryptoauthlib/cryptoauthlib.conf"
    store = _FILESTORE.findall(text_of(main))
    slots = sorted(Path(store[0]).glob("*.conf"))[:_MAX_SLOTS] if store else []
    return BusFacts(
        port,
        inspect_file(Path(device)) if device else None,
        devices,
        scp03,
        None if keys is None else inspect_file(keys),
        "" if keys is None else _variant(text_of(keys)),
        has_nxp_library=module is not None and NXP_LIBRARY in module.value,
        lacks_middleware=module is None and not any(NXP_LIBRARY in one for one in libraries(root)),
        microchip=tuple((str(path), text_of(path)) for path in slots),
        filestore=inspect_file(Path(store[0])) if store else None,
    )


def _variant(text: str) -> str:
    """Return the variant whose published keys a file has; empty for other keys."""
    found = _ENC.findall(text)
    digests = [hashlib.sha256(bytes.fromhex(one)).hexdigest()[:32] for one in found]
    return next((PUBLISHED[one] for one in digests if one in PUBLISHED), "")
