"""Policies in short, and devices that run the vendor's SDK in a process of their own."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import warm
from birthmark.testing.cloud import AwsThing
from support.server.servers import clean_environment

ARN = "arn:aws:iot:us-east-1:000000000000:"
DEVICE = Path(__file__).with_name("sdk_process.py")
SHADOWS = Path(__file__).with_name("shadow_process.py")
DEVICE_5 = Path(__file__).with_name("mqtt5_process.py")


def statement(action: str | list[str], resource: str = "*", effect: str = "Allow") -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource}


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@dataclass
class DeviceProcess:
    """The real awsiotsdk in a process of its own; a line in is a command, a line out its result."""

    arguments: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    program: Path = DEVICE
    _process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [warm.python(), str(self.program), json.dumps(self.arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(**self.environment),
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def __call__(self, command: str, **more: Any) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": command, **more}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, "the device process ended"
        return dict(json.loads(line))


@dataclass
class Enrolled:
    """A thing with an active certificate whose key is a file, and a policy of its own."""

    thing: AwsThing

    @property
    def name(self) -> str:
        return self.thing.name

    @property
    def certificate_id(self) -> str:
        return self.thing.identity.certificate_id

    @property
    def arn(self) -> str:
        """Its certificate's."""
        return self.thing.identity.certificate_arn

    @property
    def files(self) -> dict[str, str]:
        """What a device connects with."""
        return {
            "certificate": self.thing.certificate_file,
            "key": self.thing.key_file,
            "endpoint": self.thing.endpoint,
            "ca": self.thing.cloud.ca_file,
            "client_id": self.name,
        }

    def device(self, **more: Any) -> DeviceProcess:
        """Run a device as this thing; `more` changes how it connects."""
        return DeviceProcess({**self.files, **more})

    def device_5(self, **more: Any) -> DeviceProcess:
        """Run a device that speaks MQTT 5."""
        return DeviceProcess({**self.files, **more}, program=DEVICE_5)

    def shadows(self, client: int | str, **more: Any) -> DeviceProcess:
        """Run a shadow client: of V2 over MQTT 5 or 3, or the "old" one."""
        return DeviceProcess({**self.files, "client": client, **more}, program=SHADOWS)

    def jobs(self, client: int | str, **more: Any) -> DeviceProcess:
        """Run a jobs client: of V2 over MQTT 5 or 3, or the "old" one."""
        return DeviceProcess({**self.files, "client": client, "service": "jobs", **more}, program=SHADOWS)
