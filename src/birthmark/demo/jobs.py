"""Rollout that aborts itself: of twenty pumps that get a new interval, one fails, and the rest stays unchanged."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from birthmark.demo.harness import DemoProof, Job, NotProvenError, Stage, app_path, together
from birthmark.pki.certificates import parse_bundle

TITLE = "A rollout to twenty pumps that stops automatically, with webhook notifications"
ABOUT = (
    "One pump fails, and the rollout stops before it reaches the others. The operator finds the cause, fixes it and "
    "continues."
)
_COUNT = 20
_LOOKS, _PAUSE_S = 180, 0.5
_ROLE = "arn:aws:iam::000000000000:role/provisioning"
_NAME, _ID = "AWS::IoT::Certificate::CommonName", "AWS::IoT::Certificate::Id"
_OWN = "arn:aws:iot:*:*:{}/$aws/things/${{iot:Connection.Thing.ThingName}}/jobs/*"
_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "iot:Connect",
            "Resource": "arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}",
        },
        {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": _OWN.format("topic")},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": _OWN.format("topicfilter")},
    ],
}
_TEMPLATE = {
    "Parameters": {_NAME: {"Type": "String"}, _ID: {"Type": "String"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {"ThingName": {"Ref": _NAME}, "ThingGroups": ["pumps"]},
        },
        "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": _ID}}},
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": _POLICY}},
    },
}
_STOPS = {
    "jobExecutionsRolloutConfig": {"maximumPerMinute": 120},
    "abortConfig": {
        "criteriaList": [
            {"failureType": "ALL", "action": "CANCEL", "thresholdPercentage": 5, "minNumberOfExecutedThings": 5}
        ]
    },
}


def play(stage: Stage) -> None:
    """Run the scenario."""
    _prepare(stage)

    stage.say(f"{_COUNT} pumps are switched on, each with its own certificate. They become things automatically.")
    thumbprints = _pumps(stage)
    program = ("python", str(app_path("pumps.py")), "run", str(_COUNT))
    own = {"AWS_IOT_ENDPOINT": stage.endpoints["aws"]["data_endpoint"], "CA_FILE": stage.endpoints["trust_bundle"]}
    pumps = stage.start(*program, log="pumps.log", environment=own, is_told=True)
    stage.expect((pumps.stdout or iter(())).__next__().strip(), f"{_COUNT} pumps are connected", "the pumps' program")

    stage.say(
        "A rule action sends the status of each execution to a webhook. The webhook must confirm the destination first."
    )
    _tell_a_webhook(stage)

    stage.say("A job sets the measurement interval to 5 s: two pumps per second, until more than 5 % fail.")
    stage.path("interval-5.json").write_text(json.dumps({"operation": "interval", "seconds": 5}))
    stage.path("stops.json").write_text(json.dumps(_STOPS, indent=2))
    job = ("aws", "job", "create", "interval-5", "interval-5.json", "--thing-group", "pumps")
    stage.birthmark(*job, "--settings", "stops.json")
    over = _wait_for_job(stage, "interval-5", lambda found: found["status"] == "CANCELED")
    stage.note(f"{over['status']}: {over['comment']}")
    stage.note(", ".join(f"{count} {status}" for status, count in over["things"].items()))
    stage.expect(over["things"]["FAILED"], 1, "pumps that failed")
    stage.expect(sum(over["things"].values()) < _COUNT, True, "pumps that it did not reach")

    stage.say("Find the reason.")
    (why,) = stage.rows("aws", "job", "why", "interval-5")
    stage.note(f"{why['one']}: {why['details']['reason']}")

    stage.say("The operator fixes it: a new job sets 10 s, which all pumps support, on every pump.")
    stage.path("interval-10.json").write_text(json.dumps({"operation": "interval", "seconds": 10}))
    again = ("aws", "job", "create", "interval-10", "interval-10.json", "--thing-group", "pumps", "--rate", "600")
    stage.birthmark(*again)
    done = _wait_for_job(stage, "interval-10", lambda found: found["status"] == "COMPLETED")
    stage.expect(done["things"].get("SUCCEEDED"), _COUNT, "pumps that succeeded")

    stage.say("The webhook received every execution of both jobs.")
    reached = over["things"]
    wanted = reached.get("SUCCEEDED", 0) + reached["FAILED"] + reached.get("CANCELED", 0) + _COUNT
    told = _wait_for_webhook_messages(stage, wanted)
    stage.expect(len(told), wanted, "executions received by the webhook")
    failed = [one for one in told if one["status"] == "FAILED"]
    stage.expect(", ".join(one["thing"] for one in failed), "pump-07", "of which failed")
    (rule,) = stage.rows("aws", "rule", "ls")
    stage.note(f"rule {rule['rule']}: {rule['matched']} selected, {rule['sent']} sent, {rule['dead']} dead-lettered")
    for name, thumbprint in thumbprints.items():
        jobs = sorted(one["job"] for one in told if one["thing"] == name)
        stage.prove(DemoProof(name, "a file of the pump's", thumbprint, f"thing {name}", ", ".join(jobs)))


def _prepare(stage: Stage) -> None:
    stage.say("Create a certificate authority, and start the local cloud. It may call a webhook on this machine.")
    stage.birthmark("ca", "init", "--name", "Example Pumps", "--dir", "ca")
    stage.serve('[outbound]\nallow = ["127.0.0.1/32"]\n')
    stage.path("template.json").write_text(json.dumps(_TEMPLATE, indent=2))
    _aws(stage, "create-thing-group", "--thing-group-name", "pumps")
    template = ("--template-name", "pumps", "--template-body", "file://template.json", "--type", "JITP")
    _aws(stage, "create-provisioning-template", *template, "--enabled", "--provisioning-role-arn", _ROLE)
    code = _aws(stage, "get-registration-code")["registrationCode"]
    proof = ("--with", "issuing", "--dir", "ca", "--out", "proof.pem")
    stage.birthmark("ca", "verify-possession", code, *proof)
    ca = ("--ca-certificate", "file://ca/issuing.pem", "--verification-certificate", "file://proof.pem")
    may = ("--set-as-active", "--allow-auto-registration", "--registration-config", "templateName=pumps")
    _aws(stage, "register-ca-certificate", *ca, *may)


def _pumps(stage: Stage) -> Mapping[str, str]:
    """Create keys and sign their CSRs; return the thumbprints by name."""
    stage.run("python", str(app_path("pumps.py")), "keys", str(_COUNT))
    names = [f"pump-{number:02}" for number in range(1, _COUNT + 1)]
    sign = ("birthmark", "ca", "sign", "--dir", "ca")
    jobs: list[Job] = [((*sign, f"{name}.csr", "--out", f"{name}.pem"), {}) for name in names]
    together(stage, jobs, at_once=1)  # one CA: sequential
    return {name: parse_bundle(stage.path(f"{name}.pem").read_bytes())[0].thumbprint.hex() for name in names}


def _tell_a_webhook(stage: Stage) -> None:
    trust = {"SSL_CERT_FILE": stage.endpoints["trust_bundle"]}
    receiver = stage.start(
        "python", str(app_path("webhook_receiver.py")), "told.jsonl", log="webhook.log", environment=trust
    )
    url = f"http://127.0.0.1:{next(iter(receiver.stdout or ()), '').strip()}/jobs"
    _aws(stage, "update-event-configurations", "--event-configurations", '{"JOB_EXECUTION":{"Enabled":true}}')
    where = f"httpUrlConfiguration={{confirmationUrl={url}}}"
    _aws(stage, "create-topic-rule-destination", "--destination-configuration", where)
    _wait(lambda: _enabled(stage), "the webhook agrees")
    rule = {
        "sql": "SELECT jobId AS job, regexp_substr(thingArn, '[^/]+$') AS thing, status"
        " FROM '$aws/events/jobExecution/#'",
        "awsIotSqlVersion": "2016-03-23",
        "actions": [{"http": {"url": url}}],
    }
    stage.path("rule.json").write_text(json.dumps(rule, indent=2))
    stage.birthmark("aws", "rule", "create", "tell_webhook", "rule.json")


def _enabled(stage: Stage) -> bool:
    done = stage.call("aws", "iot", "list-topic-rule-destinations")
    return all(one["status"] == "ENABLED" for one in json.loads(done.stdout)["destinationSummaries"])


def _wait_for_job(stage: Stage, job: str, is_so: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    """Poll a job until the condition holds and no execution is pending; return it."""
    stage.console.print(f"   [dim]$ birthmark aws job show {job}", soft_wrap=True)
    found: dict[str, Any] = {}

    def look() -> bool:
        nonlocal found
        found = json.loads(stage.call("birthmark", "aws", "job", "show", job, "--json").stdout)
        pending = {"QUEUED", "IN_PROGRESS"} & set(found["things"])
        return is_so(found) and not pending

    _wait(look, f"{job} to finish")
    return found


def _wait_for_webhook_messages(stage: Stage, wanted: int) -> list[dict[str, Any]]:
    """Wait for `wanted` messages at the webhook and return them without duplicates."""
    file = stage.path("told.jsonl")

    def rows() -> list[str]:
        return sorted(set(file.read_text().splitlines())) if file.exists() else []

    _wait(lambda: len(rows()) >= wanted, "the webhook to receive the messages")
    return [json.loads(line) for line in rows()]


def _wait(is_so: Callable[[], bool], description: str) -> None:
    for _ in range(_LOOKS):
        if is_so():
            return
        time.sleep(_PAUSE_S)
    raise NotProvenError(expected=description, found=f"it did not in {_LOOKS} looks")


def _aws(stage: Stage, *arguments: str) -> dict[str, Any]:
    done = stage.run("aws", "iot", *arguments)
    answer: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
    return answer
