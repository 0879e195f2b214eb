"""Lines of other programs, which look like trouble and are none or which mean some, and codes in pasted text.

The page docs/reference/messages.md is written from these tables (tools/make_messages.py).
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
class HarmlessPattern:
    """A line that may be ignored: by whom, how it reads, why it is no trouble."""

    program: str
    line: str
    pattern: str
    why: str


@dataclass(frozen=True, slots=True)
class DiagnosticPattern:
    """A line that means something: by whom, how it reads, what was wrong, what to do."""

    program: str
    line: str
    pattern: str
    cause: str
    fix: str


HARMLESS: Sequence[HarmlessPattern] = (
    HarmlessPattern(
        "NXP Plug & Trust middleware",
        "Compiled for 0x30100. Got newer 0x30600",
        r"compiled for 0x[0-9a-f]+\W+got newer 0x[0-9a-f]+",
        "The chip's applet is newer than the middleware was built for; it is compatible.",
    ),
    HarmlessPattern(
        "NXP Plug & Trust middleware",
        "nxEnsure … failed. At Line:417",
        r"\bline:?\s*417\b",
        "It looks whether an object is there, and the object is not there yet. What follows counts.",
    ),
    HarmlessPattern(
        "tpm2-pkcs11",
        "ERROR: User specified and TPM specified attr mismatch: 0x10a",
        r"user specified and tpm specified attr mismatch",
        "It says so of every key that it makes; the key is made.",
    ),
    HarmlessPattern(
        "azure-iot-device",
        "Exception caught in background thread. Unable to handle.",
        r"exception caught in background thread",
        "After a result that was a success it tells of a connection that was closed at the end.",
    ),
    HarmlessPattern(
        "paho-mqtt, inside azure-iot-device",
        "DeprecationWarning: Callback API version 1 is deprecated, update to latest version",
        r"callback api version 1 is deprecated",
        "The SDK uses an older interface of its MQTT library, which still works.",
    ),
    HarmlessPattern(
        "boto3, AWS CLI",
        "PythonDeprecationWarning: Boto3 will no longer support Python 3.x",
        r"boto3 will no longer support python",
        "A word to whoever chooses the Python version; the call itself was made.",
    ),
    HarmlessPattern(
        "pip",
        "DEPRECATION: paho-mqtt is being installed using the legacy 'setup.py install' method",
        r"is being installed using the legacy 'setup\.py install'",
        "The package is installed all the same.",
    ),
    HarmlessPattern(
        "iotedge check",
        "production readiness: logs policy - Warning",
        r"production readiness: .*\bwarning\b|not configured to rotate module logs",
        "It compares with what Microsoft recommends for production; identity and connection do not depend on it.",
    ),
    HarmlessPattern(
        "iotedge check",
        "DNS server - Warning: Container engine is not configured with DNS server setting",
        r"container engine is not configured with dns server",
        "As above: modules use the host's DNS.",
    ),
    HarmlessPattern(
        "alembic, in a debug log of `birthmark serve`",
        "Context impl SQLiteImpl. / Will assume non-transactional DDL.",
        r"context impl \w+\.|will assume (non-)?transactional ddl",
        "The database was looked at for migrations, as at each start.",
    ),
)

_LABELS = "`birthmark chip ls` shows tokens and keys by their labels."
TELLING: Sequence[DiagnosticPattern] = (
    DiagnosticPattern(
        "NXP Plug & Trust middleware",
        "Communication channel is Plain. / !!!Not recommended for production use.!!!",
        r"communication channel is plain|not recommended for production use",
        "No error: the connection to the cloud is as safe as ever, and the key stays in the chip. The wires between "
        "processor and chip are in plain: who reaches them reads along, and may answer in the chip's place.",
        "Nothing at a desk. For a product, give the channel keys of its own (Platform SCP03): docs/howto/se050.md. "
        "`birthmark doctor` says how it stands.",
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "[pkcs11] - id=0x… session=1: Failed to find private key on PKCS#11 token which matches search criteria",
        r"failed to find private key on pkcs#11 token|AWS_ERROR_PKCS11_KEY_NOT_FOUND",
        "The token was opened, and no private key in it has the label that the program gave as private_key_label.",
        f"{_LABELS} Without private_key_label the token's one key is taken.",
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "[pkcs11] - id=0x… session=2: Failed to choose private key, multiple objects on PKCS#11 token match search "
        "criteria",
        r"failed to choose private key, multiple objects|AWS_ERROR_PKCS11_KEY_NOT_FOUND",
        "Two private keys fit: they have the same label, or no private_key_label was given.",
        f"Give the label of one as private_key_label; two of one label have to be told apart first. {_LABELS}",
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "[pkcs11] - id=0x…: Failed to find PKCS#11 token which matches search criteria",
        r"failed to (find|choose) pkcs#11 token|AWS_ERROR_PKCS11_TOKEN_NOT_FOUND",
        "The library shows no token, or several, with the token_label or slot_id that the program gave.",
        _LABELS,
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "[pkcs11] - id=0x… session=5: C_Login() failed. PKCS#11 error: CKR_PIN_INCORRECT (0x000000A0). AWS error: "
        "AWS_ERROR_PKCS11_CKR_PIN_INCORRECT",
        r"C_Login\(\) failed.*CKR_PIN_|AWS_ERROR_PKCS11_CKR_PIN_(INCORRECT|LEN_RANGE|INVALID|LOCKED)",
        "The token does not take the PIN that the program gave as user_pin.",
        "Stop what tries again by itself: a few wrong PINs lock a chip. Make sure of the PIN, then try it once: "
        "`birthmark chip ls`; a right one sets the count back.",
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "AWS_ERROR_PKCS11_VERSION_UNSUPPORTED: The PKCS#11 library uses an unsupported API version.",
        r"AWS_ERROR_PKCS11_VERSION_UNSUPPORTED",
        "The SDK takes libraries that say 2.20 or a later 2.x; this one, as pkcs11-spy does, says another version.",
        "Give the program the chip's own library, with nothing before it: `birthmark chip ls --module FILE`.",
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "AWS_ERROR_PKCS11_ENCODING_ERROR: A PKCS#11 (Cryptoki) library function was unable to ASN.1 (DER) encode",
        r"AWS_ERROR_PKCS11_ENCODING_ERROR",
        "The key in the token is of P-521: the SDK writes no signature that long.",
        "Make a key of another kind: `birthmark chip keygen operational --algorithm p256`; P-384 and RSA do, too.",
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "AWS_ERROR_MQTT_UNEXPECTED_HANGUP: The connection was closed unexpectedly.",
        r"AWS_ERROR_MQTT_UNEXPECTED_HANGUP",
        "The server let nobody in, or ended the connection: AWS IoT closes it without a word for what a policy or the "
        "certificate's status does not allow, and once where a device comes for the first time by a CA on record.",
        "`birthmark why` has the reason. A device that came for the first time connects again, and is in.",
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "AWS_IO_TLS_ERROR_NEGOTIATION_FAILURE: TLS (SSL) negotiation failed",
        r"AWS_IO_TLS_ERROR_NEGOTIATION_FAILURE",
        "Before anything was asked: the program does not trust the server's certificate, or goes to another name or "
        "port than it should; or, with a key in a token, the server takes no TLS 1.2, which the SDK speaks then.",
        "Give the program the CA and the host that are printed here: `birthmark env`",
    ),
    DiagnosticPattern(
        "paho-mqtt 1.6, inside azure-iot-device",
        "…/paho/mqtt/client.py … in _sock_send … ssl.SSLEOFError: EOF occurred in violation of protocol",
        r"paho[\s\S]*ssl\.SSLEOFError: EOF occurred in violation",
        "The server went away, without a word, while the library wrote to it. The library's thread has ended and tells "
        "nobody: the SDK takes itself for connected, and whatever it is asked for waits for ever.",
        "Start the program again. One that has to go on by itself gives each call a deadline, and makes a new client "
        "after it.",
    ),
)

_TRACKING_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_CODE = re.compile(r"\b[a-z][a-z0-9]*\.[a-z0-9_]+\b")


def harmless_in(text: str) -> list[HarmlessPattern]:
    """Return the known lines in `text`."""
    return [one for one in HARMLESS if re.search(one.pattern, text, re.IGNORECASE)]


def telling_in(text: str) -> list[DiagnosticPattern]:
    """Return the known lines in `text` that mean something."""
    return [one for one in TELLING if re.search(one.pattern, text, re.IGNORECASE)]


def tracking_ids_in(text: str) -> list[str]:
    """Return what may be tracking ids, each once."""
    return list(dict.fromkeys(found.lower() for found in _TRACKING_ID.findall(text)))


def refusals_in(text: str) -> list[type[BirthmarkError]]:
    """Return the classes of the codes in `text`, in order."""
    wanted = list(dict.fromkeys(_CODE.findall(text)))
    known = {cls.code: cls for cls in _classes() if "code" in vars(cls)} if wanted else {}
    return [known[code] for code in wanted if code in known]


def _classes() -> set[type[BirthmarkError]]:
    never = ("birthmark.secure_elements.hook", "birthmark.demo.apps", "birthmark.store.migrations")
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
