"""The texts of frequent refusals in the reader's language; every other refusal is shown in English.

A catalogue has the message, cause and fix of a code as templates. Facts are filled in by name. A command is `1`, `2`:
the first, the second of the English fix, so that each is written once.
"""

import re
from collections.abc import Mapping
from typing import Any

from birthmark.webconsole.i18n import ENGLISH, catalogue, reader
from birthmark.webconsole.labels import marked

PREFIX = "refusal "
TEXTS: Mapping[str, Mapping[str, str]] = {
    code: {"message": message, "cause": cause, "fix": fix}
    for code, message, cause, fix in (
        (
            "dps.not_enrolled",
            marked("refusal dps.not_enrolled message"),
            marked("refusal dps.not_enrolled cause"),
            marked("refusal dps.not_enrolled fix"),
        ),
        (
            "dps.enrollment_disabled",
            marked("refusal dps.enrollment_disabled message"),
            marked("refusal dps.enrollment_disabled cause"),
            marked("refusal dps.enrollment_disabled fix"),
        ),
        (
            "dps.registration_id_mismatch",
            marked("refusal dps.registration_id_mismatch message"),
            marked("refusal dps.registration_id_mismatch cause"),
            marked("refusal dps.registration_id_mismatch fix"),
        ),
        (
            "dps.unknown_scope",
            marked("refusal dps.unknown_scope message"),
            marked("refusal dps.unknown_scope cause"),
            marked("refusal dps.unknown_scope fix"),
        ),
        (
            "dps.certificate_mismatch",
            marked("refusal dps.certificate_mismatch message"),
            marked("refusal dps.certificate_mismatch cause"),
            marked("refusal dps.certificate_mismatch fix"),
        ),
        (
            "dps.device_taken_back",
            marked("refusal dps.device_taken_back message"),
            marked("refusal dps.device_taken_back cause"),
            marked("refusal dps.device_taken_back fix"),
        ),
        (
            "iothub.unknown_device",
            marked("refusal iothub.unknown_device message"),
            marked("refusal iothub.unknown_device cause"),
            marked("refusal iothub.unknown_device fix"),
        ),
        (
            "iothub.device_disabled",
            marked("refusal iothub.device_disabled message"),
            marked("refusal iothub.device_disabled cause"),
            marked("refusal iothub.device_disabled fix"),
        ),
        (
            "iothub.thumbprint_mismatch",
            marked("refusal iothub.thumbprint_mismatch message"),
            marked("refusal iothub.thumbprint_mismatch cause"),
            marked("refusal iothub.thumbprint_mismatch fix"),
        ),
        (
            "iothub.unknown_hub",
            marked("refusal iothub.unknown_hub message"),
            marked("refusal iothub.unknown_hub cause"),
            marked("refusal iothub.unknown_hub fix"),
        ),
        (
            "est.password_wrong",
            marked("refusal est.password_wrong message"),
            marked("refusal est.password_wrong cause"),
            marked("refusal est.password_wrong fix"),
        ),
        (
            "est.credentials_missing",
            marked("refusal est.credentials_missing message"),
            marked("refusal est.credentials_missing cause"),
            marked("refusal est.credentials_missing fix"),
        ),
        (
            "est.token_used",
            marked("refusal est.token_used message"),
            marked("refusal est.token_used cause"),
            marked("refusal est.token_used fix"),
        ),
        (
            "pki.certificate_expired",
            marked("refusal pki.certificate_expired message"),
            marked("refusal pki.certificate_expired cause"),
            marked("refusal pki.certificate_expired fix"),
        ),
        (
            "pki.certificate_not_yet_valid",
            marked("refusal pki.certificate_not_yet_valid message"),
            marked("refusal pki.certificate_not_yet_valid cause"),
            marked("refusal pki.certificate_not_yet_valid fix"),
        ),
        (
            "tls.server_not_trusted",
            marked("refusal tls.server_not_trusted message"),
            marked("refusal tls.server_not_trusted cause"),
            marked("refusal tls.server_not_trusted fix"),
        ),
        (
            "tls.key_not_proven",
            marked("refusal tls.key_not_proven message"),
            marked("refusal tls.key_not_proven cause"),
            marked("refusal tls.key_not_proven fix"),
        ),
        (
            "tls.client_clock_wrong",
            marked("refusal tls.client_clock_wrong message"),
            marked("refusal tls.client_clock_wrong cause"),
            marked("refusal tls.client_clock_wrong fix"),
        ),
        (
            "awsiot.certificate_unknown",
            marked("refusal awsiot.certificate_unknown message"),
            marked("refusal awsiot.certificate_unknown cause"),
            marked("refusal awsiot.certificate_unknown fix"),
        ),
        (
            "awsiot.policy_denied",
            marked("refusal awsiot.policy_denied message"),
            marked("refusal awsiot.policy_denied cause"),
            marked("refusal awsiot.policy_denied fix"),
        ),
        (
            "mqtt.identity_contested",
            marked("refusal mqtt.identity_contested message"),
            marked("refusal mqtt.identity_contested cause"),
            marked("refusal mqtt.identity_contested fix"),
        ),
    )
}
"""By code, the keys of the catalogue."""
_COMMAND = re.compile(r"`(\d)`")


def localize_refusal(refusal: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a refusal with `lang`, and its texts in that language where the reader's catalogue has them."""
    told: dict[str, str] = {}
    said, facts = catalogue(reader.get().language), {k: v.replace("`", "'") for k, v in refusal["facts"].items()}
    try:
        for name, key in TEXTS.get(refusal["code"], {}).items():
            text = said[key][0].format_map(facts)
            told[name] = _COMMAND.sub(lambda one: _command(refusal["fix"], int(one[1])), text)
    except LookupError:  # no translation, no such fact, or no such command: as it was recorded
        told = {}
    return {**refusal, **told, "lang": reader.get().language if told else ENGLISH}


def _command(fix: str, number: int) -> str:
    return f"`{fix.split('`')[1::2][number - 1]}`"
