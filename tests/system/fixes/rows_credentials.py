"""Custom authorizers, role aliases, and access keys that may not do everything."""

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from fixes.desk import Desk, Row, a_connect, steps
from fixes.rows_aws import arn_of, call, registered

from support.aws.device import document, statement
from support.aws.function_server import ARN, SECRET, FunctionServer
from support.aws.kept_credentials import SIGNED

_ROLE = "arn:aws:iam::000000000000:role/fix"
_ASKED = {"mqttContext": {"username": "me"}}


@contextmanager
def functions(directory: Path) -> Iterator[str]:
    """Run the functions of these rows, and yield what a server's configuration says of them and of a role."""
    yes = {"isAuthenticated": True, "principalId": "p"}
    with FunctionServer() as server:
        server.answers = {
            "no": lambda _event: {"isAuthenticated": False},
            "odd": lambda _event: {"principalId": "p"},
            "forbidding": lambda _event: {"allowProvisioning": False},
            "narrow": lambda _event: {**yes, "policyDocuments": []},
        }
        (directory / "role.json").write_text(document(statement("iot:ListThings")))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (directory / "away.secret").write_text(SECRET)
        yield (
            server.config(directory, *server.answers)
            + f'[functions."{ARN}away"]\nurl = "http://127.0.0.1:{port}"\nsecret_file = "{directory / "away.secret"}"\n'
            + f'[roles."{_ROLE}"]\npolicy_file = "{directory / "role.json"}"\n'
        )


def authorizer(name: str, function: str = "unmapped", more: Mapping[str, Any] | None = None) -> Callable[[Desk], Any]:
    given = {"authorizerFunctionArn": f"{ARN}{function}", **(more or {"signingDisabled": True})}
    return call("create_authorizer", authorizerName=name, **given)


def asking(name: str) -> Callable[[Desk], None]:
    """Connect without a certificate, by an authorizer."""
    return lambda desk: desk.mqtt(a_connect("fix-asking", f"me?x-amz-customauthorizer-name={name}"))


def pressing(desk: Desk) -> None:
    for _ in range(30):
        try:
            asking("fix-pressed")(desk)
        except Exception:  # noqa: BLE001 - all but the last are as they should be
            continue
    asking("fix-pressed")(desk)


def client(desk: Desk, key_id: str, secret: str, token: str | None = None) -> Any:
    known = desk.scene.environment
    return boto3.client(
        "iot",
        endpoint_url=known["AWS_ENDPOINT_URL_IOT"],
        region_name=known["AWS_REGION"],
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        aws_session_token=token,
        verify=known["AWS_CA_BUNDLE"],
        config=Config(retries={"total_max_attempts": 1}),
    )


def limited(desk: Desk) -> None:
    desk.path("policy.json").write_text(document(statement("iot:ListThings")))
    desk.type("birthmark aws key create fix-limited --policy policy.json --json > limited.json")


def beyond(desk: Desk) -> Any:
    made = json.loads(desk.text("limited.json"))
    return client(desk, made["access_key_id"], made["secret_access_key"]).list_policies()


def asking_for_a_key(alias: str) -> Callable[[Desk], dict[str, str]]:
    def ask(desk: Desk) -> dict[str, str]:
        host = desk.server.endpoints["aws"]["data_endpoint"]
        request = f"GET /role-aliases/{alias}/credentials HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        answer = desk.raw(request.encode())
        found: dict[str, str] = json.loads(answer[answer.index(b"{") : answer.rindex(b"}") + 1])["credentials"]
        return found

    return ask


def with_role(name: str, role: str) -> Callable[[Desk], None]:
    """Make a device that may have a key by an alias of this role."""
    return steps(
        registered(name),
        call("create_role_alias", roleAlias=name, roleArn=role),
        call("create_policy", policyName=name, policyDocument=document(statement("iot:AssumeRoleWithCertificate"))),
        call("attach_policy", policyName=name, target=arn_of),
    )


def ended(desk: Desk) -> Any:
    made = json.loads(desk.text("key.json"))
    return client(desk, made["accessKeyId"], made["secretAccessKey"], made["sessionToken"]).list_things()


def _kept(desk: Desk) -> None:
    desk.path("key.json").write_text(json.dumps(asking_for_a_key("fix-ended")(desk)))


def of_function(name: str, function: str) -> Row:
    """Return a row of an authorizer whose function answers so."""
    return Row(asking(name), authorizer(name, function), is_instead=True)


CREDENTIALS: Mapping[str, Row] = {
    "awsiot.authorizer_answer_invalid": of_function("fix-odd", "odd"),
    "awsiot.authorizer_denied": of_function("fix-narrow", "narrow"),
    "awsiot.authorizer_refused": of_function("fix-no", "no"),
    "awsiot.function_failed": of_function("fix-away", "away"),
    "awsiot.function_not_mapped": Row(
        call("test_invoke_authorizer", authorizerName="fix-unmapped", **_ASKED),
        authorizer("fix-unmapped"),
        is_instead=True,
    ),
    "awsiot.authorizer_exists": Row(authorizer("fix-exists"), authorizer("fix-exists"), is_instead=True),
    "awsiot.authorizer_in_use": Row(call("delete_authorizer", authorizerName="fix-in-use"), authorizer("fix-in-use")),
    "awsiot.authorizer_inactive": Row(
        asking("fix-inactive"),
        authorizer("fix-inactive", more={"signingDisabled": True, "status": "INACTIVE"}),
        is_instead=True,
    ),
    "awsiot.authorizer_throttled": Row(pressing, authorizer("fix-pressed", "no"), is_instead=True),
    "awsiot.no_authorizer": Row(
        lambda desk: desk.mqtt(a_connect("fix-authorizer", "somebody")),
        lambda desk: desk.type("true"),
        is_instead=True,
    ),
    "awsiot.signing_key_invalid": Row(
        authorizer("fix-key", more={**SIGNED, "tokenSigningPublicKeys": {"one": "none"}}),
        is_instead=True,
    ),
    "awsiot.token_refused": Row(asking("fix-signed"), authorizer("fix-signed", more=SIGNED), is_instead=True),
    "awsiot.unknown_authorizer": Row(call("describe_authorizer", authorizerName="fix-nobody"), is_instead=True),
    "awsiot.key_denied": Row(beyond, limited, is_instead=True),
    "awsiot.role_alias_exists": Row(
        call("create_role_alias", roleAlias="fix-exists", roleArn=_ROLE),
        call("create_role_alias", roleAlias="fix-exists", roleArn=_ROLE),
        is_instead=True,
    ),
    "awsiot.role_not_mapped": Row(
        asking_for_a_key("fix-unmapped"), with_role("fix-unmapped", f"{_ROLE}-nobody"), is_instead=True
    ),
    "awsiot.session_ended": Row(
        ended,
        steps(with_role("fix-ended", _ROLE), _kept, call("delete_role_alias", roleAlias="fix-ended")),
        is_instead=True,
    ),
    "awsiot.session_token_invalid": Row(
        lambda desk: client(desk, "ASIAFIXFIXFIXFIX", "secret").list_things(),
        lambda desk: desk.type("true"),
        is_instead=True,
    ),
    "awsiot.unknown_role_alias": Row(call("describe_role_alias", roleAlias="fix-nobody"), is_instead=True),
}
