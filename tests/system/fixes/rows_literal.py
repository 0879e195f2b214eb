"""Programs that ask for what is not served or is there already; the fix is a word to write instead."""

import base64
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from fixes.applied import by_itself, into, waited
from fixes.desk import Desk, RefusedError, Row, a_connect, a_subscribe, steps
from fixes.rows_aws import arn_of, call, registered
from fixes.rows_aws_devices import allowed
from fixes.rows_azure import connection, enrolled, enrollment, register, rest
from fixes.scene import Scene

from support.aws.device import ARN, document, statement
from support.azure.sas_tokens import make_sas


def having(**variables: str) -> Callable[[Desk], None]:
    return lambda desk: desk.scene.environment.update(variables)


def known(desk: Desk, name: str) -> str:
    return desk.scene.environment[name]


def subscribing(filters: Callable[[Desk], list[str]]) -> Callable[[Desk], None]:
    return lambda desk: desk.mqtt(a_connect("fix-client"), a_subscribe(*filters(desk)))


def may_subscribe(name: str, topic: str) -> Callable[[Desk], None]:
    """Make a device that may subscribe to this alone."""
    only = document(statement("iot:Connect"), statement("iot:Subscribe", f"{ARN}topicfilter/{topic}"))
    return steps(
        registered(name),
        call("create_policy", policyName=name, policyDocument=only),
        call("attach_policy", policyName=name, target=arn_of),
    )


def in_bulk(desk: Desk) -> None:
    body = {"mode": known(desk, "MODE"), "enrollments": [enrollment()(desk) | {"registrationId": "fix-bulk"}]}
    if b'"isSuccessful":true' not in rest("PROVISIONING", "POST", "/enrollments", body)(desk):  # type: ignore[operator]  # it answers bytes
        raise RefusedError


def crowded(desk: Desk) -> None:
    """Register many times at the same moment."""
    times = int(known(desk, "TIMES"))
    together = Barrier(times)

    def one() -> None:
        together.wait(30)
        register("fix-crowd")(desk)

    with ThreadPoolExecutor(times) as pool:
        for asked in [pool.submit(one) for _ in range(times)]:
            asked.result()


def again(desk: Desk) -> None:
    """Register over and over, without a pause."""
    for _ in range(int(known(desk, "TIMES"))):
        register("fix-again")(desk)


KEY = b"k" * 32
KEYS = dict.fromkeys(("primaryKey", "secondaryKey"), base64.b64encode(KEY).decode())
OWN = "/devices/fix-own/modules/camera"


def own_token(desk: Desk) -> str:
    """Return the device's own token, as its programs sign it."""
    return make_sas(f"{connection(desk, 'IOTHUB')['HostName']}/devices/fix-own", KEY, int(time.time()) + 600)


def changes_its_module(desk: Desk) -> None:
    """Change a module over and over, without a pause."""
    for _ in range(int(known(desk, "TIMES"))):
        rest("IOTHUB", "PUT", OWN, {}, token=own_token, If_Match="*")(desk)


def alone(scene: Scene) -> None:
    scene.environment["TIMES"] = "1"


def spaced(scene: Scene, fix: str) -> None:
    """Wait as the fix says, and register once."""
    waited(scene, fix)
    alone(scene)


LITERALS: Mapping[str, Row] = {
    "awsiot.too_many_subscriptions": Row(
        subscribing(lambda desk: [f"fix/{number}" for number in range(int(known(desk, "COUNT")))]),
        steps(allowed("fix-filters"), having(COUNT="9")),
        apply=into("COUNT"),
    ),
    "dps.enrollment_exists": Row(in_bulk, steps(enrolled("fix-bulk"), having(MODE="create")), apply=into("MODE")),
    "iothub.modules_throttled": Row(
        changes_its_module,
        steps(
            rest("IOTHUB", "PUT", "/devices/fix-own", {"authentication": {"symmetricKey": KEYS}}),
            rest("IOTHUB", "PUT", OWN, {}),
            having(TIMES="130"),
        ),
        apply=spaced,
    ),
    "dps.throttled": Row(again, steps(enrolled("fix-again"), having(TIMES="60")), apply=spaced),
    "dps.registration_busy": Row(crowded, steps(enrolled("fix-crowd"), having(TIMES="28")), apply=by_itself(alone)),
}
