"""Lines of other programs that look like trouble and are none, and codes in pasted text.

The page docs/reference/messages.md is written from this table (tools/make_messages.py).
"""

import contextlib
import importlib
import pkgutil
import re
from collections.abc import Sequence
from dataclasses import dataclass

import birthmark
from birthmark.errors import BirthmarkError


@dataclass(frozen=True, slots=True)
class Harmless:
    """A line that may be ignored: by whom, how it reads, why it is no trouble."""

    program: str
    line: str
    pattern: str
    why: str


HARMLESS: Sequence[Harmless] = (
    Harmless(
        "NXP Plug & Trust middleware",
        "Compiled for 0x30100. Got newer 0x30600",
        r"compiled for 0x[0-9a-f]+\W+got newer 0x[0-9a-f]+",
        "The chip's applet is newer than the middleware was built for; it is compatible.",
    ),
    Harmless(
        "NXP Plug & Trust middleware",
        "nxEnsure … failed. At Line:417",
        r"\bline:?\s*417\b",
        "It looks whether an object is there, and the object is not there yet. What follows counts.",
    ),
    Harmless(
        "azure-iot-device",
        "Exception caught in background thread. Unable to handle.",
        r"exception caught in background thread",
        "After a result that was a success it tells of a connection that was closed at the end.",
    ),
    Harmless(
        "paho-mqtt, inside azure-iot-device",
        "DeprecationWarning: Callback API version 1 is deprecated, update to latest version",
        r"callback api version 1 is deprecated",
        "The SDK uses an older interface of its MQTT library, which still works.",
    ),
    Harmless(
        "boto3, AWS CLI",
        "PythonDeprecationWarning: Boto3 will no longer support Python 3.x",
        r"boto3 will no longer support python",
        "A word to whoever chooses the Python version; the call itself was made.",
    ),
    Harmless(
        "pip",
        "DEPRECATION: paho-mqtt is being installed using the legacy 'setup.py install' method",
        r"is being installed using the legacy 'setup\.py install'",
        "The package is installed all the same.",
    ),
    Harmless(
        "iotedge check",
        "production readiness: logs policy - Warning",
        r"production readiness: .*\bwarning\b|not configured to rotate module logs",
        "It compares with what Microsoft recommends for production; identity and connection do not depend on it.",
    ),
    Harmless(
        "iotedge check",
        "DNS server - Warning: Container engine is not configured with DNS server setting",
        r"container engine is not configured with dns server",
        "As above: modules use the host's DNS.",
    ),
    Harmless(
        "alembic, in a debug log of `birthmark serve`",
        "Context impl SQLiteImpl. / Will assume non-transactional DDL.",
        r"context impl \w+\.|will assume (non-)?transactional ddl",
        "The database was looked at for migrations, as at each start.",
    ),
)

_TRACKING_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_CODE = re.compile(r"\b[a-z][a-z0-9]*\.[a-z0-9_]+\b")


def harmless_in(text: str) -> list[Harmless]:
    """Return the known lines in `text`."""
    return [one for one in HARMLESS if re.search(one.pattern, text, re.IGNORECASE)]


def tracking_ids_in(text: str) -> list[str]:
    """Return what may be tracking ids, each once."""
    return list(dict.fromkeys(found.lower() for found in _TRACKING_ID.findall(text)))


def refusals_in(text: str) -> list[type[BirthmarkError]]:
    """Return the classes of the codes in `text`, in order."""
    wanted = list(dict.fromkeys(_CODE.findall(text)))
    known = {cls.code: cls for cls in _classes() if "code" in vars(cls)} if wanted else {}
    return [known[code] for code in wanted if code in known]


def _classes() -> set[type[BirthmarkError]]:
    never = ("birthmark.elements.hook", "birthmark.demo.apps", "birthmark.store.migrations")
    for module in pkgutil.walk_packages(birthmark.__path__, "birthmark.", onerror=lambda _name: None):
        if not module.name.startswith(never):
            with contextlib.suppress(ImportError):  # an extra that is not installed: its refusals cannot have happened
                importlib.import_module(module.name)
    found: set[type[BirthmarkError]] = set()
    waiting: list[type[BirthmarkError]] = [BirthmarkError]
    while waiting:
        cls = waiting.pop()
        found.add(cls)
        waiting += cls.__subclasses__()
    return found
