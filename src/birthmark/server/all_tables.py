"""Imports every table of the database. A component's tables are registered when its store is imported.

Code that handles the complete database uses `TABLES`, never the currently registered tables.
"""

from collections.abc import Mapping

from sqlalchemy import Table

import birthmark.alerts.store
import birthmark.awsiot.store
import birthmark.blob_storage.store
import birthmark.broker.store
import birthmark.ca.root_rollover_store
import birthmark.ca.store
import birthmark.dps.store
import birthmark.est.store
import birthmark.events.store
import birthmark.iam.approvals_model
import birthmark.iam.idempotency_model
import birthmark.iam.sign_in_model
import birthmark.iam.store
import birthmark.iothub.configuration_store
import birthmark.iothub.job_store
import birthmark.iothub.store
import birthmark.iothub.twin_index_store
import birthmark.message_routing.store
import birthmark.refusals.store
import birthmark.store.device_name_prefix_index
import birthmark.store.object_counters  # noqa: F401
from birthmark.store import metadata

TABLES: Mapping[str, Table] = {table.name: table for table in metadata.sorted_tables}
