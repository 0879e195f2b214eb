"""SQL parser (developer guide, AWS IoT SQL reference).

Input: at most `MAX_SQL_BYTES` of UTF-8, `MAX_TERMS` terms, nested `MAX_NESTING` deep. Output: `syntax.Select`, or for a
template one expression and the end of its text. Raises `SqlMistake` with position, problem and suggestion. Functions
that require another AWS service are rejected by name, so that a rule that could not run is never accepted.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, is_dataclass, replace
from decimal import Decimal
from typing import Any, NoReturn

from birthmark.message_routing.rules.sql.errors import SqlMistake, mistake
from birthmark.message_routing.rules.sql.functions import ELSEWHERE, FUNCTIONS, check_arguments
from birthmark.message_routing.rules.sql.lexer import SqlToken, SqlTokenKind, next_token
from birthmark.message_routing.rules.sql.syntax_tree import (
    ArrayOf,
    CaseExpression,
    CastExpression,
    Chain,
    ComparisonExpression,
    Disjunction,
    Exists,
    Expression,
    FunctionCall,
    InExpression,
    Negative,
    NotExpression,
    ObjectOf,
    ObjectSpread,
    PathExpression,
    Select,
    SelectAll,
    SelectItem,
    SqlLiteral,
    SqlQuery,
    Star,
    Variable,
    Version,
)
from birthmark.message_routing.rules.sql.values import CONTEXT, UNDEFINED, Meter, number_of, whole

MAX_SQL_BYTES = 256 * 1024
"""AWS IoT Core quotas: size of a rule document."""
MAX_TERMS = 2000
MAX_NESTING = 32
MAX_VARIABLE_CHARS = 64
MAX_FILTER_BYTES = 256
MAX_FILTER_SLASHES = 7

_RESERVED = frozenset({"SELECT", "FROM", "WHERE", "AS", "AND", "OR", "NOT", "CASE", "WHEN", "THEN", "ELSE", "END"})
"""Reserved words, which are attribute names only after a dot."""
_ANSI: Mapping[str, str] = {
    "LIKE": "Write regexp_matches(text, pattern), or startswith, endswith, indexof.",
    "BETWEEN": "Write a >= 1 AND a <= 2.",
    "IS": "Write isNull(a) or isUndefined(a).",
    "GROUP": "A rule sees one message at a time: leave it out.",
    "ORDER": "A rule sees one message at a time: leave it out.",
    "HAVING": "A rule sees one message at a time: leave it out.",
    "LIMIT": "A rule sees one message at a time: leave it out.",
    "JOIN": "A rule sees one message at a time: make two rules.",
    "UNION": "A rule sees one message at a time: make two rules.",
}
_COMPARISONS = frozenset({"=", "<>", "<", "<=", ">", ">="})
_CASTS: Mapping[str, str] = {
    **dict.fromkeys(("string", "nvarchar", "text", "ntext", "varchar"), "string"),
    **dict.fromkeys(("int", "integer"), "int"),
    "double": "double",
}
_CASTS_2016: Mapping[str, str] = {**_CASTS, "decimal": "decimal", "bool": "boolean", "boolean": "boolean"}
_CONSTANTS: Mapping[str, object] = {"TRUE": True, "FALSE": False, "NULL": None, "UNDEFINED": UNDEFINED}


def parse_version(text: str) -> Version:
    """Return the SQL version that a rule specifies. Raise `SqlMistake`."""
    try:
        return Version(text)
    except ValueError:
        pass
    if text == "beta":
        mistake(0, "The version beta changes without notice, and is not served.", "Write 2016-03-23.")
    return mistake(0, "This SQL version does not exist.", "Write 2016-03-23, or 2015-10-08.")


class SqlParser:
    """Parser of one text."""

    def __init__(
        self, text: str, version: Version, variables: Collection[str] | None, meter: Meter, position: int = 0
    ) -> None:
        """`variables` are the known variable names; None accepts any, for a template without its rule.

        `meter` limits the cost of compiling patterns.
        """
        self._text, self._version, self._meter = text, version, meter
        self._terms = self._depth = 0
        self._known = None if variables is None else set(variables)
        self._token = next_token(text, position)

    @property
    def here(self) -> SqlToken:
        """Return the next token."""
        return self._token

    @property
    def terms(self) -> int:
        """Return the number of terms parsed."""
        return self._terms

    def statement(self) -> Select:
        """Parse the complete SQL statement of a rule."""
        try:
            return self._statement()
        except RecursionError:  # the caller's stack may already be deep
            return mistake(self._token.where, "The statement is nested too deeply.", "Make two rules of it.")

    def _statement(self) -> Select:
        variables = self._set() if self._token.word == "SET" else ()
        if self._token.word != "SELECT":
            mistake(self._token.where, "A statement begins with SELECT, or with SET.", "Write SELECT * FROM 'a/b'.")
        self._advance()
        is_value, items = self._items()
        topic_filter = None
        if self._token.word == "FROM":
            self._advance()
            topic_filter = self._filter()
        where = None
        if self._token.word == "WHERE":
            self._advance()
            where = self._expression()
        if self._token.word == "SET":
            mistake(self._token.where, "SET stands once, before SELECT.", "Write SET @a = 1, @b = 2 SELECT ….")
        if self._token.kind is not SqlTokenKind.END:
            self._unexpected("the end of the statement, FROM, WHERE or an operator")
        return Select(variables, is_value, items, topic_filter, where)

    def expression(self) -> Expression:
        """Parse one expression; text after it is not read."""
        try:
            return self._expression()
        except RecursionError:
            return mistake(self._token.where, "The expression is nested too deeply.", "Make it shorter.")

    # Clauses

    def _set(self) -> tuple[tuple[str, Expression], ...]:
        self._advance()
        made: list[tuple[str, Expression]] = []
        self._known = set()
        while True:
            name = self._token
            if name.kind is not SqlTokenKind.VARIABLE:
                self._unexpected("a variable such as @celsius")
            if len(name.text) - 1 > MAX_VARIABLE_CHARS:
                mistake(name.where, "A variable's name is longer than 64 characters.", "Give it a shorter one.")
            if name.text in self._known:
                mistake(name.where, f"{name.text} is set twice.", "Give the second one another name.")
            self._advance()
            self._expect("=")
            made.append((name.text, self._expression()))
            self._known.add(name.text)
            if not self._took(","):
                return tuple(made)

    def _items(self) -> tuple[bool, tuple[SelectItem | ObjectSpread, ...]]:
        if self._is_value_keyword():
            self._advance()
            value = self._star_or_expression()
            if self._token.text == ",":
                mistake(self._token.where, "SELECT VALUE selects one thing.", "Put several values in an array: [a, b].")
            if self._token.word == "AS":
                mistake(self._token.where, "What SELECT VALUE selects has no name.", "Leave AS out, or VALUE.")
            return True, (SelectItem(value, None),)
        items: list[SelectItem | ObjectSpread]
        items = [self._item()]
        while self._took(","):
            items.append(self._item())
        return False, tuple(items)

    def _is_value_keyword(self) -> bool:
        """Return whether VALUE is a keyword here, not an attribute."""
        if self._token.word != "VALUE":
            return False
        follows = self._after()
        if follows.text == "*" and follows.kind is SqlTokenKind.SIGN:
            behind = next_token(self._text, follows.end)  # `value * 2` is arithmetic
            return behind.kind is SqlTokenKind.END or behind.word in {"FROM", "WHERE", "AS"}
        if follows.kind is SqlTokenKind.SIGN:
            return follows.text in {"(", "[", "{"}
        return follows.kind is not SqlTokenKind.END and follows.word not in _RESERVED - {"CASE", "NOT"}

    def _item(self) -> SelectItem | ObjectSpread:
        where = self._token.where
        value = self._star_or_expression()
        if isinstance(value, Star) and self._token.word != "AS":
            return ObjectSpread(value)
        if self._is_sign(".") and self._after().text == "*":
            if not isinstance(value, PathExpression | Variable | FunctionCall | SqlQuery | ObjectOf):
                mistake(where, "Only an object has members to select.", "Write a.*, or give the value a name by AS.")
            self._advance()
            self._advance()
            if self._token.word == "AS":
                mistake(where, "The members of an object have names already.", "Leave AS or .* out.")
            return ObjectSpread(value)
        if self._token.word == "AS":
            self._advance()
            return SelectItem(value, self._alias())
        if (name := _name_of(value)) is None:
            mistake(where, "The selected expression has no default name.", "Give it one: … AS name.")
        return SelectItem(value, (name,))

    def _alias(self) -> tuple[str, ...]:
        names = [self._alias_part()]
        while self._took("."):
            if len(names) == MAX_NESTING:
                mistake(self._token.where, "A name has more than 32 parts.", "Give it fewer.")
            names.append(self._alias_part())
        return tuple(names)

    def _alias_part(self) -> str:
        token = self._token
        if token.kind not in {SqlTokenKind.NAME, SqlTokenKind.STRING} or not token.text:
            self._unexpected("a name")
        self._advance()
        return token.text

    def _filter(self) -> str:
        token = self._token
        if token.kind is not SqlTokenKind.STRING or token.quote != "'":
            mistake(token.where, "FROM takes a topic filter in single quotes.", "Write FROM 'a/+/b'.")
        self._advance()
        check_filter(token.text, token.where)
        return token.text

    # Expressions, weakest operator first

    def _expression(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_NESTING:
            mistake(self._token.where, "The statement is nested deeper than 32 levels.", "Make two rules of it.")
        made = self._either()
        self._depth -= 1
        return made

    def _star_or_expression(self) -> Expression:
        if not self._is_sign("*"):
            return self._expression()
        self._count()
        self._advance()
        return Star()

    def _either(self) -> Expression:
        parts = [self._all()]
        while self._token.word == "OR":
            self._advance()
            parts.append(self._all())
        return Disjunction(tuple(parts)) if len(parts) > 1 else parts[0]

    def _all(self) -> Expression:
        parts = [self._not()]
        while self._token.word == "AND":
            self._advance()
            parts.append(self._not())
        return SelectAll(tuple(parts)) if len(parts) > 1 else parts[0]

    def _not(self) -> Expression:
        times = 0
        while self._token.word == "NOT":
            self._advance()
            self._count()
            times += 1
        made = self._comparison()
        # NOT NOT differs from none: it makes a value that is not boolean undefined.
        for _ in range(min(times, 2 - times % 2)):
            made = NotExpression(made)
        return made

    def _comparison(self) -> Expression:
        left = self._sum()
        while self._token.kind is SqlTokenKind.SIGN and (sign := self._token).text in _COMPARISONS:
            if isinstance(left, ComparisonExpression):
                mistake(sign.where, "Comparisons cannot be chained.", "Write a < b AND b < c.")
            self._advance()
            left = ComparisonExpression(sign.text, left, self._sum())
        if self._token.word == "IN":
            left = self._in(left)
        if self._token.text == "!=":
            mistake(self._token.where, "Not equal is written otherwise.", "Write <>.")
        if (advice := _ANSI.get(self._token.word)) is not None:
            mistake(self._token.where, f"The language has no {self._token.word}.", advice)
        return left

    def _in(self, left: Expression) -> InExpression:
        self._need_2016(self._token, "IN")
        self._advance()
        if self._is_sign("(") and self._after().kind in {SqlTokenKind.NUMBER, SqlTokenKind.STRING}:
            mistake(self._token.where, "IN looks in an array.", "Write a IN ['x', 'y'], or the name of an array.")
        return InExpression(left, self._sum())

    def _sum(self) -> Expression:
        return self._chain(
            frozenset("+-"),
            self._product,
        )

    def _product(self) -> Expression:
        return self._chain(
            frozenset("*/%"),
            self._sign,
        )

    def _chain(self, signs: frozenset[str], part: Callable[[], Expression]) -> Expression:
        first = part()
        rest = []
        while self._token.kind is SqlTokenKind.SIGN and (sign := self._token.text) in signs:
            self._advance()
            rest.append((sign, part()))
        return Chain(first, tuple(rest)) if rest else first

    def _sign(self) -> Expression:
        times = 0
        while self._token.kind is SqlTokenKind.SIGN and self._token.text == "-":
            self._advance()
            self._count()
            times += 1
        made = self._postfix()
        for _ in range(min(times, 2 - times % 2)):
            made = _negative(made)
        return made

    def _postfix(self) -> Expression:
        made = self._primary()
        names: list[str] = list(made.names) if isinstance(made, PathExpression) and made.of is None else []
        of = None if names else made
        while self._is_sign(".") and self._after().text != "*":
            self._advance()
            token = self._token
            if token.kind is not SqlTokenKind.NAME:
                mistake(token.where, "A member's name is expected.", "Others are read by get(object, 'name').")
            self._count()
            self._advance()
            names.append(token.text)
        if self._token.text == "[" and self._token.kind is SqlTokenKind.SIGN:
            mistake(self._token.where, "The language has no subscripts.", "Write get(array, 0).")
        if names:
            return PathExpression(tuple(names), of)
        return made

    def _primary(self) -> Expression:
        token = self._token
        self._count()
        match token.kind:
            case SqlTokenKind.NUMBER:
                self._advance()
                return SqlLiteral(self._number(token))
            case SqlTokenKind.STRING:
                self._advance()
                return SqlLiteral(token.text)
            case SqlTokenKind.VARIABLE:
                if self._known is not None and token.text not in self._known:
                    mistake(token.where, f"{token.text} is not set.", "Begin the statement with SET @name = ….")
                self._advance()
                return Variable(token.text)
            case SqlTokenKind.NAME:
                return self._word(token)
            case SqlTokenKind.SIGN:
                return self._signed(
                    token,
                )
            case SqlTokenKind.HEX | SqlTokenKind.END:
                pass
        return self._unexpected("a value")

    def _signed(self, token: SqlToken) -> Expression:
        match token.text:
            case "(":
                self._advance()
                made = self._query() if self._token.word == "SELECT" else self._expression()
                self._expect(")")
                return made
            case "[":
                self._need_2016(token, "An array")
                self._advance()
                return ArrayOf(self._list("]"))
            case "{":
                self._need_2016(token, "An object")
                return self._object()
            case _:
                return self._unexpected("a value")

    def _word(self, token: SqlToken) -> Expression:
        word = token.word
        if word == "CASE":
            return self._case()
        if word == "CAST" and self._after().text == "(":
            return self._cast()
        if word == "EXISTS" and self._after().text == "(":
            return self._exists()
        if self._after().text == "(" and self._after().kind is SqlTokenKind.SIGN and word not in _RESERVED:
            return self._call(token)
        if word in _CONSTANTS:
            self._advance()
            return SqlLiteral(_CONSTANTS[word])
        if word in _RESERVED:
            self._unexpected("a value")
        self._advance()
        return PathExpression((token.text,))

    def _exists(self) -> Exists:
        self._advance()
        self._expect("(")
        if self._token.word != "SELECT":
            mistake(self._token.where, "EXISTS takes a query.", "Write EXISTS (SELECT * FROM array AS a WHERE a = 3).")
        query = self._query()
        self._expect(")")
        return Exists(query)

    def _query(self) -> SqlQuery:
        self._need_2016(self._token, "A nested query")
        began = self._terms
        self._advance()
        is_value, items = self._items()
        if self._token.word != "FROM":
            mistake(self._token.where, "A nested query needs FROM.", "Write (SELECT a FROM array).")
        self._advance()
        source = self._star_or_expression()
        element = None
        if self._token.word == "AS":
            self._advance()
            element = self._token.text
            self._expect_name()
        where = None
        if self._token.word == "WHERE":
            self._advance()
            where = self._expression()
        if element is not None:
            items, where = _named(items, element), _named(where, element)
        return SqlQuery(is_value, items, source, where, self._terms - began + 1)

    def _case(self) -> CaseExpression:
        self._advance()
        if self._token.word == "WHEN":
            mistake(self._token.where, "CASE compares a value.", "Write CASE true WHEN a > 5 THEN … END.")
        value = self._expression()
        whens = []
        while self._token.word == "WHEN":
            self._advance()
            candidate = self._expression()
            self._expect_word("THEN")
            whens.append((candidate, self._expression()))
        if not whens:
            self._unexpected("WHEN")
        otherwise = None
        if self._token.word == "ELSE":
            self._advance()
            otherwise = self._expression()
        self._expect_word("END")
        return CaseExpression(value, tuple(whens), otherwise)

    def _cast(self) -> CastExpression:
        self._advance()
        self._expect("(")
        value = self._expression()
        self._expect_word("AS")
        token = self._token
        kinds = _CASTS if self._version is Version.V2015_10_08 else _CASTS_2016
        kind = kinds.get(token.text.lower()) if token.kind is SqlTokenKind.NAME else None
        if kind is None:
            return mistake(token.where, "cast() knows no such type in this version.", f"Write {', '.join(kinds)}.")
        self._advance()
        self._expect(")")
        return CastExpression(value, kind)

    def _call(self, token: SqlToken) -> FunctionCall:
        name = token.text.lower()
        if (instead := ELSEWHERE.get(name)) is not None:
            mistake(token.where, f"{name}() requires a service that this server does not provide.", instead)
        function = FUNCTIONS.get(name)
        if function is None:
            return mistake(
                token.where, f"Function {name[:64]}() does not exist.", "Take one of docs/reference/rules-sql.md."
            )
        if function.since is Version.V2016_03_23 and self._version is Version.V2015_10_08:
            mistake(token.where, f"{name}() requires version 2016-03-23.", "Set awsIotSqlVersion to it.")
        self._advance()
        self._advance()
        arguments = self._list(")")
        check_arguments(name, arguments, token.where, self._meter)
        return FunctionCall(name, arguments, token.where)

    def _list(self, closing: str) -> tuple[Expression, ...]:
        items: list[Expression] = []
        if self._took(closing):
            return ()
        while True:
            items.append(self._star_or_expression())
            if self._took(closing):
                return tuple(items)
            self._expect(",", f"a comma or {closing}")

    def _object(self) -> ObjectOf:
        self._advance()
        pairs: list[tuple[str, Expression]] = []
        while not self._took("}"):
            if pairs:
                self._expect(",", "a comma or }")
            key = self._token
            if key.kind is not SqlTokenKind.STRING:
                mistake(key.where, "A key of an object is a string.", "Write {'name': value}.")
            self._advance()
            self._expect(":")
            pairs.append((key.text, self._star_or_expression()))
        return ObjectOf(tuple(pairs))

    # Words

    def _number(self, token: SqlToken) -> int | Decimal:
        value = number_of(token.text.replace("+", ""))
        if value is UNDEFINED:
            return mistake(token.where, "A number is out of range.", "The largest decimal is 9.9E999.")
        assert isinstance(value, int | Decimal)  # noqa: S101 - matched by NUMBER
        if isinstance(value, Decimal):
            is_int = token.text.isdigit() or self._version is Version.V2016_03_23
            return whole(value) if is_int else value
        return value

    def _need_2016(self, token: SqlToken, what: str) -> None:
        if self._version is Version.V2015_10_08:
            mistake(token.where, f"{what} requires version 2016-03-23.", "Set awsIotSqlVersion to it.")

    def _count(self) -> None:
        self._terms += 1
        if self._terms > MAX_TERMS:
            mistake(self._token.where, "The statement has more than 2000 terms.", "Make two rules of it.")

    def _advance(self) -> None:
        self._token = next_token(self._text, self._token.end)

    def _after(self) -> SqlToken:
        try:
            return next_token(self._text, self._token.end)
        except SqlMistake:
            return SqlToken(SqlTokenKind.END, "", len(self._text), len(self._text))

    def _is_sign(self, sign: str) -> bool:
        return self._token.kind is SqlTokenKind.SIGN and self._token.text == sign

    def _took(self, sign: str) -> bool:
        if self._is_sign(sign):
            self._advance()
            return True
        return False

    def _expect(self, sign: str, expected: str = "") -> None:
        if not self._took(sign):
            self._unexpected(expected or sign)

    def _expect_word(self, word: str) -> None:
        if self._token.word != word:
            self._unexpected(word)
        self._advance()

    def _expect_name(self) -> None:
        if self._token.kind is not SqlTokenKind.NAME or self._token.word in _RESERVED:
            self._unexpected("a name")
        self._advance()

    def _unexpected(self, expected: str) -> NoReturn:
        token = self._token
        found = "end of text" if token.kind is SqlTokenKind.END else f"{token.text[:64]!r}"
        if token.word in _ANSI:
            mistake(token.where, f"The language has no {token.word}.", _ANSI[token.word])
        if token.text == "*" and token.kind is SqlTokenKind.SIGN:
            mistake(
                token.where,
                "The complete payload is not allowed here.",
                "Write encode(*, 'base64').",
            )
        mistake(token.where, f"Unexpected {found}.", f"Write {expected}.")


def _name_of(value: Expression) -> str | None:
    """Return the default name of a selected expression without AS, or None."""
    match value:
        case PathExpression(names=names):
            return names[-1]
        case FunctionCall(name=name):
            return name
        case Variable(name=name):
            return name[1:]
        case _:
            return None


def _named(node: Any, element: str) -> Any:
    """Return a nested query with its element name resolved: `FROM array AS a`."""
    match node:
        case PathExpression(names=(first, *rest), of=None) if first == element:
            return PathExpression(tuple(rest), Star()) if rest else Star()
        case SqlQuery():  # names inside it refer to its own elements
            return replace(node, source=_named(node.source, element))
        case tuple():
            return tuple(_named(one, element) for one in node)
        case _ if is_dataclass(node) and not isinstance(node, type):
            return replace(node, **{one.name: _named(getattr(node, one.name), element) for one in fields(node)})
        case _:
            return node


def _negative(value: Expression) -> Expression:
    match value:
        case SqlLiteral(value=int() | Decimal() as number) if not isinstance(number, bool):
            return SqlLiteral(-number if isinstance(number, int) else CONTEXT.minus(number))
        case _:
            return Negative(value)


def check_filter(text: str, position: int) -> None:
    """Raise `SqlMistake` for an invalid topic filter."""
    if not text or len(text.encode()) > MAX_FILTER_BYTES:
        mistake(position, "A topic filter has 1 to 256 bytes.", "Write FROM 'a/+/b'.")
    levels = text.split("/")
    if len(levels) - 1 > MAX_FILTER_SLASHES + (3 if text.startswith("$aws/rules/") else 0):
        mistake(position, "A topic filter has at most 7 slashes.", "Use # for all that follows.")
    if "\x00" in text:
        mistake(position, "A topic filter has no NUL.", "Leave it out.")
    for at, level in enumerate(levels):
        if ("#" in level and (level != "#" or at != len(levels) - 1)) or ("+" in level and level != "+"):
            mistake(
                position,
                "A wildcard must be a complete level, and # must be the last level.",
                "Write 'a/+/b' or 'a/#'.",
            )
