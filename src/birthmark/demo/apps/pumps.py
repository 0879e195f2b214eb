"""Twenty pumps at AWS IoT Core, each with its own certificate: they do the jobs that they are told.

    python pumps.py keys COUNT     make keys and certificate requests, pump-NN.key and pump-NN.csr
    python pumps.py run COUNT      connect them all, and do jobs until the input ends

Uses nothing but awsiotsdk, and cryptography for the keys. A job's document is {"operation": "interval", "seconds": N}.
The seventh pump runs on a battery, and cannot measure more often than every 10 seconds. Environment:

    AWS_IOT_ENDPOINT    as `aws iot describe-endpoint --endpoint-type iot:Data-ATS` prints it
    CA_FILE             the root to trust
"""

import os
import sys
import time
from pathlib import Path

from awscrt import mqtt
from awscrt.exceptions import AwsCrtError
from awsiot import iotjobs, mqtt_connection_builder
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ON_BATTERY, LEAST_S = "pump-07", 10
QOS = mqtt.QoS.AT_LEAST_ONCE


def make_keys(names: list[str]) -> None:
    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        Path(f"{name}.csr").write_bytes(csr.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        descriptor = os.open(f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)


def connected(name: str) -> mqtt.Connection:
    """Return a connection; the very first one of a pump only puts it on record."""
    for attempt in range(10):
        connection = mqtt_connection_builder.mtls_from_path(
            f"{name}.pem",
            f"{name}.key",
            endpoint=os.environ["AWS_IOT_ENDPOINT"],
            port=8883,
            ca_filepath=os.environ["CA_FILE"],
            client_id=name,
            clean_session=True,
            keep_alive_secs=60,
        )
        try:
            connection.connect().result(20)
        except AwsCrtError:
            time.sleep(0.2 * (attempt + 1))
        else:
            return connection
    raise SystemExit(f"{name} is not let in")


class Pump:
    def __init__(self, name: str) -> None:
        self.name = name
        self.connection = connected(name)
        self.jobs = iotjobs.IotJobsClient(self.connection)
        next_one = iotjobs.NextJobExecutionChangedSubscriptionRequest(thing_name=name)
        self.jobs.subscribe_to_next_job_execution_changed_events(next_one, QOS, self.on_next)[0].result(20)
        started = iotjobs.StartNextPendingJobExecutionSubscriptionRequest(thing_name=name)
        self.jobs.subscribe_to_start_next_pending_job_execution_accepted(started, QOS, self.on_started)[0].result(20)
        self.begin_next()

    def begin_next(self) -> None:
        request = iotjobs.StartNextPendingJobExecutionRequest(thing_name=self.name)
        self.jobs.publish_start_next_pending_job_execution(request, QOS)

    def on_next(self, event: iotjobs.NextJobExecutionChangedEvent) -> None:
        if event.execution is not None and event.execution.status == "QUEUED":
            self.begin_next()

    def on_started(self, response: iotjobs.StartNextJobExecutionResponse) -> None:
        if (job := response.execution) is None or job.job_document is None:
            return
        seconds = job.job_document["seconds"]
        if self.name == ON_BATTERY and seconds < LEAST_S:
            details = {"reason": f"on battery: an interval below {LEAST_S} s is not possible"}
            self.say(job, iotjobs.JobStatus.FAILED, details)
        else:
            self.say(job, iotjobs.JobStatus.SUCCEEDED, {"interval": str(seconds)})

    def say(self, job: iotjobs.JobExecutionData, status: str, details: dict[str, str]) -> None:
        request = iotjobs.UpdateJobExecutionRequest(
            thing_name=self.name,
            job_id=job.job_id,
            expected_version=job.version_number,
            status=status,
            status_details=details,
        )
        self.jobs.publish_update_job_execution(request, QOS)
        print(f"{self.name} {job.job_id} {status}", flush=True)


def main() -> None:
    names = [f"pump-{number:02}" for number in range(1, int(sys.argv[2]) + 1)]
    if sys.argv[1] == "keys":
        make_keys(names)
        return
    pumps = [Pump(name) for name in names]
    print(f"{len(pumps)} pumps are connected", flush=True)
    sys.stdin.read()
    for pump in pumps:
        pump.connection.disconnect().result(10)


if __name__ == "__main__":
    main()
