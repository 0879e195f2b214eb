"""A client of a hub's service API that asks again when its server was killed."""

import random
import time
from http import HTTPStatus
from typing import Any

import requests

from birthmark.auth.connection_strings import parse_connection_string
from support.azure.sas_tokens import make_sas
from support.server.servers import RunningServer

PATIENCE_S = 240


class _AgainError(Exception):
    """What was asked has to be asked again."""


class PatientClient:
    """Asks hosts of a server until they answer."""

    def __init__(self, server: RunningServer) -> None:
        self._port = server.endpoints["iothub"]["https_port"]
        self.trust = server.endpoints["trust_bundle"]
        self.asked = 0
        known = parse_connection_string(server.environment["IOTHUB_CONNECTION_STRING"])
        self.first = known.host.partition(":")[0]
        self.keys = {self.first: known.key}

    def hub(self, host: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask a hub by its owner's policy."""
        token = make_sas(host, self.keys[host], int(time.time()) + 3600, "iothubowner")
        return self.until_answered((host, token), method, path, body)

    def until_answered(self, who: tuple[str, str], method: str, path: str, body: Any) -> tuple[int, Any]:
        """Ask at a host with a token until there is an answer."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._answer(who, method, path, body)
            except (_AgainError, requests.RequestException):
                assert time.monotonic() < end, f"{method} {path} was never answered"
                time.sleep(random.uniform(0.05, 0.3))

    def _answer(self, who: tuple[str, str], method: str, path: str, body: Any) -> tuple[int, Any]:
        self.asked += 1
        url = f"https://{self.first}:{self._port}{path}?api-version=2021-10-01"
        headers = {"Host": who[0], "Authorization": who[1]}
        answer = requests.request(method, url, json=body, headers=headers, verify=self.trust, timeout=20)
        if answer.status_code >= HTTPStatus.TOO_MANY_REQUESTS:
            raise _AgainError
        return answer.status_code, answer.json() if answer.content else None
