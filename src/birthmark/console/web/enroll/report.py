"""What became of each row, as a file: CSV that no spreadsheet takes for formulas, or JSON."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from birthmark.text import cell

COLUMNS = ("row", "device", "thumbprint", "signer", "outcome", "code", "message", "cause", "fix", "at")


def report_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stable JSON form of a row."""
    problem = row.get("problem") or {}
    told = {"row": row["place"], "device": row["device"], "thumbprint": row["thumbprint"], "signer": row["says"]}
    told |= {"outcome": row["outcome"], "code": problem.get("code"), "message": problem.get("title")}
    return told | {"cause": problem.get("detail"), "fix": problem.get("fix"), "at": row.get("at")}


def as_csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as a table."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for row in rows:
        told = report_row(row)
        writer.writerow(cell(told[name]) for name in COLUMNS)
    return out.getvalue().encode("utf-8", "replace")


def as_json(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as a list of objects."""
    return json.dumps([report_row(row) for row in rows], indent=1).encode()
