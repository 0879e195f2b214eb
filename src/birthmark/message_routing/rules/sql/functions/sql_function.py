"""Definition of an SQL function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from birthmark.message_routing.rules.sql.syntax_tree import Version


@dataclass(frozen=True, slots=True)
class SqlFunction:
    """A function with its number of arguments and the version that introduced it."""

    name: str
    call: Callable[..., Any]
    least: int
    most: int
    since: Version = Version.V2015_10_08


NEW = Version.V2016_03_23
ANY = 10_000
