"""The device's side of TPM attestation against canned services."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from birthmark.device_transports.ports import HttpResponse
from birthmark.dps.client import DpsRefusedError, DpsTarget, challenge_by_https, register_by_https
from birthmark.dps.wire import AnswerInvalidError

TARGET = DpsTarget("dps.test", "0ne00AAAAAA", "device-1", https_port=8443)
SEALED = base64.b64encode(b"sealed").decode()
STATE = {"assignedHub": "hub.test", "deviceId": "device-1"}


class Canned:
    def __init__(self, status: int, answer: Mapping[str, Any]) -> None:
        self.status, self.answer, self.asked = status, answer, b""

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        self.asked = body
        return HttpResponse(self.status, {}, json.dumps(self.answer).encode())


async def challenged(service: Canned) -> bytes:
    return await challenge_by_https(service, TARGET, b"ek", b"srk", payload={"a": 1})


async def test_the_challenge_is_what_the_401_brings() -> None:
    service = Canned(401, {"errorCode": 401002, "message": "Unauthorized", "authenticationKey": SEALED})
    assert await challenged(service) == b"sealed"
    tpm = {"endorsementKey": "ZWs=", "storageRootKey": "c3Jr"}
    assert json.loads(service.asked) == {"registrationId": "device-1", "tpm": tpm, "payload": {"a": 1}}


@pytest.mark.parametrize(
    ("status", "answer", "refusal"),
    [
        (401, {"errorCode": 401002, "message": "Unauthorized"}, DpsRefusedError),
        (401, {"authenticationKey": "?"}, AnswerInvalidError),
        (202, {"operationId": "o", "status": "assigning"}, AnswerInvalidError),
    ],
)
async def test_an_answer_without_a_challenge_is_told(
    status: int, answer: Mapping[str, Any], refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        await challenged(Canned(status, answer))


async def test_the_assignment_brings_the_key_for_the_hub() -> None:
    state = STATE | {"tpm": {"authenticationKey": SEALED}}
    service = Canned(200, {"operationId": "o", "status": "assigned", "registrationState": state})
    assert (await register_by_https(service, TARGET, authorization="x")).authentication_key == b"sealed"
