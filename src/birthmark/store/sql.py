"""What rooms import of SQLAlchemy. For types it is SQLAlchemy's own; at run time it is written down (`written`)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import *  # noqa: F403
    from sqlalchemy import BindParameter as BindParameter  # noqa: PLC0414 - exported on purpose
    from sqlalchemy.schema import SchemaItem as SchemaItem  # noqa: PLC0414 - as above
else:
    from birthmark.store import written

    Column, Index, MetaData, Table = written.Column, written.Index, written.MetaData, written.Table
    __getattr__ = written.named
