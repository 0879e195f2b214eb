"""What operators write into rules and routes, and what devices send to them: a statement, a newline, a message."""

from birthmark.message_routing.routable_message import RoutableMessage
from birthmark.message_routing.rules.conditions import RoutedSubject, holds, parse_condition
from birthmark.message_routing.rules.sql import SqlMistake, TooMuchError, evaluate, fill, parse, parse_template
from support.fakes import SeededEntropy

STATEMENTS = (
    b'SELECT *, topic(2) AS d FROM \'a/+/b\' WHERE temperature > 30 AND NOT state.on\n{"temperature":50,"state":{}}',
    b"SELECT {'n': get(list, 0), 's': [upper(name), 1.5]} AS o.p FROM 'a'\n{\"list\":[1,2],\"name\":\"x\"}",
    b"SET @c = (t - 32) * 5 / 9 SELECT VALUE CASE @c WHEN 10 THEN 'warm' ELSE 'cold' END FROM 'a/#'\n{\"t\":50.5}",
    b'SELECT (SELECT VALUE n FROM e WHERE v >= 2) AS s, encode(*, \'base64\') AS p FROM \'a\'\n{"e":[{"n":1,"v":2}]}',
    b'SELECT regexp_replace(a, \'b(.*)d\', \'$1\') AS r, cast(b as Int) % 7 AS m FROM \'a\'\n{"a":"abcd","b":"9.5"}',
    b"SELECT time_to_epoch('2015-12-18', 'yyyy-MM-dd') AS t, parse_time('EEE z', n, 'Asia/Tokyo') AS w FROM 'a'\n{}",
)
TEMPLATES = (b"$$aws/things/${topic(1)}/${get(a, 'b')}/${ {'k': a} }\n{\"a\":{\"b\":1}}", b'a/${a + 1}\n{"a":1}')
CONDITIONS = (
    b'$body.w.h[0].m = \'Feb\' AND (level IN [\'hot\', "warm"] OR NOT is_defined($twin.tags.floor))\n{"w":{"h":[{}]}}',
    b"as_number(severity) + 0x10 <= 1.5e3 % 7 OR starts_with($connectionDeviceId, 'it\\'s \\u0041')\n{}",
)
_SYSTEM = (("contentType", "application/json"), ("contentEncoding", "utf-8"), ("connectionDeviceId", "pump-1"))


def _parts(data: bytes) -> tuple[str, RoutableMessage]:
    text, _, payload = data.partition(b"\n")
    message = RoutableMessage("a/x/b", payload, user_properties=(("level", "hot"),), system_properties=_SYSTEM)
    return text.decode("utf-8", "surrogateescape"), message


def statement(data: bytes) -> None:
    text, message = _parts(data)
    try:
        evaluate(parse(text), message, entropy=SeededEntropy())
    except (SqlMistake, TooMuchError) as error:
        str(error).encode()


def template(data: bytes) -> None:
    text, message = _parts(data)
    try:
        fill(parse_template(text), message, entropy=SeededEntropy()).encode()
    except (SqlMistake, TooMuchError) as error:
        str(error).encode()


def condition(data: bytes) -> None:
    text, message = _parts(data)
    try:
        holds(parse_condition(text), RoutedSubject(message, {"tags": {"floor": 1}}))
    except (SqlMistake, TooMuchError) as error:
        str(error).encode()
