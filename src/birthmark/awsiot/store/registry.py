"""Things, thing types, and which certificate belongs to which thing."""

import json
from typing import Any

from sqlalchemy import JSON, ColumnElement, Executable, Text, and_, bindparam, cast, delete, func, or_, select, update

from birthmark.awsiot.model import PrincipalType, Thing, ThingName
from birthmark.awsiot.store.tables import thing_principals, thing_types, things
from birthmark.store import Statement, from_micros, insert, statement, to_micros
from birthmark.store.database import Row
from birthmark.store.statements import Engine

ADD_THING = insert(things)
GET_THING = statement(select(things).where(things.c.name == bindparam("name")))
LIST_THINGS = statement(
    select(things).where(things.c.name > bindparam("after")).order_by(things.c.name).limit(bindparam("limit"))
)


def _fitting(engine: Engine) -> Executable:
    """Things of a type and with an attribute: of any value, of this value, or of one that begins so."""
    if engine == "sqlite":
        value: ColumnElement[str] = func.json_extract(things.c.attributes, bindparam("path"))
    else:
        value = func.json_extract_path_text(cast(things.c.attributes, JSON), bindparam("attribute", type_=Text))
    match: ColumnElement[str] = bindparam("match", type_=Text)
    wanted: ColumnElement[str] = bindparam("value", type_=Text)
    begins = func.substr(value, 1, func.length(wanted)) == wanted
    return (
        select(things)
        .where(
            things.c.name > bindparam("after"),
            or_(bindparam("type_name") == "", things.c.type_name == bindparam("type_name")),
            or_(
                match == "",
                and_(match == "any", value.is_not(None)),
                and_(match == "equal", value == wanted),
                and_(match == "prefix", begins),
            ),
        )
        .order_by(things.c.name)
        .limit(bindparam("limit"))
    )


FITTING_THINGS = Statement(_fitting)
REPLACE_THING = statement(
    update(things)
    .where(things.c.name == bindparam("key_name"), things.c.version == bindparam("key_version"))
    .values({name: bindparam(name) for name in ("type_name", "attributes", "billing_group", "version")})
)
DELETE_THING = statement(
    delete(things).where(things.c.name == bindparam("name"), things.c.version == bindparam("version"))
)
ONE_OF_TYPE = statement(select(things.c.name).where(things.c.type_name == bindparam("type_name")).limit(1))

ADD_TYPE = insert(thing_types)
GET_TYPE = statement(select(thing_types).where(thing_types.c.name == bindparam("name")))
LIST_TYPES = statement(
    select(thing_types)
    .where(thing_types.c.name > bindparam("after"))
    .order_by(thing_types.c.name)
    .limit(bindparam("limit"))
)
DEPRECATE_TYPE = statement(
    update(thing_types)
    .where(thing_types.c.name == bindparam("key_name"))
    .values(deprecated_at=bindparam("deprecated_at"))
)
DELETE_TYPE = statement(delete(thing_types).where(thing_types.c.name == bindparam("name")))

ATTACH = insert(thing_principals, ignore_existing=True)
DETACH = statement(
    delete(thing_principals).where(
        thing_principals.c.thing == bindparam("thing"),
        thing_principals.c.certificate_id == bindparam("certificate_id"),
    )
)
ATTACHMENT = statement(
    select(thing_principals).where(
        thing_principals.c.thing == bindparam("thing"),
        thing_principals.c.certificate_id == bindparam("certificate_id"),
    )
)
PRINCIPALS_OF = statement(
    select(thing_principals.c.certificate_id, thing_principals.c.kind)
    .where(thing_principals.c.thing == bindparam("thing"), thing_principals.c.certificate_id > bindparam("after"))
    .order_by(thing_principals.c.certificate_id)
    .limit(bindparam("limit"))
)
THINGS_OF = statement(
    select(thing_principals.c.thing, thing_principals.c.kind)
    .where(
        thing_principals.c.certificate_id == bindparam("certificate_id"),
        thing_principals.c.thing > bindparam("after"),
    )
    .order_by(thing_principals.c.thing)
    .limit(bindparam("limit"))
)
EXCLUSIVE_THING_OF = statement(
    select(thing_principals.c.thing)
    .where(
        thing_principals.c.certificate_id == bindparam("certificate_id"),
        thing_principals.c.kind == PrincipalType.EXCLUSIVE.value,
    )
    .limit(1)
)
CERTIFICATES_BETWEEN = statement(
    select(thing_principals.c.thing, thing_principals.c.certificate_id)
    .where(thing_principals.c.thing.between(bindparam("first"), bindparam("last")))
    .order_by(thing_principals.c.thing, thing_principals.c.certificate_id)
    .limit(100_000)
)
THINGS_BETWEEN = statement(
    select(thing_principals.c.certificate_id, thing_principals.c.thing)
    .where(thing_principals.c.certificate_id.between(bindparam("first"), bindparam("last")))
    .order_by(thing_principals.c.certificate_id, thing_principals.c.thing)
    .limit(100_000)
)


def thing_of(row: Row) -> Thing:
    """Return the thing of a row."""
    return Thing(
        ThingName(row["name"]),
        row["thing_id"],
        row["type_name"],
        json.loads(row["attributes"]),
        row["billing_group"],
        row["version"],
        from_micros(row["created_at"]),
    )


def thing_row(thing: Thing) -> dict[str, Any]:
    """Return the row of a thing."""
    return {
        "name": thing.name,
        "thing_id": thing.thing_id,
        "type_name": thing.type_name,
        "attributes": json.dumps(dict(thing.attributes), sort_keys=True),
        "billing_group": thing.billing_group,
        "version": thing.version,
        "created_at": to_micros(thing.created_at),
    }
