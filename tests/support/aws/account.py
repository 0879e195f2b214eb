"""An AWS account over a database, for tests of its services."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from birthmark.awsiot.http.operation_routing_and_request_members import AwsOperation, AwsRequest
from birthmark.awsiot.model import Account
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.device_authorization import ConnectionGrant
from birthmark.store import Database, open_database
from support.fakes import FakeClock, SeededEntropy
from support.pki.pki_builders import a_ca

ACCOUNT = Account("000000000000", "us-east-1", "localhost")
POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {"Effect": "Allow", "Action": "iot:*", "Resource": ACCOUNT.arn("client", "*")},
    }
)
ME: dict[str, Any] = {"actor": "test"}


OPERATOR = ConnectionGrant("AKIA", None, None, None)


def a_call(
    operation: AwsOperation, query: Mapping[str, str] | None = None, body: bytes = b"", **headers: str
) -> AwsRequest:
    """Return a request of an operator."""
    known = {name.replace("_", "-"): value for name, value in headers.items()}
    return AwsRequest(operation, {}, query or {}, known, body, "x", OPERATOR, lambda _error: None, ACCOUNT)


def an_account(database: Database, clock: FakeClock) -> AwsIot:
    return AwsIot(ACCOUNT, database, clock, SeededEntropy(), lambda: a_ca("Service CA").as_issuer)


@contextlib.asynccontextmanager
async def an_aws_account(database_url: str) -> AsyncIterator[tuple[AwsIot, FakeClock]]:
    clock = FakeClock()
    database = await open_database(database_url, clock)
    try:
        aws = an_account(database, clock)
        await aws.load()
        yield aws, clock
        await aws.keys.stop()
    finally:
        await database.close()
