"""Log lines of other programs, harmless or diagnostic, and error codes in pasted text.

The page docs/reference/messages.md is generated from these tables (tools/make_messages.py).
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
    """A harmless log line: program, pattern and explanation."""

    program: str
    line: str
    pattern: str
    why: str


@dataclass(frozen=True, slots=True)
class DiagnosticPattern:
    """A diagnostic log line: program, pattern, cause and fix."""

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
        "The chip's applet is newer than the one that the middleware was built for; it is compatible.",
    ),
    HarmlessPattern(
        "NXP Plug & Trust middleware",
        "nxEnsure … failed. At Line:417",
        r"\bline:?\s*417\b",
        (
            "The middleware checks whether an object exists, and it does not exist yet. Only the messages "
            "after this one matter."
        ),
    ),
    HarmlessPattern(
        "tpm2-pkcs11",
        "ERROR: User specified and TPM specified attr mismatch: 0x10a",
        r"user specified and tpm specified attr mismatch",
        "The middleware logs this for every key that it creates; the key is created.",
    ),
    HarmlessPattern(
        "azure-iot-device",
        "Exception caught in background thread. Unable to handle.",
        r"exception caught in background thread",
        "The SDK logs this after a successful result, about a connection that was closed at the end.",
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
        "A notice about the Python version; the call itself was made.",
    ),
    HarmlessPattern(
        "pip",
        "DEPRECATION: paho-mqtt is being installed using the legacy 'setup.py install' method",
        r"is being installed using the legacy 'setup\.py install'",
        "The package is installed anyway.",
    ),
    HarmlessPattern(
        "iotedge check",
        "production readiness: logs policy - Warning",
        r"production readiness: .*\bwarning\b|not configured to rotate module logs",
        (
            "It compares the setup with Microsoft's recommendations for production; identity and connection "
            "do not depend on them."
        ),
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
        "The database was checked for migrations, as at each start.",
    ),
)

_LABELS = "List tokens and keys with their labels: `birthmark chip ls`."
TELLING: Sequence[DiagnosticPattern] = (
    DiagnosticPattern(
        "NXP Plug & Trust middleware",
        "Communication channel is Plain. / !!!Not recommended for production use.!!!",
        r"communication channel is plain|not recommended for production use",
        (
            "This is not an error: the connection to the cloud is secure, and the key stays in the chip. The "
            "bus between processor and chip is unencrypted. An attacker on the bus can read it and respond in"
            " the chip's place."
        ),
        (
            "No action is needed for development. For a product, give the channel its own keys (Platform "
            "SCP03): docs/howto/se050.md. To check the channel: `birthmark doctor`."
        ),
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "[pkcs11] - id=0x… session=1: Failed to find private key on PKCS#11 token which matches search criteria",
        r"failed to find private key on pkcs#11 token|AWS_ERROR_PKCS11_KEY_NOT_FOUND",
        "The token was opened, and it contains no private key with the program's private_key_label.",
        f"{_LABELS} Without private_key_label, the SDK uses the token's only key.",
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "[pkcs11] - id=0x… session=2: Failed to choose private key, multiple objects on PKCS#11 token match search "
        "criteria",
        r"failed to choose private key, multiple objects|AWS_ERROR_PKCS11_KEY_NOT_FOUND",
        "Two private keys match: they have the same label, or private_key_label is not set.",
        (
            "Set private_key_label to the label of one key; give two keys with one label different labels "
            f"first. {_LABELS}"
        ),
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "[pkcs11] - id=0x…: Failed to find PKCS#11 token which matches search criteria",
        r"failed to (find|choose) pkcs#11 token|AWS_ERROR_PKCS11_TOKEN_NOT_FOUND",
        "The library has no token, or several, with the program's token_label or slot_id.",
        _LABELS,
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "[pkcs11] - id=0x… session=5: C_Login() failed. PKCS#11 error: CKR_PIN_INCORRECT (0x000000A0). AWS error: "
        "AWS_ERROR_PKCS11_CKR_PIN_INCORRECT",
        r"C_Login\(\) failed.*CKR_PIN_|AWS_ERROR_PKCS11_CKR_PIN_(INCORRECT|LEN_RANGE|INVALID|LOCKED)",
        "The token rejects the program's PIN (user_pin).",
        (
            "Stop programs that retry automatically: a few wrong PINs lock a chip. Verify the PIN, then try "
            "it once: `birthmark chip ls`. A correct PIN resets the counter."
        ),
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "AWS_ERROR_PKCS11_VERSION_UNSUPPORTED: The PKCS#11 library uses an unsupported API version.",
        r"AWS_ERROR_PKCS11_VERSION_UNSUPPORTED",
        (
            "The SDK requires a library with version 2.20 or a later 2.x; this library, such as pkcs11-spy, "
            "reports another version."
        ),
        "Use the chip's own library directly in the program: `birthmark chip ls --module FILE`.",
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "AWS_ERROR_PKCS11_ENCODING_ERROR: A PKCS#11 (Cryptoki) library function was unable to ASN.1 (DER) encode",
        r"AWS_ERROR_PKCS11_ENCODING_ERROR",
        "The key in the token is a P-521 key, whose signatures are too long for the SDK.",
        (
            "Create a key of another type: `birthmark chip keygen operational --algorithm p256`; P-384 and "
            "RSA also work."
        ),
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "AWS_ERROR_MQTT_UNEXPECTED_HANGUP: The connection was closed unexpectedly.",
        r"AWS_ERROR_MQTT_UNEXPECTED_HANGUP",
        (
            "The server rejected the connection or ended it. AWS IoT closes the connection without a message "
            "if a policy or the certificate's status does not permit it. It also does so once at a device's "
            "first connection with a registered CA's certificate."
        ),
        "To show the cause: `birthmark why`. At a first connection, the device connects again and is accepted.",
    ),
    DiagnosticPattern(
        "AWS IoT Device SDK v2 (awscrt)",
        "AWS_IO_TLS_ERROR_NEGOTIATION_FAILURE: TLS (SSL) negotiation failed",
        r"AWS_IO_TLS_ERROR_NEGOTIATION_FAILURE",
        (
            "The handshake failed before the first request. The program does not trust the server's "
            "certificate, or uses a wrong name or port. With a key in a token, the SDK uses TLS 1.2, which "
            "the server may not support."
        ),
        "Set the CA and the host in the program. To print them: `birthmark env`",
    ),
    DiagnosticPattern(
        "paho-mqtt 1.6, inside azure-iot-device",
        "…/paho/mqtt/client.py … in _sock_send … ssl.SSLEOFError: EOF occurred in violation of protocol",
        r"paho[\s\S]*ssl\.SSLEOFError: EOF occurred in violation",
        (
            "The server closed the connection while the library was sending. The library's thread has ended "
            "without notifying the SDK. The SDK considers itself connected, and its calls wait forever."
        ),
        (
            "Restart the program. For automatic recovery, use a timeout for each call, and create a new "
            "client after a timeout."
        ),
    ),
)

_TRACKING_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_CODE = re.compile(r"\b[a-z][a-z0-9]*\.[a-z0-9_]+\b")


def harmless_in(text: str) -> list[HarmlessPattern]:
    """Return the known harmless lines in `text`."""
    return [one for one in HARMLESS if re.search(one.pattern, text, re.IGNORECASE)]


def diagnostics_in(text: str) -> list[DiagnosticPattern]:
    """Return the known diagnostic lines in `text`."""
    return [one for one in TELLING if re.search(one.pattern, text, re.IGNORECASE)]


def tracking_ids_in(text: str) -> list[str]:
    """Return the distinct possible tracking IDs in a text."""
    return list(dict.fromkeys(found.lower() for found in _TRACKING_ID.findall(text)))


def refusals_in(text: str) -> list[type[BirthmarkError]]:
    """Return the error classes whose codes are in `text`, in order."""
    wanted = list(dict.fromkeys(_CODE.findall(text)))
    known = {cls.code: cls for cls in _classes() if "code" in vars(cls)} if wanted else {}
    return [known[code] for code in wanted if code in known]


def _classes() -> set[type[BirthmarkError]]:
    never = ("birthmark.secure_elements.hook", "birthmark.demo.apps", "birthmark.store.migrations")
    for module in pkgutil.walk_packages(birthmark.__path__, "birthmark.", onerror=lambda _name: None):
        if not module.name.startswith(never):
            with contextlib.suppress(ImportError):  # missing extra: its refusals cannot occur
                importlib.import_module(module.name)
    found: set[type[BirthmarkError]] = set()
    waiting: list[type[BirthmarkError]] = [BirthmarkError]
    while waiting:
        cls = waiting.pop()
        found.add(cls)
        waiting += cls.__subclasses__()
    return found
