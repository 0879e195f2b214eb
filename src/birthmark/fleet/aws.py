"""Enrollment at AWS IoT Core by boto3: a thing, its certificate registered without a CA, policy and thing attached."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from birthmark.clock import Clock, SystemClock
from birthmark.fleet.errors import (
    DifferentRecordError,
    NoSuchRecordError,
    NotTakenBackError,
    ReferenceMissingError,
    SdkMissingError,
    TargetUnreachableError,
    refusal,
    way_of,
)
from birthmark.fleet.profiles import AwsProfile
from birthmark.fleet.target import Done, EnrollmentRequest, Note, Record, WayBack, unnoted

_SURVEY_AT_LEAST = 1000
_HOW = (
    ", such as a policy that lets a client connect under its thing's name: `aws iot create-policy --policy-name {} "
    '--policy-document \'{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:Connect",'
    '"Resource":"arn:aws:iot:*:*:client/${{iot:Connection.Thing.ThingName}}"}}]}}\'`'
)
_REFUSED_KEYS = {"UnrecognizedClientException", "InvalidSignatureException", "MissingAuthenticationTokenException"}


_CLOCK = SystemClock()
_COARSE = timedelta(seconds=2)  # an HTTP date is cut to the second, and so may be a certificate's


class _Way(msgspec.Struct, frozen=True):
    """What the journal keeps of a device."""

    certificate: str
    is_new_thing: bool
    is_attached: bool
    is_registered: bool
    policy: str | None = None
    since: datetime | None = None
    """When the service's clock had it, just before; an older journal does not say."""


class AwsTarget:
    """One account in one region."""

    def __init__(self, profile: AwsProfile, clock: Clock = _CLOCK) -> None:
        try:
            import boto3
            import botocore.exceptions
        except ImportError as error:
            raise SdkMissingError(package="boto3") from error
        self._errors: Any = botocore.exceptions
        self._profile = profile
        if not profile.is_local:  # `cloud` means the vendor's cloud, whatever endpoint the shell has set
            for name in [n for n in os.environ if n.startswith("AWS_ENDPOINT_URL")]:
                os.environ.pop(name)
        session = boto3.Session(
            aws_access_key_id=profile.access_key_id,
            aws_secret_access_key=profile.secret_access_key,
            region_name=profile.region,
            profile_name=profile.sdk_profile,
        )
        self._known: set[str] | None = None
        self._policies: set[str] = set()
        verify = str(profile.ca_file) if profile.ca_file else None
        self._iot: Any = session.client("iot", endpoint_url=profile.endpoint_url, verify=verify)
        self._clock, self._ahead = clock, timedelta()
        self._iot.meta.events.register("after-call.iot", self._hear)

    @property
    def description(self) -> str:
        account = f", account {self._profile.account}" if self._profile.account else ""
        return f"AWS IoT {self._iot.meta.endpoint_url} ({self._iot.meta.region_name}{account})"

    @property
    def identity(self) -> str:
        if self._profile.account is not None:
            return self.description
        with self._translated():  # the name of the data endpoint is the account's own
            endpoint = self._iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
        return f"{self.description} account of {endpoint}"

    def survey(self, count: int) -> None:
        known: set[str] = set()
        with self._translated():
            for page in self._iot.get_paginator("list_things").paginate(PaginationConfig={"PageSize": 250}):
                known |= {thing["thingName"] for thing in page["things"]}
                if len(known) > _SURVEY_AT_LEAST + 4 * count:
                    return
        self._known = known

    @property
    def most_at_once(self) -> int:
        return 1

    def enroll_new(self, wishes: Sequence[EnrollmentRequest], note: Note) -> Sequence[bool]:
        del note
        return [False] * len(wishes)

    def enroll(self, wish: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool) -> Done:
        certificate_id = wish.certificate.thumbprint.hex()
        is_new = self._known is not None and wish.device_id not in self._known
        present = None if is_new else self._principals(wish.device_id)
        attached = next((arn for arn in present or () if arn.endswith(certificate_id)), None)
        if attached and self._has_policy(wish, present or []):
            return Done.UNCHANGED
        if present and not attached and not update:
            raise DifferentRecordError(
                device=wish.device_id,
                target=self.description,
                present=", ".join(arn.rpartition("/")[2] for arn in present),
                wanted=certificate_id,
            )
        self._check_policy(wish.policy)
        if dry_run:
            return Done.WOULD_CREATE if present is None else Done.WOULD_UPDATE
        known = attached or (None if present is None else self._registered(certificate_id))
        way = {"certificate": certificate_id, "is_new_thing": present is None, "is_attached": bool(attached)}
        way |= {"is_registered": bool(known), "policy": wish.policy, "since": self._now().isoformat()}
        if known and not attached and wish.policy and wish.policy in self._policies_of(known):
            way["policy"] = None
        note(wish.device_id, way)
        with self._translated(), ExitStack() as undo:
            self._iot.create_thing(thingName=wish.device_id)
            if present is None:
                undo.callback(self._iot.delete_thing, thingName=wish.device_id)
            if known:  # to register it again would be refused, and `birthmark why` would tell of it
                self._iot.update_certificate(certificateId=certificate_id, newStatus="ACTIVE")
            arn, is_ours = (known, False) if known else self._register(wish)
            if not known and not is_ours:
                note(wish.device_id, way | {"is_registered": True})
            if is_ours:
                undo.callback(self._iot.delete_certificate, certificateId=certificate_id)
                inactive = {"certificateId": certificate_id, "newStatus": "INACTIVE"}
                undo.callback(self._iot.update_certificate, **inactive)
            if wish.policy:
                self._iot.attach_policy(policyName=wish.policy, target=arn)
                undo.callback(self._iot.detach_policy, policyName=wish.policy, target=arn)
            self._iot.attach_thing_principal(thingName=wish.device_id, principal=arn)
            undo.pop_all()  # all of it is there; until now, what failed took back what was made
        return Done.CREATED if present is None else Done.UPDATED

    def take_back(self, device_id: str, way: WayBack, *, dry_run: bool) -> Done:
        known = way_of(way, _Way, device_id, self.description)
        certificate_id = known.certificate
        principals, described = self._principals(device_id), self._described(certificate_id)
        arn = None if described is None else str(described["certificateArn"])
        others = [one for one in principals or () if not one.endswith(certificate_id)]
        is_attached = len(others) != len(principals or ())
        if known.is_new_thing and others:
            detail = f"it has another certificate now, {others[0].rpartition('/')[2]}"
            raise NotTakenBackError(device=device_id, target=self.description, detail=detail)
        ends_thing, detaches = known.is_new_thing and principals is not None, is_attached and not known.is_attached
        is_made = described is not None and not known.is_registered and _is_since(described, known.since)
        ends_certificate = arn is not None and is_made and self._is_of(arn, device_id)
        policies = self._policies_of(arn) if arn is not None and (known.policy or ends_certificate) else set()
        ends_policy = known.policy in policies
        if not (ends_thing or detaches or ends_certificate or ends_policy):
            return Done.GONE
        if ends_certificate and (since := policies - {known.policy}):
            detail = f"its certificate has another policy now, {min(since)}"
            raise NotTakenBackError(device=device_id, target=self.description, detail=detail)
        if ends_thing:
            self._check_unchanged(device_id)
        if dry_run:
            return Done.WOULD_TAKE_BACK
        with self._translated(device_id):
            if detaches:
                self._iot.detach_thing_principal(thingName=device_id, principal=arn)
            if ends_policy:
                self._iot.detach_policy(policyName=known.policy, target=arn)
            if ends_certificate:
                self._iot.update_certificate(certificateId=certificate_id, newStatus="INACTIVE")
                self._iot.delete_certificate(certificateId=certificate_id)
            if ends_thing:
                self._iot.delete_thing(thingName=device_id)
        return Done.TAKEN_BACK

    def _check_unchanged(self, thing: str) -> None:
        """Raise `NotTakenBackError` for a thing that somebody changed since it was made."""
        with self._translated(thing):
            version = self._iot.describe_thing(thingName=thing)["version"]
        if version != 1:
            detail = f"it was changed since, and is at version {version}"
            raise NotTakenBackError(device=thing, target=self.description, detail=detail)

    def _described(self, certificate_id: str) -> dict[str, Any] | None:
        """Return what the account says of a certificate, None where it has none of this id."""
        try:
            with self._translated():
                found = self._iot.describe_certificate(certificateId=certificate_id)
        except ReferenceMissingError:
            return None
        return dict(found["certificateDescription"])

    def _hear(self, http_response: Any, **_: Any) -> None:
        """Keep how far the service's clock is ahead of ours."""
        if told := http_response.headers.get("date"):
            with suppress(ValueError):
                self._ahead = parsedate_to_datetime(told) - self._clock.now()

    def _now(self) -> datetime:
        """Return the service's time, or a little less."""
        return self._clock.now() + self._ahead - _COARSE

    def _is_of(self, arn: str, thing: str) -> bool:
        """Say whether a certificate is attached to this thing alone, or to none."""
        with self._translated():
            return set(self._iot.list_principal_things(principal=arn)["things"]) <= {thing}

    def records(self) -> Iterator[Record]:
        with self._translated():
            for page in self._iot.get_paginator("list_things").paginate():
                for thing in page["things"]:
                    principals = self._principals(thing["thingName"]) or []
                    first = principals[0].rpartition("/")[2] if principals else None
                    state = "attached" if principals else "without certificate"
                    detail = f"{len(principals)} certificate" + ("" if len(principals) == 1 else "s")
                    yield Record(thing["thingName"], "thing", state, first, detail)

    def remove(self, name: str, *, is_group: bool) -> None:
        del is_group
        principals = self._principals(name)
        if principals is None:
            raise NoSuchRecordError(target=self.description, device=name)
        with self._translated(name):
            for arn in principals:
                self._iot.detach_thing_principal(thingName=name, principal=arn)
                certificate_id = arn.rpartition("/")[2]
                self._iot.update_certificate(certificateId=certificate_id, newStatus="INACTIVE")
                for policy in self._iot.list_attached_policies(target=arn)["policies"]:
                    self._iot.detach_policy(policyName=policy["policyName"], target=arn)
                self._iot.delete_certificate(certificateId=certificate_id)
            self._iot.delete_thing(thingName=name)

    def _check_policy(self, name: str | None) -> None:
        """Raise `ReferenceMissingError` before anything is made for a device whose policy is not there."""
        if name is None or name in self._policies:
            return
        with self._translated(how=_HOW.format(shlex.quote(name))):
            self._iot.get_policy(policyName=name)
        self._policies.add(name)

    def _registered(self, certificate_id: str) -> str | None:
        """Return the ARN of a certificate that is among the latest: to look there refuses nothing."""
        pages = self._iot.get_paginator("list_certificates").paginate(
            PaginationConfig={"PageSize": 250, "MaxItems": _SURVEY_AT_LEAST}
        )
        listed = (one for page in pages for one in page["certificates"])
        return next((str(one["certificateArn"]) for one in listed if one["certificateId"] == certificate_id), None)

    def _register(self, wish: EnrollmentRequest) -> tuple[str, bool]:
        """Return the certificate's ARN, and whether it was registered just now."""
        try:
            answer = self._iot.register_certificate_without_ca(certificatePem=wish.certificate.pem(), status="ACTIVE")
        except self._iot.exceptions.ResourceAlreadyExistsException as error:
            arn = str(error.response["resourceArn"])
            self._iot.update_certificate(certificateId=arn.rpartition("/")[2], newStatus="ACTIVE")
            return arn, False
        return str(answer["certificateArn"]), True

    def _principals(self, thing: str) -> list[str] | None:
        try:
            with self._translated(thing):
                return list(self._iot.list_thing_principals(thingName=thing)["principals"])
        except NoSuchRecordError:
            return None

    def _has_policy(self, wish: EnrollmentRequest, principals: list[str]) -> bool:
        if wish.policy is None:
            return True
        arn = next(a for a in principals if a.endswith(wish.certificate.thumbprint.hex()))
        return wish.policy in self._policies_of(arn)

    def _policies_of(self, arn: str) -> set[str]:
        with self._translated():
            return {policy["policyName"] for policy in self._iot.list_attached_policies(target=arn)["policies"]}

    @contextmanager
    def _translated(self, name: str = "", how: str = "") -> Iterator[None]:
        """Turn the SDK's errors into ours; `how` says how to make what may be missing."""
        try:
            yield
        except self._errors.ClientError as error:
            code = error.response["Error"]["Code"]
            reason = error.response["Error"].get("Message", code)
            is_missing, is_unknown = code == "ResourceNotFoundException", code in _REFUSED_KEYS
            told = reason if is_missing or is_unknown else f"{code}: {reason}"
            facts = {"name": name, "how": how}
            raise refusal(self.description, told, is_missing=is_missing, is_unknown=is_unknown, **facts) from error
        except self._errors.BotoCoreError as error:
            raise TargetUnreachableError(target=self.description, reason=error) from error


def _is_since(described: Mapping[str, Any], since: datetime | None) -> bool:
    """Say whether a certificate was registered after the run had noted it: what was there before is somebody else's."""
    return since is None or described["creationDate"] >= since
