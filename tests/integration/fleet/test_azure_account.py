"""The key of a provisioning service is asked for by who is signed in, and stands in no file.

Azure's management interface is played here: nobody serves it but Azure. The SDKs are the vendor's own.
"""

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken

from birthmark.auth.connection_strings import parse_connection_string
from birthmark.errors import BirthmarkError
from birthmark.fleet.azure_connection_string_lookup import AzureAccount, connect
from birthmark.fleet.azure_target import AzureTarget
from birthmark.fleet.errors import (
    CredentialsRefusedError,
    NotAllowedError,
    ProfileError,
    TargetRefusedError,
    TargetUnreachableError,
)
from birthmark.fleet.target_profiles import AzureProfile, azure_profile
from support.server.servers import a_new_server

DENIED = (
    "The client 'c' with object id 'o' does not have authorization to perform action "
    "'Microsoft.Devices/provisioningServices/read' over scope '/subscriptions/s'."
)


class SignedIn:
    """A credential as azure-identity's are."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes += scopes
        return AccessToken("token", 2**40)


@dataclass
class Management:
    """What Azure's management interface answers, and who asked."""

    url: str
    answers: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)


@pytest.fixture
def management(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Management]:
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=management", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            path = self.path.partition("?")[0]
            found.asked.append((self.command, path, self.headers.get("Authorization", "")))
            status, body = found.answers.get(f"{self.command} {path.rpartition('/')[2]}", (404, {}))
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        http.socket = context.wrap_socket(http.socket, server_side=True)
        found = Management(f"https://127.0.0.1:{http.server_address[1]}")
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield found
        http.shutdown()


def account(management: Management) -> AzureAccount:
    return AzureAccount("my-dps", "factory", "sub", management_url=management.url)


def service(host: str, scope: str) -> tuple[int, dict[str, Any]]:
    properties = {"serviceOperationsHostName": host, "idScope": scope}
    return 200, {"name": "my-dps", "location": "westeurope", "properties": properties, "sku": {"name": "S1"}}


def test_a_service_is_used_by_the_key_that_is_asked_for(management: Management, tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        dps = server.endpoints["dps"]
        parsed = parse_connection_string(dps["service_connection_string"])
        key = dps["service_connection_string"].partition("SharedAccessKey=")[2]
        management.answers |= {
            "GET my-dps": service(parsed.host, dps["id_scope"]),
            "POST listkeys": (
                200,
                {"keyName": "provisioningserviceowner", "primaryKey": key, "rights": "ServiceConfig"},
            ),
        }
        credential = SignedIn()
        found, scope = connect(account(management), credential)
        assert scope == dps["id_scope"]
        target = AzureTarget(AzureProfile(found, Path(server.endpoints["trust_bundle"]), scope))
        assert list(target.records()) == []
    assert credential.scopes[0] == f"{management.url}/.default"
    assert all(authorization == "Bearer token" for _, _, authorization in management.asked)


@pytest.mark.parametrize(
    ("status", "message", "kind", "said"),
    [
        (403, DENIED, NotAllowedError, "Microsoft.Devices/provisioningServices/read"),
        (401, "the token is over", CredentialsRefusedError, "the token is over"),
        (404, "my-dps was not found", TargetRefusedError, "my-dps was not found"),
    ],
)
def test_what_azure_refuses_has_its_kind(
    management: Management, status: int, message: str, kind: type[BirthmarkError], said: str
) -> None:
    management.answers["GET my-dps"] = (status, {"error": {"code": "Code", "message": message}})
    with pytest.raises(kind) as refused:
        connect(account(management), SignedIn())
    assert said in refused.value.explain_cause()


def test_a_service_without_a_key_is_told(management: Management) -> None:
    management.answers |= {"GET my-dps": service("h", "0ne"), "POST listkeys": (200, {"keyName": "k"})}
    with pytest.raises(ProfileError):
        connect(account(management), SignedIn())


def test_azure_that_does_not_answer_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azure.core.pipeline.policies.RetryPolicy.sleep", lambda *_, **__: None)
    with pytest.raises(TargetUnreachableError):
        connect(AzureAccount("my-dps", "factory", "sub", management_url="https://127.0.0.1:9"), SignedIn())


@pytest.mark.parametrize("table", ['service = "s"', 'service = "s"\nresource_group = "g"'])
def test_a_profile_that_names_a_service_needs_to_say_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID", raising=False)
    (tmp_path / ".config" / "birthmark").mkdir(parents=True)
    (tmp_path / ".config" / "birthmark" / "profiles.toml").write_text(f"[factory.azure]\n{table}\n")
    with pytest.raises(ProfileError) as refused:
        azure_profile("factory", tmp_path)
    assert "has a service but no" in refused.value.explain_cause()
