"""Connection to Azure DPS by the vendor's service SDK, and translation of its errors."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.request import getproxies

from birthmark.auth.connection_strings import parse_connection_string
from birthmark.clock_and_entropy import Clock, SystemClock
from birthmark.errors import BirthmarkError
from birthmark.fleet.azure_hub_devices import HubDevices
from birthmark.fleet.azure_sdk_model_extensions import enrollment_models, record_reader
from birthmark.fleet.enrollment_target import TargetOutcome
from birthmark.fleet.errors import (
    NoSuchRecordError,
    SdkMissingError,
    TargetAnswerError,
    TargetThrottledError,
    TargetUnreachableError,
    network_reason,
    refusal,
)
from birthmark.fleet.target_profiles import AzureProfile
from birthmark.untrusted_json_and_text import whole_number, without_signatures

_CLOCK = SystemClock()
_PAGE = 100
_CONTINUATION = "x-ms-continuation"


class AzureService:
    """A provisioning service, and the hub of its profile."""

    def __init__(self, profile: AzureProfile, clock: Clock = _CLOCK) -> None:
        try:
            import msrest
            import provisioningserviceclient as sdk

            models = enrollment_models()
        except ImportError as error:
            raise SdkMissingError(package="azure-iothub-provisioningserviceclient") from error
        self._models: Any = models
        made_by: Any = msrest
        self._error: Any = sdk.client.ProvisioningServiceError
        self._wire_error: Any = sdk.client.ProvisioningServiceErrorDetailsException
        parsed = parse_connection_string(profile.connection_string)
        self._host = parsed.host
        self._sdk: Any = sdk.ProvisioningServiceClient.create_from_connection_string(parsed.render())
        runtime = self._sdk._runtime_client  # noqa: SLF001 - no public SDK method
        runtime._serialize = _passing(made_by.Serializer(vars(models)))  # noqa: SLF001 - as above
        self._scope = profile.scope
        runtime._deserialize = record_reader(models, self.description)  # noqa: SLF001 - as above
        config = runtime.config
        config.keep_alive = True  # otherwise one connection per call
        # It would sleep for the service's delay without a wakeup; `pace` controls the delay.
        config.retry_policy.policy.respect_retry_after_header = False
        # A repeated create fails, as if another client had created the object.
        config.retry_policy.policy.allowed_methods = frozenset({"GET", "PUT", "DELETE"})
        hub = profile.hub_connection_string
        self._hub = None if hub is None else HubDevices(hub, profile.ca_file, clock)
        if profile.ca_file is not None:  # only this root; set per request, it overrides the environment's
            config.connection.verify = str(profile.ca_file)
            # It reads proxies and passwords from the environment and files, for each request.
            config.proxies.use_env_settings = bool(getproxies())

    @property
    def description(self) -> str:
        return f"Azure DPS {self._host}" + (f" (scope {self._scope})" if self._scope else "")

    @property
    def place(self) -> str:
        """Identity of its records, independent of the profile."""
        return self._host.lower()

    @property
    def identity(self) -> str:
        return self.description

    def hub_with(self, device_id: str) -> str | None:
        """Return the host of the profile's hub if it has this device; None also if the hub cannot be queried."""
        with suppress(BirthmarkError):
            if self._hub is not None and self._hub.get(device_id) is not None:
                return self._hub.host
        return None

    def _put(self, value: Any, present: Any, how: str = "") -> TargetOutcome:
        """Write a record, with the ETag of the record that was read."""
        if present is not None:
            value.etag = present.etag
        with self._translated(how=how):
            self._sdk.create_or_update(value)
        return TargetOutcome.CREATED if present is None else TargetOutcome.UPDATED

    def _as_kept(self, before: Mapping[str, Any]) -> Any:
        """Return a journal record as an SDK model."""
        return self._models.IndividualEnrollment.deserialize(before)

    def _found(self, read: Callable[[str], Any], name: str) -> Any:
        """Return the record under a name, None if none exists."""
        try:
            with self._translated(name):
                return read(name)
        except NoSuchRecordError:
            return None

    def _pages(self, query: Any) -> Iterator[Any]:
        while query.has_next:
            try:
                with self._translated():
                    page = query.next()
            except (StopIteration, KeyError):  # the SDK requires a header that the last page may lack
                return
            yield page

    def _states_of(self, group: str) -> Iterator[Any]:
        """Yield the registration states of a group's devices; the SDK's own query for it cannot be sent."""
        read, token = self._operation("query_device_registration_states"), None
        while True:
            headers = {"x-ms-max-item-count": str(_PAGE)} | ({} if token is None else {_CONTINUATION: token})
            with self._below_the_sdk(group):
                page = read(group, custom_headers=headers, raw=True)
            yield from page.output
            token = page.response.headers.get(_CONTINUATION)
            if not token:
                return

    def _operation(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(self._sdk._runtime_client, name)  # noqa: SLF001 - no public SDK method
        return found

    @contextmanager
    def _below_the_sdk(self, name: str, how: str = "") -> Iterator[None]:
        """Translate errors of the layer below the SDK like the SDK's own."""
        with self._translated(name, how):
            try:
                yield
            except self._wire_error as error:
                raise self._error(str(error), error) from error

    @contextmanager
    def _translated(self, name: str = "", how: str = "") -> Iterator[None]:
        """Translate the SDK's errors; `how` is the advice for creating a missing object."""
        try:
            yield
        except self._error as error:
            raise self._refused(error, name, how) from error
        except OSError as error:  # requests raises OSErrors
            raise TargetUnreachableError(target=self.description, reason=network_reason(error)) from error
        except (AttributeError, TypeError) as error:  # the SDK expects a certain type of response
            raise self._unread(error) from error
        except Exception as error:
            if type(error).__name__ == "DeserializationError":
                raise self._unread(error) from error
            if type(error).__module__.startswith("msrest"):
                reason = getattr(error, "inner_exception", None) or error
                raise TargetUnreachableError(target=self.description, reason=network_reason(reason)) from error
            raise

    def _unread(self, error: Exception) -> TargetAnswerError:
        return TargetAnswerError(target=self.description, reason=without_signatures(str(error))[:200])

    def _refused(self, error: Any, name: str, how: str) -> BirthmarkError:
        response, status = _response_of(error), status_of(error)
        try:
            said = response.json() if response is not None else None
        except ValueError:
            said = None
        reason = without_signatures(str((said.get("message") if isinstance(said, dict) else None) or error))
        if response is not None and status == HTTPStatus.TOO_MANY_REQUESTS:
            after = whole_number(str(response.headers.get("retry-after", "")))
            return TargetThrottledError(target=self.description, reason=reason, retry_after_s=after or 0)
        is_missing, is_unknown = status == HTTPStatus.NOT_FOUND, status in {401, 403}
        return refusal(self.description, reason, is_missing=is_missing, is_unknown=is_unknown, name=name, how=how)


def _response_of(error: Any) -> Any:
    return getattr(getattr(error, "cause", None), "response", None)


def status_of(error: Any) -> int:
    """Return the HTTP status of the SDK's error, 0 if it has none."""
    return int(getattr(_response_of(error), "status_code", 0))


@dataclass(frozen=True, slots=True)
class RawBulkOperation:
    """A bulk operation as JSON: the SDK would read, check and write each record of its models three times."""

    content: Mapping[str, Any]
    enrollments: tuple[()] = ()


def _passing(serializer: Any) -> Any:
    """Return the SDK's serializer, which passes a `RawBulkOperation` through unchanged."""
    made, write = copy.copy(serializer), serializer.body
    made.body = lambda data, kind, **more: (
        data.content if isinstance(data, RawBulkOperation) else write(data, kind, **more)
    )
    return made
