"""Requests by publish to reserved topics: a table of services and their responses.

The topic contains service, thing, and verb; publish permission on the topic permits the request. Responses are ordinary
publishes, so subscriptions and policies control their delivery.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from birthmark.awsiot.error_mapping import job_rejection, provisioning_rejection, shadow_rejection
from birthmark.awsiot.model import parse_job_id, parse_shadow_name, parse_thing_name
from birthmark.awsiot.rules.job_executions import ExecutionStateError, ExecutionVersionError
from birthmark.awsiot.rules.mqtt_protocol_limits import ReportDroppedError
from birthmark.awsiot.rules.reserved_topics import BASIC_INGEST, ReservedService, request_of
from birthmark.awsiot.rules.shadows import ShadowMissingError
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.fleet_provisioning import MqttRequiredError, ProvisioningCaller
from birthmark.awsiot.service.job_executions import NEXT
from birthmark.awsiot.wire import jobs as wire_jobs
from birthmark.awsiot.wire import key_pair_json
from birthmark.awsiot.wire import provisioning as wire_provisioning
from birthmark.awsiot.wire import shadows as wire
from birthmark.errors import BirthmarkError

Note = Callable[[BirthmarkError], object]
"""Records a refusal that the service reports to its client itself."""


@dataclass(frozen=True, slots=True)
class ReservedTopicRequest:
    """One request: topic, topic parameters, and payload."""

    topic: str
    names: Mapping[str, str | None]
    payload: bytes
    note: Note
    principal: str
    by: "ReservedTopicClient | None" = None
    """The requesting connection; None over HTTPS."""


class ReservedTopicClient(Protocol):
    """A requesting connection that receives private responses."""

    @property
    def asker(self) -> ProvisioningCaller:
        """Certificate or key and client ID of the request."""
        ...

    def answer(self, topic: str, body: bytes) -> None:
        """Send a response to this connection only."""
        ...


Handler = Callable[[ReservedTopicRequest], Awaitable[None]]


class ReservedTopics:
    """The services behind reserved topics."""

    def __init__(self, aws: AwsIot) -> None:
        self._shadows = aws.shadows
        self._claims = aws.claims
        self._jobs = aws.jobs.executions
        self._rules = aws.rules
        self._handlers: Mapping[ReservedService, Handler] = {
            ReservedService.SHADOW: self._shadow,
            ReservedService.JOBS: self._job,
            ReservedService.REPORTS: self._drop_report,
            ReservedService.CERTIFICATES: self._provisioning,
            ReservedService.PROVISION: self._provisioning,
        }

    async def ask(
        self, topic: str, payload: bytes, note: Note, principal: str, by: ReservedTopicClient | None = None
    ) -> None:
        """Execute the service of a topic; on return, the response is sent."""
        if topic.startswith(BASIC_INGEST):
            client_id, principal = ("", "") if by is None else (by.asker.client_id, principal)
            await self._rules.ingest(topic, payload, 1, client_id, principal)
        elif (found := request_of(topic)) is not None:
            service, names = found
            await self._handlers[service](ReservedTopicRequest(topic, names, payload, note, principal, by))

    async def _drop_report(self, request: ReservedTopicRequest) -> None:
        request.note(ReportDroppedError(thing=request.names["thing"] or "", topic=request.topic))

    async def _provisioning(self, request: ReservedTopicRequest) -> None:
        """Issue a certificate or register a thing; send the response only to the requesting connection."""
        form = request.names["form"] or "json"
        if request.by is None:
            raise MqttRequiredError(topic=request.topic)
        try:
            answer = await self._provisioned(request, request.by.asker, form)
        except BirthmarkError as error:
            error.add_facts(thing=request.by.asker.client_id)
            body = wire_provisioning.answer_body(provisioning_rejection(error), form)
            request.by.answer(f"{request.topic}/rejected", body)
            request.note(error)  # no listener is left: keep the refusal as the latest
        else:
            request.by.answer(f"{request.topic}/accepted", wire_provisioning.answer_body(answer, form))

    async def _provisioned(
        self, asked: ReservedTopicRequest, asker: ProvisioningCaller, form: str
    ) -> Mapping[str, Any]:
        if asked.names["verb"] == "provision":
            request = wire_provisioning.parse_provision(asked.payload, form)
            made = await self._claims.provision(
                asker, asked.names["template"] or "", request.certificate_ownership_token, request.parameters
            )
            answer: dict[str, Any] = {"deviceConfiguration": dict(made.device_configuration)}
            return answer if made.thing is None else answer | {"thingName": made.thing}
        if asked.names["verb"] == "create":
            given = await self._claims.create_keys(asker)
        else:
            csr = wire_provisioning.parse_csr_request(asked.payload, form)
            given = await self._claims.create_from_csr(asker, csr)
        answer = {
            "certificateId": given.certificate.id,
            "certificatePem": given.certificate.certificate.pem(),
            "certificateOwnershipToken": given.token,
        }
        if given.private_key is not None:
            answer["privateKey"] = key_pair_json(given.private_key)["PrivateKey"]
        return answer

    async def _shadow(self, asked: ReservedTopicRequest) -> None:
        names, token = asked.names, None
        try:
            thing = parse_thing_name(names["thing"] or "")
            name = "" if names["name"] is None else parse_shadow_name(thing, names["name"])
            request = wire.parse_request(asked.payload)
            token = request.token
            match names["verb"]:
                case "update":
                    await self._shadows.update(thing, name, request, principal=asked.principal)
                case "delete":
                    await self._shadows.delete(thing, name, request)
                case _:
                    shadow = await self._shadows.get(thing, name)
                    body = wire.shadow_json(shadow, self._shadows.now(), token)
                    await self._shadows.tell(f"{asked.topic}/accepted", body)
        except BirthmarkError as error:
            error.add_facts(thing=names["thing"])
            if names["verb"] != "get" or not isinstance(error, ShadowMissingError):  # a read tests existence
                asked.note(error)
            body = wire.rejected_json(*shadow_rejection(error), self._shadows.now(), token)
            await self._shadows.tell(f"{asked.topic}/rejected", body)

    async def _job(self, request: ReservedTopicRequest) -> None:
        token = wire_jobs.token_of(request.payload)
        try:
            told = await self._job_answer(request)
        except BirthmarkError as error:
            error.add_facts(thing=request.names["thing"])
            request.note(error)
            said = {**job_rejection(error), **await self._current_state(request, error)}
            await self._jobs.tell(f"{request.topic}/rejected", self._jobs.now_body(said, token))
            return
        await self._jobs.tell(f"{request.topic}/accepted", self._jobs.now_body(told, token))
        if request.names["verb"] != "get":
            await self._jobs.notify([request.names["thing"] or ""])

    async def _job_answer(self, asked: ReservedTopicRequest) -> Mapping[str, Any]:
        """Execute a device's job request and return the response."""
        verb, job_id = asked.names["verb"], asked.names["job"]
        thing = parse_thing_name(asked.names["thing"] or "")
        request = wire_jobs.parse_request(asked.payload, is_update=verb == "update")
        now = self._jobs.clock.now
        if verb == "start-next":
            found = await self._jobs.start_next(thing, request.status_details, request.step_timeout_in_minutes)
            if found is None:
                return {}
            document = await self._jobs.document(found[1], thing)
            return {"execution": wire_jobs.execution(found[0], document, now())}
        if job_id is None:
            return wire_jobs.lists(await self._jobs.pending(thing), ("inProgressJobs", "queuedJobs"))
        if verb == "get":
            wanted = job_id if job_id == NEXT else parse_job_id(job_id)
            known = await self._jobs.describe_execution(thing, wanted, request.execution_number)
            if known is None:
                return {}
            is_whole = request.include_job_document is not False
            whole = None
            if is_whole:
                whole = await self._jobs.document(await self._jobs.job(known.job_id), thing)
            return {"execution": wire_jobs.execution(known, whole, now())}
        known, job = await self._jobs.update(thing, parse_job_id(job_id), request)
        told: dict[str, Any] = {}
        if request.include_job_execution_state:
            told["executionState"] = wire_jobs.state(known)
        if request.include_job_document:
            told["jobDocument"] = wire_jobs.raw(await self._jobs.document(job, thing))
        return told

    async def _current_state(self, request: ReservedTopicRequest, error: BirthmarkError) -> Mapping[str, Any]:
        """Return the execution's current state after a state or version conflict."""
        if not isinstance(error, ExecutionStateError | ExecutionVersionError):
            return {}
        known = await self._jobs.get(error.job, error.thing)
        return {"executionState": wire_jobs.state(known)}
