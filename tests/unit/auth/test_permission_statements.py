"""Who may do what, and where: patterns, denies, and a token that goes less far than who has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.auth.permission_statements import EVERYTHING, NOTHING, Right, Rights, statement_of
from birthmark.iam.model import RIGHTS_OF, RoleAssignment, UserRole, is_place, roles_with

NAMES = st.from_regex("[a-z]{1,4}", fullmatch=True)


def may(role: UserRole, place: str) -> Rights:
    return Rights(((RoleAssignment("anna", role, place).statement,),))


@pytest.mark.parametrize(
    ("role", "rights"),
    [
        (UserRole.VIEWER, "read"),
        (UserRole.ENROLLER, "read enroll"),
        (UserRole.OPERATOR, "read enroll operate revoke"),
        (UserRole.SECURITY_OFFICER, "read revoke trust"),
        (UserRole.ADMIN, "read enroll operate revoke trust administer"),
    ],
)
def test_a_role_has_its_rights_and_no_other(role: UserRole, rights: str) -> None:
    assert {one for one in Right if may(role, "*").allow(one, "hub/x")} == set(rights.split())


@pytest.mark.parametrize("place", ["hub/birthmark", "dps/birthmark", "aws", "server", "hub/birthmark2", "hub/birthmar"])
def test_a_role_counts_where_it_was_given(place: str) -> None:
    assert may(UserRole.ADMIN, "hub/birthmark").allow(Right.READ, place) is (place == "hub/birthmark")


def test_a_deny_wins_wherever_it_stands() -> None:
    allow, deny = statement_of(["*"], ["*"]), statement_of(["re*"], ["hub/*"], allows=False)
    for order in ((allow, deny), (deny, allow)):
        rights = Rights((order,))
        assert not rights.allow("read", "hub/x")
        assert rights.allow("read", "dps/x")
        assert rights.allow("operate", "hub/x")


@given(NAMES, NAMES)
def test_what_nothing_allows_is_denied(action: str, place: str) -> None:
    assert not NOTHING.allow(action, place)
    assert EVERYTHING.allow(action, place)


@given(
    st.sampled_from(UserRole),
    st.sampled_from(UserRole),
    st.sampled_from(Right),
    st.sampled_from(["*", "hub/a", "hub/b"]),
)
def test_a_narrower_token_adds_nothing(role: UserRole, other: UserRole, right: Right, place: str) -> None:
    own, narrow = may(role, "hub/a"), RoleAssignment("anna", other, place).statement
    both = own.within((narrow,))
    for at in ("hub/a", "hub/b", "server"):
        assert both.allow(right, at) is (own.allow(right, at) and may(other, place).allow(right, at))


@pytest.mark.parametrize("text", ["*", "server", "aws", "hub/a", "dps/birthmark.2"])
def test_a_place_has_a_name(text: str) -> None:
    assert is_place(text)


@pytest.mark.parametrize("text", ["", "hub", "hub/", "hub/*", "hub/a/b", "hub/?", "* ", "HUB/a", "aws/1", "hub/a\n"])
def test_nothing_else_is_a_place(text: str) -> None:
    assert not is_place(text)


def test_every_right_is_some_roles() -> None:
    assert all(roles_with(right) for right in Right)
    assert set(RIGHTS_OF) == set(UserRole)
