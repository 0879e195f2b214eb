"""Unmodified azure-eventhub against a cloud, and telemetry for it to read."""

import asyncio
import base64
import contextlib
import http.client
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from azure.eventhub import EventData, TransportType
from azure.eventhub.aio import EventHubConsumerClient

from birthmark.auth.sas import hmac_sha256, render_sas
from birthmark.testing.cloud import AzureDevice, Cloud

PATIENCE_S = 30.0


def send(device: AzureDevice, *bodies: str, **properties: str) -> None:
    """Send messages over HTTPS as a device with a key."""
    cloud, name = device.cloud, device.name
    key = base64.b64decode(device.symmetric_key)
    token = render_sas(f"{cloud.host}/devices/{name}", hmac_sha256(key), datetime.now(UTC) + timedelta(hours=1))
    port, context = cloud.endpoints["iothub"]["https_port"], ssl.create_default_context(cafile=cloud.ca_file)
    with contextlib.closing(http.client.HTTPSConnection(cloud.host, port, context=context, timeout=30)) as line:
        for body in bodies:
            headers = {
                "Authorization": token,
                "iothub-messageid": f"id-{body}",
                "iothub-contenttype": "application/json",
                "iothub-contentencoding": "utf-8",
                **{f"iothub-app-{name}": value for name, value in properties.items()},
            }
            line.request("POST", f"/devices/{name}/messages/events?api-version=2020-03-13", body, headers)
            answer = line.getresponse()
            answer.read()
            assert answer.status == 204, answer.status


@dataclass
class Reading:
    """What a reader received, and what its SDK reported."""

    events: list[EventData] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    tracked: list[Any] = field(default_factory=list)

    @property
    def bodies(self) -> list[str]:
        return [event.body_as_str() for event in self.events]

    @property
    def numbers(self) -> list[int | None]:
        return [event.sequence_number for event in self.events]


def options(cloud: Cloud, transport: str) -> dict[str, Any]:
    """Return the SDK's options of a transport: "tcp", or "websocket" on the cloud's HTTPS port."""
    if transport == "tcp":
        return {}
    place = f"sb://{cloud.host}:{cloud.endpoints['iothub']['https_port']}"
    return {"transport_type": TransportType.AmqpOverWebsocket, "custom_endpoint_address": place}


class Reader:
    """A client in a thread of its own, until it is closed."""

    def __init__(self, cloud: Cloud, group: str = "$Default", *, transport: str = "tcp", **more: Any) -> None:
        constructor = {name: more.pop(name) for name in ("uamqp_transport", "retry_total") if name in more}
        self.reading = Reading()
        self._changed = threading.Condition()
        fast = {"load_balancing_interval": 1, "retry_total": 0} | constructor | options(cloud, transport)
        self._client = cloud.event_hub_reader(group, **fast)
        asked = {"starting_position": "-1", **more}
        self._thread = threading.Thread(target=self._receive, kwargs=asked, daemon=True)
        self._thread.start()

    def _receive(self, **asked: Any) -> None:
        try:
            self._client.receive(on_event=self._event, on_error=self._error, **asked)
        except Exception as error:  # noqa: BLE001 - what the SDK raises instead of calling on_error
            self._error(None, error)

    def _event(self, context: Any, event: EventData | None) -> None:
        with self._changed:
            if event is not None:
                self.reading.events.append(event)
                self.reading.tracked.append(context.last_enqueued_event_properties)
            self._changed.notify_all()

    def _error(self, _context: Any, error: Exception) -> None:
        with self._changed:
            self.reading.errors.append(error)
            self._changed.notify_all()

    def until(self, condition: Callable[[Reading], bool], what: str) -> Reading:
        """Wait for a condition, and return what was read."""
        with self._changed:
            found = self._changed.wait_for(lambda: condition(self.reading), PATIENCE_S)
        assert found, f"never: {what}; read {self.reading.bodies}, errors {self.reading.errors}"
        return self.reading

    def received(self, count: int) -> Reading:
        """Wait for a number of events."""
        return self.until(lambda reading: len(reading.events) >= count, f"{count} events")

    def failed(self) -> Exception:
        """Wait for an error, and return it."""
        return self.until(lambda reading: bool(reading.errors), "an error").errors[0]

    def close(self) -> None:
        self._client.close()
        self._thread.join(PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def read_async(cloud: Cloud, groups: Sequence[str], count: int, transport: str = "tcp") -> list[list[str]]:
    """Read with the asynchronous client in several groups at once, and return the bodies of each."""

    async def read(group: str) -> list[str]:
        client = EventHubConsumerClient.from_connection_string(
            cloud.event_hub_connection_string,
            consumer_group=group,
            connection_verify=cloud.ca_file,
            load_balancing_interval=1,
            **options(cloud, transport),
        )
        bodies: list[str] = []
        done = asyncio.Event()

        async def take(_context: Any, event: EventData | None) -> None:
            if event is not None:
                bodies.append(event.body_as_str())
            if len(bodies) >= count:
                done.set()

        async with client:
            receiving = asyncio.create_task(client.receive(on_event=take, starting_position="-1"))
            await asyncio.wait_for(done.wait(), PATIENCE_S)
        await receiving
        return bodies

    return await asyncio.gather(*map(read, groups))
