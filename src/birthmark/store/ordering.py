"""Text in one order on both engines, whatever language a database sorts by: that of code points."""

from typing import Any

from sqlalchemy import Column, Text

Ordered = Text().with_variant(Text(collation="C"), "postgresql")
"""The type of such text: a beginning is then a range."""


def ordered_text(name: str, *, key: bool = False) -> Column[Any]:
    """Return a column of text in the order of code points."""
    return Column(name, Ordered, primary_key=key, nullable=False)
