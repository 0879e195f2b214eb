"""Imports every table of the database. A component's tables are registered when its store is imported.

Code that handles the complete database uses `TABLES`, never the currently registered tables.
"""

from collections.abc import Mapping

from sqlalchemy import Table

from birthmark.store import metadata

TABLES: Mapping[str, Table] = {table.name: table for table in metadata.sorted_tables}
