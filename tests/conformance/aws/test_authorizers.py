"""Custom authorizers by the vendor's SDKs, boto3, curl and paho, unmodified."""

import base64
import contextlib
import http.client
import json
import ssl
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import paho.mqtt.client as paho
import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.aws.clients import until
from support.aws.device import ARN as OWN
from support.aws.device import DEVICE_5, DeviceProcess, document, statement
from support.aws.function_server import ARN, FunctionServer
from support.server import scaled
from support.server.servers import RunningServer

KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
TOKEN = "let me in"
CONNECT = statement("iot:Connect", f"{OWN}client/auth-*")
TALK = statement(["iot:Publish", "iot:Receive"], f"{OWN}topic/auth/*")
LISTEN = statement("iot:Subscribe", f"{OWN}topicfilter/auth/*")
ALL = document(CONNECT, TALK, LISTEN)
Names = Callable[..., str]


def signed(token: str = TOKEN) -> str:
    return base64.b64encode(KEY.sign(token.encode(), padding.PKCS1v15(), hashes.SHA256())).decode()


def yes(*documents: Any, **more: Any) -> dict[str, Any]:
    times = {"refreshAfterInSeconds": 300, "disconnectAfterInSeconds": 3600}
    return {"isAuthenticated": True, "principalId": "somebody", "policyDocuments": list(documents), **times, **more}


@pytest.fixture(scope="module")
def functions() -> Iterator[FunctionServer]:
    with FunctionServer() as functions:
        yield functions


@pytest.fixture(scope="module")
def birthmark_config(tmp_path_factory: pytest.TempPathFactory, functions: FunctionServer) -> str:
    return functions.config(tmp_path_factory.mktemp("authorizers"), "auth")


@pytest.fixture
def authorizer(iot: Any, functions: FunctionServer) -> Iterator[Names]:
    """Make authorizers of the function `auth`, which lets in whoever has the password `test`, or a token."""

    def decide(event: dict[str, Any]) -> dict[str, Any]:
        password = base64.b64decode(event["protocolData"].get("mqtt", {}).get("password", ""))
        return yes(ALL) if password == b"test" or event.get("token") == TOKEN else {"isAuthenticated": False}

    functions.answers["auth"] = decide
    functions.events.clear()
    made: list[str] = []

    def make(name: str, *, signs: bool = False, **more: Any) -> str:
        keys = {"tokenKeyName": "token", "tokenSigningPublicKeys": {"one": PEM}} if signs else {"signingDisabled": True}
        iot.create_authorizer(authorizerName=name, authorizerFunctionArn=f"{ARN}auth", **{**keys, **more})
        made.append(name)
        return name

    yield make
    for name in made:
        iot.update_authorizer(authorizerName=name, status="INACTIVE")
        iot.delete_authorizer(authorizerName=name)


def device(server: RunningServer, over: str = "direct", name: str = "auth-1", **authorizer: Any) -> DeviceProcess:
    common = {"endpoint": server.endpoints["aws"]["data_endpoint"], "ca": server.endpoints["trust_bundle"]}
    return DeviceProcess({**common, "client_id": name, "over": over, "authorizer": authorizer})


def reasons(server: RunningServer) -> list[str]:
    return [row["code"] for row in server.rows("why", "--limit", "20")]


def a_paho(server: RunningServer, username: str, password: str | None = "test", name: str = "auth-paho") -> Any:
    client: Any = paho.Client(name)
    client.tls_set_context(ssl.create_default_context(cafile=server.endpoints["trust_bundle"]))
    client.username_pw_set(username, password)
    client.connected = []
    client.on_connect = lambda *_: client.connected.append(True)
    client.ended = []
    client.on_disconnect = lambda *_: client.ended.append(True)
    client.connect(server.endpoints["aws"]["data_endpoint"], 8883)
    client.loop_start()
    return client


# ---- the resource


def test_an_authorizer_is_made_described_listed_changed_and_deleted(iot: Any) -> None:
    made = iot.create_authorizer(
        authorizerName="kept",
        authorizerFunctionArn=f"{ARN}elsewhere",
        tokenKeyName="token",
        tokenSigningPublicKeys={"one": PEM},
        enableCachingForHttp=True,
    )
    assert made["authorizerArn"] == f"{OWN}authorizer/kept"
    told = iot.describe_authorizer(authorizerName="kept")["authorizerDescription"]
    assert told["authorizerFunctionArn"] == f"{ARN}elsewhere", "kept as it was given, mapped or not"
    assert (told["status"], told["signingDisabled"], told["enableCachingForHttp"]) == ("ACTIVE", False, True)
    assert told["tokenSigningPublicKeys"] == {"one": PEM}
    with pytest.raises(iot.exceptions.ResourceAlreadyExistsException):
        iot.create_authorizer(authorizerName="kept", authorizerFunctionArn=f"{ARN}x", signingDisabled=True)
    with pytest.raises(iot.exceptions.DeleteConflictException):
        iot.delete_authorizer(authorizerName="kept")
    iot.update_authorizer(authorizerName="kept", status="INACTIVE", tokenKeyName="other", enableCachingForHttp=False)
    told = iot.describe_authorizer(authorizerName="kept")["authorizerDescription"]
    assert (told["status"], told["tokenKeyName"], told["enableCachingForHttp"]) == ("INACTIVE", "other", False)
    assert [one["authorizerName"] for one in iot.list_authorizers(status="INACTIVE")["authorizers"]] == ["kept"]
    assert iot.list_authorizers(status="ACTIVE")["authorizers"] == []
    iot.delete_authorizer(authorizerName="kept")
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.describe_authorizer(authorizerName="kept")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({}, "tokenKeyName"),
        ({"tokenKeyName": "token"}, "tokenSigningPublicKeys"),
        ({"tokenKeyName": "token", "tokenSigningPublicKeys": {"one": "no key"}}, "public key one"),
    ],
)
def test_what_no_token_could_be_checked_by_is_refused_by_name(iot: Any, more: dict[str, Any], word: str) -> None:
    with pytest.raises(ClientError, match=word):
        iot.create_authorizer(authorizerName="bad", authorizerFunctionArn=f"{ARN}auth", **more)


def test_a_default_is_set_described_and_cleared(iot: Any, authorizer: Names) -> None:
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.describe_default_authorizer()
    iot.set_default_authorizer(authorizerName=authorizer("usual"))
    assert iot.describe_default_authorizer()["authorizerDescription"]["authorizerName"] == "usual"
    with pytest.raises(iot.exceptions.ResourceAlreadyExistsException):
        iot.set_default_authorizer(authorizerName=authorizer("another"))
    with pytest.raises(iot.exceptions.DeleteConflictException):
        iot.delete_authorizer(authorizerName="usual")
    iot.clear_default_authorizer()


def test_an_authorizer_is_tried_out(iot: Any, authorizer: Names, functions: FunctionServer) -> None:
    authorizer("trial", signs=True)
    tried = iot.test_invoke_authorizer(authorizerName="trial", token=TOKEN, tokenSignature=signed())
    assert (tried["isAuthenticated"], tried["principalId"], tried["policyDocuments"]) == (True, "somebody", [ALL])
    assert (tried["refreshAfterInSeconds"], tried["disconnectAfterInSeconds"]) == (300, 3600)
    said = iot.test_invoke_authorizer(authorizerName="trial", token="other", tokenSignature=signed("other"))
    assert said["isAuthenticated"] is False
    count = len(functions.events)
    with pytest.raises(ClientError):
        iot.test_invoke_authorizer(authorizerName="trial", token="other", tokenSignature=signed())
    assert len(functions.events) == count, "a token whose signature does not hold asks nobody"


def test_a_trial_says_what_a_client_would(iot: Any, authorizer: Names, functions: FunctionServer) -> None:
    iot.test_invoke_authorizer(
        authorizerName=authorizer("context"),
        mqttContext={"username": "me", "password": b"test", "clientId": "auth-1"},
        httpContext={"headers": {"X-One": "1"}, "queryString": "?a=b"},
        tlsContext={"serverName": "iot.example"},
    )
    (event,) = functions.events
    assert event["protocolData"] == {
        "tls": {"serverName": "iot.example"},
        "http": {"headers": {"x-one": "1"}, "queryString": "?a=b"},
        "mqtt": {"username": "me", "password": base64.b64encode(b"test").decode(), "clientId": "auth-1"},
    }
    assert (event["protocols"], event["signatureVerified"]) == (["tls", "http", "mqtt"], False)
    assert event["connectionMetadata"]["id"]


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {"principalId": "x"},
        yes(ALL, principalId="no-dashes"),
        yes(ALL, refreshAfterInSeconds=299),
        yes(ALL, disconnectAfterInSeconds=86401),
        yes(*[ALL] * 11),
        yes("no policy"),
        yes(document(statement("iot:Publish", f"{OWN}topic/{'x' * 2048}"))),
    ],
)
def test_an_answer_that_says_nothing_sure_is_told(
    iot: Any, authorizer: Names, functions: FunctionServer, answer: Any
) -> None:
    authorizer("odd")
    functions.answers["auth"] = lambda _: answer
    with pytest.raises(iot.exceptions.InvalidResponseException):
        iot.test_invoke_authorizer(authorizerName="odd", mqttContext={"username": "me"})


def test_a_function_that_is_not_mapped_is_told_by_name(iot: Any) -> None:
    iot.create_authorizer(
        authorizerName="unmapped", authorizerFunctionArn=f"{ARN}elsewhere", signingDisabled=True, status="INACTIVE"
    )
    with pytest.raises(ClientError, match="function:elsewhere"):
        iot.test_invoke_authorizer(authorizerName="unmapped", mqttContext={"username": "me"})
    iot.delete_authorizer(authorizerName="unmapped")


# ---- clients


@pytest.mark.parametrize("over", ["direct", "websocket"])
def test_the_sdk_comes_by_a_password(
    server: RunningServer, authorizer: Names, functions: FunctionServer, over: str
) -> None:
    authorizer("words")
    login = {"auth_username": "me", "auth_password": "test", "auth_authorizer_name": "words"}
    with device(server, over, **login) as client:
        assert client("connect")["ok"]["session_present"] is False
        assert "ok" in client("subscribe", topic="auth/a")
        assert "ok" in client("publish", topic="auth/a", payload="hello")
        assert client("receive")["ok"] == {"topic": "auth/a", "payload": "hello"}
    (event,) = functions.events
    assert event["protocols"] == (["tls", "mqtt"] if over == "direct" else ["tls", "http", "mqtt"])
    assert event["protocolData"]["mqtt"]["username"].startswith("me?x-amz-customauthorizer-name=words")
    assert event["protocolData"]["mqtt"]["clientId"] == "auth-1"


@pytest.mark.parametrize("over", ["direct", "websocket"])
def test_the_sdk_comes_by_a_signed_token(
    server: RunningServer, authorizer: Names, functions: FunctionServer, over: str
) -> None:
    authorizer("tokens", signs=True)
    login = {"auth_authorizer_name": "tokens", "auth_token_key_name": "token", "auth_token_value": TOKEN}
    with device(server, over, **login, auth_authorizer_signature=signed()) as client:
        assert "ok" in client("connect")
    assert (functions.events[0]["token"], functions.events[0]["signatureVerified"]) == (TOKEN, True)
    functions.events.clear()
    with device(server, over, **login, auth_authorizer_signature=signed("other")) as client:
        assert "ok" not in client("connect")
    assert functions.events == []
    assert "awsiot.token_refused" in reasons(server)


def test_what_its_policies_do_not_allow_ends_the_connection(server: RunningServer, authorizer: Names) -> None:
    authorizer("narrow")
    client = a_paho(server, "me?x-amz-customauthorizer-name=narrow")
    until(lambda: client.connected)
    client.publish("elsewhere", "x", 1)
    until(lambda: client.ended)
    client.loop_stop()
    assert "awsiot.authorizer_denied" in reasons(server)


def test_a_wrong_password_an_inactive_authorizer_and_one_that_is_not_there_let_nobody_in(
    server: RunningServer, iot: Any, authorizer: Names
) -> None:
    name = authorizer("shut")
    for username, password, code in (
        (f"me?x-amz-customauthorizer-name={name}", "wrong", "awsiot.authorizer_refused"),
        ("me?x-amz-customauthorizer-name=nobody", "test", "awsiot.unknown_authorizer"),
        ("me", "test", "awsiot.no_authorizer"),
    ):
        client = a_paho(server, username, password)
        until(lambda client=client: client.ended)  # type: ignore[misc]
        client.loop_stop()
        until(lambda code=code: code in reasons(server), code)  # type: ignore[misc]
    iot.update_authorizer(authorizerName=name, status="INACTIVE")
    client = a_paho(server, f"me?x-amz-customauthorizer-name={name}")
    until(lambda: client.ended)
    client.loop_stop()
    until(lambda: "awsiot.authorizer_inactive" in reasons(server))


def test_an_authorizer_that_is_switched_off_ends_those_it_let_in(
    server: RunningServer, iot: Any, authorizer: Names
) -> None:
    name = authorizer("off")
    client = a_paho(server, f"me?x-amz-customauthorizer-name={name}")
    until(lambda: client.connected)
    iot.update_authorizer(authorizerName=name, status="INACTIVE")
    until(lambda: client.ended)
    client.loop_stop()


def test_the_default_is_asked_where_none_is_named(server: RunningServer, iot: Any, authorizer: Names) -> None:
    iot.set_default_authorizer(authorizerName=authorizer("plain"))
    client = a_paho(server, "me")
    until(lambda: client.connected)
    client.disconnect()
    client.loop_stop()
    iot.clear_default_authorizer()


def test_a_star_reaches_data_and_no_answers_of_the_cloud(
    server: RunningServer, authorizer: Names, functions: FunctionServer
) -> None:
    authorizer("star")
    functions.answers["auth"] = lambda _: yes(document(statement("*")))
    client = a_paho(server, "me?x-amz-customauthorizer-name=star")
    until(lambda: client.connected)
    client.publish("whatever/else", "x", 1).wait_for_publish(10)
    client.publish("$aws/things/a/shadow/update/accepted", "{}", 1)
    until(lambda: client.ended)
    client.loop_stop()


@pytest.mark.parametrize("by", ["headers", "query"])
def test_a_websocket_says_by_headers_or_by_its_query_which_authorizer_decides(
    server: RunningServer, authorizer: Names, functions: FunctionServer, by: str
) -> None:
    said = {"x-amz-customauthorizer-name": authorizer("socket", signs=True), "token": TOKEN}
    said["x-amz-customauthorizer-signature"] = signed()
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in said.items())
    client: Any = paho.Client("auth-socket", transport="websockets")
    client.tls_set_context(ssl.create_default_context(cafile=server.endpoints["trust_bundle"]))
    path, headers = ("/mqtt", said) if by == "headers" else (f"/mqtt?{query}", None)
    client.ws_set_options(path=path, headers=headers)
    client.connected = []
    client.on_connect = lambda *_: client.connected.append(True)
    client.connect(server.endpoints["aws"]["data_endpoint"], 8443)
    client.loop_start()
    until(lambda: client.connected)
    client.disconnect()
    client.loop_stop()
    (event,) = functions.events
    assert (event["token"], event["protocols"]) == (TOKEN, ["tls", "http", "mqtt"])
    http_said = event["protocolData"]["http"]
    assert (http_said["headers"].get("token"), http_said["queryString"]) == (
        (TOKEN, "") if by == "headers" else (None, f"?{query}")
    )


def curl(server: RunningServer, path: str, *headers: str) -> tuple[str, str]:
    told = server.endpoints
    asked = ["curl", "-sS", "--cacert", told["trust_bundle"], "--data", "hello", "-w", "\n%{http_code}"]
    for header in headers:
        asked += ["-H", header]
    done = subprocess.run([*asked, f"{told['aws']['endpoint_url']}{path}"], capture_output=True, text=True, check=True)
    body, _, status = done.stdout.rpartition("\n")
    return status, body


def test_https_publishes_by_headers_or_by_the_query(
    server: RunningServer, authorizer: Names, functions: FunctionServer
) -> None:
    authorizer("web", signs=True)
    named = "x-amz-customauthorizer-name: web", f"token: {TOKEN}"
    status, body = curl(server, "/topics/auth/a?qos=1", *named, f"x-amz-customauthorizer-signature: {signed()}")
    assert (status, json.loads(body)["message"]) == ("200", "OK")
    assert functions.events[0]["protocols"] == ["tls", "http"]
    query = f"x-amz-customauthorizer-name=web&token={quote(TOKEN)}&x-amz-customauthorizer-signature={quote(signed())}"
    assert curl(server, f"/topics/auth/a?qos=1&{query}")[0] == "200"
    assert curl(server, f"/topics/elsewhere?qos=1&{query}")[0] == "403"
    count = len(functions.events)
    assert curl(server, "/topics/auth/a?qos=1", *named, "x-amz-customauthorizer-signature: AAAA")[0] == "403"
    assert len(functions.events) == count


def test_one_answer_counts_for_the_requests_of_a_connection_where_that_is_asked_for(
    server: RunningServer, iot: Any, authorizer: Names, functions: FunctionServer
) -> None:
    name = authorizer("cached", signs=True, enableCachingForHttp=True)
    headers = {"x-amz-customauthorizer-name": name, "token": TOKEN, "x-amz-customauthorizer-signature": signed()}
    host = server.endpoints["aws"]["data_endpoint"]
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])

    @contextlib.contextmanager
    def a_line() -> Iterator[http.client.HTTPSConnection]:
        with contextlib.closing(http.client.HTTPSConnection(host, 8443, context=context)) as line:
            yield line

    def ask(line: http.client.HTTPSConnection, **more: str) -> int:
        line.request("POST", "/topics/auth/a?qos=1", b"x", headers | more)
        answer = line.getresponse()
        answer.read()
        return answer.status

    with a_line() as line, a_line() as another, a_line() as third:
        assert [ask(line) for _ in range(3)] == [200] * 3
        assert len(functions.events) == 1
        assert ask(line, other="1") == 200
        assert len(functions.events) == 2, "who says something else is asked about"
        assert ask(another) == 200
        assert len(functions.events) == 3, "and so is another connection"
        iot.update_authorizer(authorizerName=name, status="INACTIVE")
        assert ask(line) == 403
        iot.update_authorizer(authorizerName=name, status="ACTIVE", enableCachingForHttp=False)
        assert [ask(third) for _ in range(2)] == [200] * 2
        assert len(functions.events) == 5


def test_a_stranger_has_the_function_asked_few_times(
    server: RunningServer, authorizer: Names, functions: FunctionServer
) -> None:
    name, times = authorizer("pressed"), 40 * scaled.WORKERS
    with ThreadPoolExecutor(8) as together:  # one after the other, a slow machine asks less often than it may
        header = f"x-amz-customauthorizer-name: {name}"
        codes = [*together.map(lambda _: curl(server, "/topics/auth/a", header)[0], range(times))]
    assert {*codes} == {"403", "429"}
    assert len(functions.events) < 35 * scaled.WORKERS


@pytest.mark.parametrize("over", ["direct", "websocket"])
def test_the_sdk_comes_by_mqtt_5(server: RunningServer, authorizer: Names, over: str) -> None:
    authorizer("five")
    common = {"endpoint": server.endpoints["aws"]["data_endpoint"], "ca": server.endpoints["trust_bundle"]}
    login = {"auth_username": "me", "auth_password": "test", "auth_authorizer_name": "five"}
    given = {**common, "client_id": "auth-5", "over": over, "authorizer": login}
    with DeviceProcess(given, program=DEVICE_5) as client:
        client("start")
        assert client("connected")["ok"]["client_id"] == "auth-5"
        assert client("publish", topic="auth/a", payload="x") == {"ok": 0}
        assert client("publish", topic="elsewhere", payload="x") == {"ok": 0x87}


def test_the_files_of_functions_name_no_secret(server: RunningServer, tmp_path: Path) -> None:
    del tmp_path
    assert "whsec_" not in server.log()
