"""Custom allocation: the webhook's choice of a registering device's hub, once per version of an enrollment."""

from dataclasses import dataclass, field

from birthmark.dps.enrollment_document import EnrollmentDocument, host_of
from birthmark.dps.model import Claim, Enrollment, Instance, Registration
from birthmark.dps.ports import HubRegistry
from birthmark.dps.rules.custom_allocation import (
    AllocationFailedError,
    Choice,
    is_asked,
    offered,
    parse_choice,
    payload_text,
    request_json,
)
from birthmark.dps.rules.registration import check_pinned, no_hub
from birthmark.dps.service.enrollments import Enrollments
from birthmark.errors import ChangedMeanwhileError, InvalidRequestError


@dataclass(slots=True)
class AllocationDecision:
    """The webhook's choice for one registration, made once per version of the enrollment."""

    enrollments: Enrollments
    hubs: HubRegistry
    claim: Claim
    _choice: Choice | None = field(default=None, init=False)
    _made_for: tuple[object, ...] | None = field(default=None, init=False)

    async def call_webhook_if_due(
        self, instance: Instance, enrollment: Enrollment, present: Registration | None
    ) -> ChangedMeanwhileError | None:
        """Call the webhook if required, and return an error that restarts the registration with current data.

        Raise `AllocationFailedError`, `NoHubError`, `QuestionsWaitError`, `RegistrationPinnedError`.
        """
        is_due = self._is_asked(enrollment, present) and self._made_for != _what(enrollment.etag, present)
        if not is_due:
            return None
        claim = self.claim
        check_pinned(enrollment, present, claim.spelling, None if claim.leaf is None else claim.leaf.thumbprint)
        document = await self.enrollments.document(instance.id_scope, enrollment.id, is_group=enrollment.is_group)
        given = document.custom_allocation_definition
        if given is not None:  # otherwise just removed
            self._choice = await self._chosen(instance, enrollment, document, given.webhook_url, present)
            self._made_for = _what(document.etag or "", present)
        return ChangedMeanwhileError(what="The enrollment")

    async def _chosen(
        self,
        instance: Instance,
        enrollment: Enrollment,
        document: EnrollmentDocument,
        url: str,
        present: Registration | None,
    ) -> Choice:
        hubs = offered(enrollment, instance.hubs)
        if not hubs:
            raise no_hub(enrollment)
        facts = {"host": host_of(url), "enrollment": enrollment.id, "registration_id": self.claim.registration_id}
        request = request_json(document, self.claim, present, hubs)
        answer = await self.enrollments.webhooks.ask(instance.id_scope, url, request, facts)
        choice = parse_choice(answer, hubs, **facts)
        if choice.twin is not None:
            try:
                self.hubs.check_twin(enrollment.id, choice.twin)
            except InvalidRequestError as error:
                reason = f"its initialTwin cannot be used, {error}".removesuffix(".")
                raise AllocationFailedError(reason=reason, **facts) from error
        return choice

    def apply_choice(self, enrollment: Enrollment, present: Registration | None) -> tuple[Enrollment, str | None]:
        """Return the enrollment with the choice applied, and the webhook's payload for the device, as JSON."""
        if self._choice is not None and self._is_asked(enrollment, present):
            return self._choice.apply_to(enrollment), payload_text(self._choice.payload)
        return enrollment, None if present is None or enrollment.webhook is None else present.payload

    def _is_asked(self, enrollment: Enrollment, present: Registration | None) -> bool:
        return is_asked(enrollment, self.claim.registration_id.lower(), present)


def _what(etag: str, present: Registration | None) -> tuple[object, ...]:
    return etag, None if present is None else (present.hub, present.device_id)
