"""An AWS IoT account by boto3: caller identity, records, and translation of the SDK's errors."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from birthmark.clock_and_entropy import Clock, SystemClock
from birthmark.fleet.aws_diff_and_rollback import denied_action
from birthmark.fleet.enrollment_target import AT_ONCE
from birthmark.fleet.errors import (
    CredentialsRefusedError,
    NoSuchRecordError,
    NotAllowedError,
    ProfileError,
    ReferenceMissingError,
    SdkMissingError,
    TargetAnswerError,
    TargetRefusedError,
    TargetThrottledError,
    TargetUnreachableError,
    network_reason,
    refusal,
    role_missing,
)
from birthmark.fleet.target_profiles import AwsProfile

SURVEY_AT_LEAST = 1000
CLOCK = SystemClock()
_ATTEMPTS = 8
_MEND = {
    "ProfileNotFound": "List the profiles: `aws configure list-profiles`. ",
    "NoRegionError": "Set the region: `export AWS_DEFAULT_REGION=eu-central-1`. ",
}
_NO_CREDENTIALS = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "InvalidConfigError"),
        *("TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError", "RefreshWithMFAUnsupportedError"),
    }
)
"""Errors of the SDK if its credential chain finds none, so that no request was sent."""
_THROTTLED = {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"}
_REFUSED_KEYS = {"UnrecognizedClientException", "InvalidSignatureException", "MissingAuthenticationTokenException"}
_COARSE = timedelta(seconds=2)  # HTTP dates, and maybe certificate dates, are cut to the second


class AwsAccount:
    """An account in one region. Methods block and are thread-safe."""

    def __init__(self, profile: AwsProfile, clock: Clock = CLOCK) -> None:
        # With awscrt installed, botocore signs through it, which takes twice as long as the rest of a call.
        os.environ.setdefault("BOTO_DISABLE_CRT", "true")
        try:
            import boto3
            import botocore.config
            import botocore.exceptions
            import botocore.parsers
            import botocore.session
        except ImportError as error:
            raise SdkMissingError(package="boto3") from error
        self._errors: Any = botocore.exceptions
        self._unread = (AttributeError, KeyError, TypeError, botocore.parsers.ResponseParserError)
        """Errors of the SDK, or of readers of its results, for a response of another form."""
        self._profile = profile
        verify = str(profile.ca_file) if profile.ca_file else None
        # Retry each call in place, at a rate that adapts to the account's limits.
        config = botocore.config.Config(
            retries={"mode": "adaptive", "total_max_attempts": _ATTEMPTS},
            max_pool_connections=AT_ONCE,
            ignore_configured_endpoint_urls=True,  # `cloud` means the vendor's cloud, whatever the shell sets
        )
        # A local server's keys apply, whatever profile the shell names; the profile variables are ignored.
        unnamed = {"profile": (None, None, None, None)} if profile.is_local else None
        try:
            session = boto3.Session(
                aws_access_key_id=profile.access_key_id,
                aws_secret_access_key=profile.secret_access_key,
                region_name=profile.region,
                profile_name=profile.sdk_profile,
                botocore_session=botocore.session.Session(session_vars=unnamed),
            )
            self._iot: Any = session.client("iot", endpoint_url=profile.endpoint_url, verify=verify, config=config)
        except (botocore.exceptions.BotoCoreError, ValueError) as error:  # AWS configuration error, or invalid URL
            mend = _MEND.get(type(error).__name__, "")
            raise ProfileError(profile=profile.name, detail=str(error).rstrip("."), mend=mend) from error
        self._clock, self._ahead = clock, timedelta()
        self._iot.meta.events.register("after-call.iot", self._hear)

    @property
    def description(self) -> str:
        account = f", account {self._profile.account}" if self._profile.account else ""
        return f"AWS IoT {self._iot.meta.endpoint_url} ({self._iot.meta.region_name}{account})"

    @property
    def place(self) -> str:
        """Identity of its records, independent of the profile: it contains the account's unique data endpoint."""
        with self._translated():
            endpoint = self._iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
        return f"{self._iot.meta.endpoint_url} {self._iot.meta.region_name} {endpoint}"

    @property
    def identity(self) -> str:
        if self._profile.account is not None:
            return self.description
        with self._translated():  # the data endpoint's name belongs to the account
            endpoint = self._iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]
        return f"{self.description} account of {endpoint}"

    def _thing(self, name: str) -> dict[str, Any]:
        with self._translated(name):
            return dict(self._iot.describe_thing(thingName=name))

    def _groups_of(self, thing: str) -> set[str]:
        with self._translated(thing):
            return {
                one["groupName"] for one in self._all("list_thing_groups_for_thing", "thingGroups", thingName=thing)
            }

    def _described(self, certificate_id: str) -> dict[str, Any] | None:
        """Return the account's description of a certificate, None for an unknown ID."""
        try:
            with self._translated():
                return dict(self._iot.describe_certificate(certificateId=certificate_id)["certificateDescription"])
        except ReferenceMissingError:
            return None

    def _hear(self, http_response: Any, **_: Any) -> None:
        """Store the offset of the service's clock from the local one."""
        if told := http_response.headers.get("date"):
            with suppress(ValueError):
                self._ahead = parsedate_to_datetime(told) - self._clock.now()

    def _time(self) -> datetime:
        """Return the service's time, or slightly less."""
        return self._clock.now() + self._ahead - _COARSE

    def _things_of(self, arn: str) -> Sequence[str]:
        with self._translated():
            return self._all("list_principal_things", "things", principal=arn)

    def _shared(self, arn: str, name: str) -> str:
        """Return a text with the other things of a certificate, empty if it has none."""
        others = [one for one in self._things_of(arn) if one != name]
        return f"also used by the thing{'s' * (len(others) > 1)} {', '.join(others)}" if others else ""

    def _is_listed(self, certificate_id: str) -> bool:
        """Return whether a certificate is among the latest; unlike a lookup, listing causes no refusal."""
        pages = self._iot.get_paginator("list_certificates").paginate(
            PaginationConfig={"PageSize": 250, "MaxItems": SURVEY_AT_LEAST}
        )
        return any(one["certificateId"] == certificate_id for page in pages for one in page["certificates"])

    def _principals(self, thing: str) -> list[str] | None:
        try:
            with self._translated(thing):
                return self._all("list_thing_principals", "principals", thingName=thing)
        except NoSuchRecordError:
            return None

    def _policies_of(self, arn: str) -> frozenset[str]:
        with self._translated():
            return frozenset(one["policyName"] for one in self._all("list_attached_policies", "policies", target=arn))

    def _all(self, operation: str, key: str, **asked: str) -> list[Any]:
        """Return all items of a list operation, from every page."""
        pages = self._iot.get_paginator(operation).paginate(**asked)
        return [one for page in pages for one in page[key]]

    @contextmanager
    def _translated(self, name: str = "", how: str = "") -> Iterator[None]:
        """Translate the SDK's errors; `how` is the advice for creating a missing object."""
        try:
            yield
        except self._errors.ClientError as error:
            code = error.response["Error"]["Code"]
            reason = error.response["Error"].get("Message", code)
            if (missing := role_missing(self.description, reason)) is not None:
                raise missing from error
            if (denied := denied_action(code, reason)) is not None:
                said = {"action": denied, "reason": reason.rstrip("."), "target": self.description}
                raise NotAllowedError(**said, options=" --to aws") from error
            if code in _THROTTLED:
                raise TargetThrottledError(target=self.description, reason=reason, retry_after_s=0) from error
            is_missing, is_unknown = code == "ResourceNotFoundException", code in _REFUSED_KEYS
            told = reason if is_missing or is_unknown else f"{code}: {reason}"
            facts = {"name": name, "how": how}
            raise refusal(self.description, told, is_missing=is_missing, is_unknown=is_unknown, **facts) from error
        except self._errors.ParamValidationError as error:  # error of one device, found by the SDK itself
            raise TargetRefusedError(target=self.description, reason=" ".join(str(error).split())) from error
        except self._errors.BotoCoreError as error:
            if type(error).__name__ in _NO_CREDENTIALS:
                raise CredentialsRefusedError(target=self.description, reason=str(error).rstrip(".")) from error
            raise TargetUnreachableError(target=self.description, reason=network_reason(error)) from error
        except self._unread as error:
            raise TargetAnswerError(target=self.description, reason=str(error)[:200]) from error
