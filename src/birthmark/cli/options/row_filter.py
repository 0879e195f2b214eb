"""Row filter options that all list commands share."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Annotated, Any, TypeVar

import typer

from birthmark.cli.output.command_output import UsageError, without
from birthmark.cli.output.table import text_of

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class RowCondition:
    """A condition on one column."""

    column: str
    pattern: str


class ColumnUnknownError(UsageError):
    """The list has no such column."""

    code = "cli.column_unknown"
    cause = "The column {column} in --where does not exist; the columns are {columns}."
    fix = "Show a row with all columns: `{command}`"
    column: str
    columns: str
    command: str


def parse_wanted(text: str) -> RowCondition:
    """Parse `COLUMN=PATTERN`; a column may be written as the table header shows it."""
    column, sign, pattern = text.partition("=")
    if not sign or not column.strip():
        raise typer.BadParameter("use COLUMN=PATTERN, such as state=disabled or name='pump-*'")
    return RowCondition(column.strip().replace(" ", "_"), pattern)


def _itself(row: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = row
    return found


@dataclass(frozen=True, slots=True)
class PickOptions:
    """Filter and limit for the rows of a list."""

    where: Annotated[
        list[RowCondition] | None,
        typer.Option(
            parser=parse_wanted,
            metavar="COLUMN=PATTERN",
            help="Row filter, such as name='pump-*'; repeatable.",
        ),
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of rows.")] = None

    def filter_rows(self, rows: Iterable[Row], of: Callable[[Row], Mapping[str, Any]] = _itself) -> Iterator[Row]:
        """Yield the rows that match, in order. Raise `ColumnUnknownError` if no row has the column."""
        return islice(self._matching(rows, of), self.limit)

    def _matching(self, rows: Iterable[Row], of: Callable[[Row], Mapping[str, Any]]) -> Iterator[Row]:
        wanted = self.where or []
        columns: dict[str, None] = {}
        for row in rows:
            view = of(row)
            columns |= dict.fromkeys(view)
            if all(one.column in view and fnmatchcase(text_of(view[one.column]), one.pattern) for one in wanted):
                yield row
        for one in wanted:
            if columns and one.column not in columns:
                command = f"{without('--where', takes_value=True)} --limit 1 --json"
                raise ColumnUnknownError(column=one.column, columns=", ".join(columns), command=command)
