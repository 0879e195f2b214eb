"""Translations of frequent refusals; every other refusal is shown in English.

A catalog has message, cause and fix of a code as templates. Facts are filled in by name. Commands are `1`, `2`: the
first and second of the English fix, so that each is written once.
"""

import re
from collections.abc import Mapping
from typing import Any

from birthmark.webconsole.event_labels import mark_for_translation
from birthmark.webconsole.i18n import ENGLISH, catalogue, reader

PREFIX = "refusal "
TEXTS: Mapping[str, Mapping[str, str]] = {
    code: {"message": message, "cause": cause, "fix": fix}
    for code, message, cause, fix in (
        (
            "dps.not_enrolled",
            mark_for_translation("refusal dps.not_enrolled message"),
            mark_for_translation("refusal dps.not_enrolled cause"),
            mark_for_translation("refusal dps.not_enrolled fix"),
        ),
        (
            "dps.enrollment_disabled",
            mark_for_translation("refusal dps.enrollment_disabled message"),
            mark_for_translation("refusal dps.enrollment_disabled cause"),
            mark_for_translation("refusal dps.enrollment_disabled fix"),
        ),
        (
            "dps.registration_id_mismatch",
            mark_for_translation("refusal dps.registration_id_mismatch message"),
            mark_for_translation("refusal dps.registration_id_mismatch cause"),
            mark_for_translation("refusal dps.registration_id_mismatch fix"),
        ),
        (
            "dps.unknown_scope",
            mark_for_translation("refusal dps.unknown_scope message"),
            mark_for_translation("refusal dps.unknown_scope cause"),
            mark_for_translation("refusal dps.unknown_scope fix"),
        ),
        (
            "dps.certificate_mismatch",
            mark_for_translation("refusal dps.certificate_mismatch message"),
            mark_for_translation("refusal dps.certificate_mismatch cause"),
            mark_for_translation("refusal dps.certificate_mismatch fix"),
        ),
        (
            "dps.device_taken_back",
            mark_for_translation("refusal dps.device_taken_back message"),
            mark_for_translation("refusal dps.device_taken_back cause"),
            mark_for_translation("refusal dps.device_taken_back fix"),
        ),
        (
            "iothub.unknown_device",
            mark_for_translation("refusal iothub.unknown_device message"),
            mark_for_translation("refusal iothub.unknown_device cause"),
            mark_for_translation("refusal iothub.unknown_device fix"),
        ),
        (
            "iothub.device_disabled",
            mark_for_translation("refusal iothub.device_disabled message"),
            mark_for_translation("refusal iothub.device_disabled cause"),
            mark_for_translation("refusal iothub.device_disabled fix"),
        ),
        (
            "iothub.thumbprint_mismatch",
            mark_for_translation("refusal iothub.thumbprint_mismatch message"),
            mark_for_translation("refusal iothub.thumbprint_mismatch cause"),
            mark_for_translation("refusal iothub.thumbprint_mismatch fix"),
        ),
        (
            "iothub.unknown_hub",
            mark_for_translation("refusal iothub.unknown_hub message"),
            mark_for_translation("refusal iothub.unknown_hub cause"),
            mark_for_translation("refusal iothub.unknown_hub fix"),
        ),
        (
            "est.password_wrong",
            mark_for_translation("refusal est.password_wrong message"),
            mark_for_translation("refusal est.password_wrong cause"),
            mark_for_translation("refusal est.password_wrong fix"),
        ),
        (
            "est.credentials_missing",
            mark_for_translation("refusal est.credentials_missing message"),
            mark_for_translation("refusal est.credentials_missing cause"),
            mark_for_translation("refusal est.credentials_missing fix"),
        ),
        (
            "est.token_used",
            mark_for_translation("refusal est.token_used message"),
            mark_for_translation("refusal est.token_used cause"),
            mark_for_translation("refusal est.token_used fix"),
        ),
        (
            "pki.certificate_expired",
            mark_for_translation("refusal pki.certificate_expired message"),
            mark_for_translation("refusal pki.certificate_expired cause"),
            mark_for_translation("refusal pki.certificate_expired fix"),
        ),
        (
            "pki.certificate_not_yet_valid",
            mark_for_translation("refusal pki.certificate_not_yet_valid message"),
            mark_for_translation("refusal pki.certificate_not_yet_valid cause"),
            mark_for_translation("refusal pki.certificate_not_yet_valid fix"),
        ),
        (
            "tls.server_not_trusted",
            mark_for_translation("refusal tls.server_not_trusted message"),
            mark_for_translation("refusal tls.server_not_trusted cause"),
            mark_for_translation("refusal tls.server_not_trusted fix"),
        ),
        (
            "tls.key_not_proven",
            mark_for_translation("refusal tls.key_not_proven message"),
            mark_for_translation("refusal tls.key_not_proven cause"),
            mark_for_translation("refusal tls.key_not_proven fix"),
        ),
        (
            "tls.client_clock_wrong",
            mark_for_translation("refusal tls.client_clock_wrong message"),
            mark_for_translation("refusal tls.client_clock_wrong cause"),
            mark_for_translation("refusal tls.client_clock_wrong fix"),
        ),
        (
            "awsiot.certificate_unknown",
            mark_for_translation("refusal awsiot.certificate_unknown message"),
            mark_for_translation("refusal awsiot.certificate_unknown cause"),
            mark_for_translation("refusal awsiot.certificate_unknown fix"),
        ),
        (
            "awsiot.policy_denied",
            mark_for_translation("refusal awsiot.policy_denied message"),
            mark_for_translation("refusal awsiot.policy_denied cause"),
            mark_for_translation("refusal awsiot.policy_denied fix"),
        ),
        (
            "mqtt.identity_contested",
            mark_for_translation("refusal mqtt.identity_contested message"),
            mark_for_translation("refusal mqtt.identity_contested cause"),
            mark_for_translation("refusal mqtt.identity_contested fix"),
        ),
    )
}
"""Texts of refusals by code, as the keys of the translation catalog."""
_COMMAND = re.compile(r"`(\d)`")


def localize_refusal(refusal: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a refusal with `lang`, and translated texts if the user's catalog has them."""
    told: dict[str, str] = {}
    said, facts = catalogue(reader.get().language), {k: v.replace("`", "'") for k, v in refusal["facts"].items()}
    try:
        for name, key in TEXTS.get(refusal["code"], {}).items():
            text = said[key][0].format_map(facts)
            told[name] = _COMMAND.sub(lambda one: _command(refusal["fix"], int(one[1])), text)
    except LookupError:  # no translation, fact or command: show it as recorded
        told = {}
    return {**refusal, **told, "lang": reader.get().language if told else ENGLISH}


def _command(fix: str, number: int) -> str:
    return f"`{fix.split('`')[1::2][number - 1]}`"
