"""The agent on a device that belongs to an AWS account: its certificate is issued by EST, an operator registers it."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from birthmark.agent.state_directory import DEVICE_ID, AgentPaths
from support.agent.device import AgentOnDevice
from support.aws.device import Enrolled, document, statement


class AwsAgentOnDevice(AgentOnDevice):
    """One device, which is the thing `name`."""

    def with_files(self, thing: Enrolled, further: str = "") -> Self:
        """Configure it as a thing that the account knows, whose certificate lies there; `further` at the end."""
        self.config.parent.mkdir(parents=True)
        self.config.write_text(
            f'trust_bundle_cert = "file://{thing.files["ca"]}"\n'
            f'[provisioning]\nsource = "aws"\nendpoint = "{thing.files["endpoint"]}"\nthing_name = "{self.name}"\n'
            f'[provisioning.authentication]\nmethod = "x509"\nidentity_cert = "file://{thing.files["certificate"]}"\n'
            f'identity_pk = "file://{thing.files["key"]}"\n{further}'
        )
        Path(thing.files["key"]).chmod(0o600)
        return self

    @contextlib.contextmanager
    def running(self, **environment: str) -> Iterator["subprocess.Popen[str]"]:
        """Run the agent while the block runs; killed at its end, if it has not ended."""
        process = self.start(**environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def belong(self, iot: Any, further: str = "", *statements: dict[str, Any]) -> Self:
        """Configure it, `further` at the end, have its certificate issued, and put that on record at the account."""
        host = self.server.endpoints["aws"]["data_endpoint"]
        before = (
            f'trust_bundle_cert = "file://{self.server.endpoints["trust_bundle"]}"\n'
            f'[provisioning]\nsource = "aws"\nendpoint = "{host}"\nthing_name = "{self.name}"\n'
            '[provisioning.authentication]\nmethod = "x509"\n'
            '[provisioning.authentication.identity_cert]\nmethod = "est"\n'
            'auto_renew = { rotate_key = true, threshold = "80%", retry = "4%" }\n'
        )
        self.configure(lambda text: before + text[text.index("[cert_issuance") :] + further)
        self.attempt("apply")  # the account does not know the certificate yet
        pem = AgentPaths(self.root).certificate(DEVICE_ID).read_text()
        leaf = pem[: pem.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n"
        made = iot.register_certificate_without_ca(certificatePem=leaf, status="ACTIVE")
        iot.create_thing(thingName=self.name)
        iot.create_policy(policyName=self.name, policyDocument=document(*(statements or (statement("iot:*"),))))
        iot.attach_policy(policyName=self.name, target=made["certificateArn"])
        iot.attach_thing_principal(thingName=self.name, principal=made["certificateArn"])
        return self
