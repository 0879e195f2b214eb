"""Every row, by room."""

from collections.abc import Mapping

from fixes.desk import Row
from fixes.rows_amqp import AMQP
from fixes.rows_aws import AWS
from fixes.rows_aws_devices import DEVICES
from fixes.rows_aws_shadows import SHADOWS
from fixes.rows_azure import DPS, HUB, SIGNATURES
from fixes.rows_certificates import CERTIFICATES
from fixes.rows_credentials import CREDENTIALS
from fixes.rows_files import FILES
from fixes.rows_first_contact import FIRST_CONTACT
from fixes.rows_jobs import JOBS
from fixes.rows_literal import LITERALS
from fixes.rows_management import MANAGEMENT
from fixes.rows_rules import RULES
from fixes.rows_tiers import TIERS
from fixes.rows_wire import WIRE

ROWS: Mapping[str, Row] = {
    **AMQP,
    **AWS,
    **CERTIFICATES,
    **CREDENTIALS,
    **DEVICES,
    **FILES,
    **FIRST_CONTACT,
    **DPS,
    **HUB,
    **JOBS,
    **LITERALS,
    **MANAGEMENT,
    **RULES,
    **SHADOWS,
    **SIGNATURES,
    **TIERS,
    **WIRE,
}
