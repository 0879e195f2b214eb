"""What requests about authorizers and role aliases carry: kept and read back, heeded, or refused by name."""

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.aws.function_server import ARN, FunctionServer

Case = Callable[[Any], None]
KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
ROLE = "arn:aws:iam::000000000000:role/"
FUNCTIONS = FunctionServer()
"""Of the function `echo`; a test's server has it mapped."""
SIGNED = {"tokenKeyName": "token", "tokenSigningPublicKeys": {"one": PEM}}
TAGS = [{"Key": "site", "Value": "7"}]


def _needed(a: Any) -> dict[str, Any]:
    return {"authorizerName": a.name, "authorizerFunctionArn": f"{ARN}echo", "signingDisabled": True}


def _alias(a: Any) -> dict[str, Any]:
    return {"roleAlias": a.name, "roleArn": f"{ROLE}one"}


def _made(**given: Any) -> Case:
    """Return a case of what an authorizer was made with, and says."""

    def case(a: Any) -> None:
        asked = {**_needed(a), **SIGNED, **given}
        a.iot.create_authorizer(**asked)
        found = a.iot.describe_authorizer(authorizerName=asked["authorizerName"])["authorizerDescription"]
        assert {name: found[name] for name in given} == given

    return case


def _changed(**given: Any) -> Case:
    def case(a: Any) -> None:
        asked = _needed(a)
        a.iot.create_authorizer(**asked)
        a.iot.update_authorizer(authorizerName=asked["authorizerName"], **given)
        found = a.iot.describe_authorizer(authorizerName=asked["authorizerName"])["authorizerDescription"]
        assert {name: found[name] for name in given} == given

    return case


def _listed(a: Any) -> None:
    for status in ("ACTIVE", "INACTIVE"):
        asked = _needed(a)
        a.iot.create_authorizer(**asked, status=status)
        for wanted in ("ACTIVE", "INACTIVE"):
            found = [one["authorizerName"] for one in a.iot.list_authorizers(status=wanted)["authorizers"]]
            assert (asked["authorizerName"] in found) == (status == wanted)


def _order(operation: str, entries: str, make: Callable[[Any], str], name_of: Callable[[Any], str]) -> Case:
    def case(a: Any) -> None:
        made = {make(a), make(a)}
        up, down = (
            [name_of(one) for one in a.call(operation, ascendingOrder=flag)[entries] if name_of(one) in made]
            for flag in (True, False)
        )
        assert up == down[::-1]
        assert set(up) == made

    return case


def _authorizer(a: Any) -> str:
    return str(a.iot.create_authorizer(**_needed(a))["authorizerName"])


def _role_alias(a: Any) -> str:
    return str(a.iot.create_role_alias(**_alias(a))["roleAlias"])


def _said(**context: Any) -> Case:
    """Return a case of what the function is told of a trial."""

    def case(a: Any) -> None:
        a.iot.test_invoke_authorizer(authorizerName=_authorizer(a), **context)
        ((kind, given),) = context.items()
        found: Mapping[str, Any] = FUNCTIONS.events[-1]["protocolData"][kind.removesuffix("Context")]
        packed = {
            name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in given.items()
        }
        assert found.items() >= packed.items()

    return case


def _token(a: Any) -> None:
    name = a.name
    a.iot.create_authorizer(authorizerName=name, authorizerFunctionArn=f"{ARN}echo", **SIGNED)
    signature = base64.b64encode(KEY.sign(b"t", padding.PKCS1v15(), hashes.SHA256())).decode()
    assert a.iot.test_invoke_authorizer(authorizerName=name, token="t", tokenSignature=signature)["isAuthenticated"]
    assert FUNCTIONS.events[-1]["token"] == "t"
    refused = a.refuses("TestInvokeAuthorizer", authorizerName=name, token="u", tokenSignature=signature)
    assert "rejected the token" in refused


def _duration(a: Any) -> None:
    name = a.name
    a.iot.create_role_alias(roleAlias=name, roleArn=f"{ROLE}one", credentialDurationSeconds=900)
    found = a.iot.describe_role_alias(roleAlias=name)["roleAliasDescription"]
    assert found["credentialDurationSeconds"] == 900
    a.iot.update_role_alias(roleAlias=name, roleArn=f"{ROLE}two", credentialDurationSeconds=1800)
    found = a.iot.describe_role_alias(roleAlias=name)["roleAliasDescription"]
    assert (found["credentialDurationSeconds"], found["roleArn"]) == (1800, f"{ROLE}two")


def _authorizer_tagged(a: Any) -> None:
    arn = a.iot.create_authorizer(**_needed(a), tags=TAGS)["authorizerArn"]
    assert a.iot.list_tags_for_resource(resourceArn=arn)["tags"] == TAGS


def _alias_tagged(a: Any) -> None:
    arn = a.iot.create_role_alias(**_alias(a), tags=TAGS)["roleAliasArn"]
    assert a.iot.list_tags_for_resource(resourceArn=arn)["tags"] == TAGS


KEPT: dict[str, dict[str, Case]] = {
    "CreateAuthorizer": {
        "tags": _authorizer_tagged,
        "tokenKeyName": _made(tokenKeyName="other"),
        "tokenSigningPublicKeys": _made(tokenSigningPublicKeys={"two": PEM}),
        "status": _made(status="INACTIVE"),
        "signingDisabled": _made(signingDisabled=False),
        "enableCachingForHttp": _made(enableCachingForHttp=True),
    },
    "UpdateAuthorizer": {
        "authorizerFunctionArn": _changed(authorizerFunctionArn=f"{ARN}other"),
        "tokenKeyName": _changed(tokenKeyName="other"),
        "tokenSigningPublicKeys": _changed(tokenSigningPublicKeys={"two": PEM}),
        "status": _changed(status="INACTIVE"),
        "enableCachingForHttp": _changed(enableCachingForHttp=True),
    },
    "ListAuthorizers": {
        "status": _listed,
        "ascendingOrder": _order("ListAuthorizers", "authorizers", _authorizer, lambda one: str(one["authorizerName"])),
    },
    "TestInvokeAuthorizer": {
        "token": _token,
        "tokenSignature": _token,
        "httpContext.headers": _said(httpContext={"headers": {"a": "b"}}),
        "httpContext.queryString": _said(httpContext={"queryString": "?a=b"}),
        "mqttContext.username": _said(mqttContext={"username": "me"}),
        "mqttContext.password": _said(mqttContext={"password": b"\xff\x00"}),
        "mqttContext.clientId": _said(mqttContext={"clientId": "c"}),
        "tlsContext.serverName": _said(tlsContext={"serverName": "iot.example"}),
    },
    "CreateRoleAlias": {"tags": _alias_tagged, "credentialDurationSeconds": _duration},
    "UpdateRoleAlias": {"roleArn": _duration, "credentialDurationSeconds": _duration},
    "ListRoleAliases": {"ascendingOrder": _order("ListRoleAliases", "roleAliases", _role_alias, str)},
}


@contextmanager
def functions() -> Iterator[FunctionServer]:
    """Run the function, which lets everybody in."""
    yes = {"isAuthenticated": True, "principalId": "p", "policyDocuments": []}
    FUNCTIONS.answers["echo"] = lambda _event: yes
    with FUNCTIONS:
        yield FUNCTIONS
