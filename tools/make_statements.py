"""Write store/compiled/*.json: every statement that a module has, as SQLAlchemy compiles it for each engine.

python tools/make_statements.py [FOLDER]
"""

import gc
import importlib
import json
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import birthmark
from birthmark.store.compiling import compiled_by_sqlalchemy
from birthmark.store.statements import Compiled, Engine, Statement
from birthmark.store.written import digest_of

TARGET = Path(birthmark.__file__).parent / "store" / "compiled"


def _all_statements() -> Iterator[Statement]:
    for module in pkgutil.walk_packages(birthmark.__path__, "birthmark."):
        if ".migrations" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return (one for one in gc.get_objects() if isinstance(one, Statement))


def _as_said(compiled: Compiled) -> Mapping[str, Any]:
    names = ("sql", "order", "fixed", "kinds", "sealed", "opened")
    said = {name: getattr(compiled, name) for name in names}
    assert all(isinstance(one, str | int) for one in compiled.fixed.values()), compiled
    return {name: one for name, one in said.items() if one or name in {"order", "fixed"}}


def made() -> Mapping[Engine, str]:
    """Return the text of each file: a line for each statement, sorted by what it says."""
    statements = list(_all_statements())
    texts: dict[Engine, str] = {}
    for engine in get_args(Engine):
        expressions = {digest_of(one): one for one in (statement.expression(engine) for statement in statements)}
        rows = [(digest, _as_said(compiled_by_sqlalchemy(one, engine))) for digest, one in expressions.items()]
        rows.sort(key=lambda row: (row[1]["sql"], row[0]))
        lines = (f"{json.dumps(digest)}: {json.dumps(said, separators=(',', ':'))}" for digest, said in rows)
        texts[engine] = "{\n" + ",\n".join(lines) + "\n}\n"
    return texts


if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else TARGET
    for engine, text in made().items():
        (target / f"{engine}.json").write_text(text, encoding="utf-8")
        print(f"{engine}: {text.count(chr(10)) - 2} statements")
