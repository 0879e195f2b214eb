"""A template says what each device of a list gets; what it cannot say is told with its line."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.fleet.enrollment_template import (
    NAMES,
    NAMES_OF_INTAKE,
    NameNotAllowedError,
    TemplateInvalidError,
    TemplateUnfilledError,
    check_name,
    example,
    facts_of,
    parse_template,
)
from birthmark.manifests.manifest_entry import ManifestEntry, UnreadCertificate
from support.fakes import NOON
from support.pki.pki_builders import a_device

DEVICE = a_device(common_name="sn0123").certificate
ENTRY = ManifestEntry(
    "0123", "ATECC608C", "ATECC608C-TNGTLS", None, NOON, "a signer", DEVICE.der, "sn0123", None, ("0",)
)
UNREAD = UnreadCertificate(DEVICE.der, "sn0123", DEVICE.thumbprint)
FILE = Path("template.toml")


def test_an_unread_certificate_is_the_read_one() -> None:
    assert (UNREAD.pem(), UNREAD.thumbprint, UNREAD.subject_cn) == (DEVICE.pem(), DEVICE.thumbprint, DEVICE.subject_cn)


def test_the_example_is_a_template_and_is_filled_in() -> None:
    wish = parse_template(example(), FILE).wish(ENTRY, 7, UNREAD)
    assert (wish.device_id, wish.is_edge) == ("gateway-0123", True)
    assert (wish.tags, wish.desired) == ({"site": "Osaka", "part": "ATECC608C-TNGTLS"}, {"interval": 30})
    assert (wish.policy, wish.thing_type, wish.groups) == ("device", "gateway", ("line-3",))
    assert wish.attributes == {"part": "ATECC608C-TNGTLS"}


def test_without_one_a_device_is_called_as_its_certificate() -> None:
    wish = parse_template("", FILE).wish(ENTRY, 1, UNREAD)
    assert (wish.device_id, wish.tags, wish.policy, wish.groups) == ("sn0123", {}, None, ())


@pytest.mark.parametrize(("is_azure", "name"), [(True, "gate 7"), (True, "line/7"), (False, "gate.7"), (False, "")])
def test_a_name_that_the_cloud_does_not_take_is_told_before_it_is_asked(is_azure: bool, name: str) -> None:
    with pytest.raises(NameNotAllowedError):
        check_name(name, is_azure=is_azure)
    check_name("gate_7:-", is_azure=is_azure)


def test_what_the_example_says_may_be_named_is_what_there_is() -> None:
    assert tuple(facts_of(ENTRY, 1)) == NAMES + NAMES_OF_INTAKE
    assert all(f"{{{name}}}" in example() for name in facts_of(ENTRY, 1))


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('device_id = "{uid}"', 1, "{uid} is not a variable"),
        ("\n[azure]\nedg = true", 3, "azure.edg is not known; edge is"),
        ("[azure]\nedge = 1", 2, "azure.edge must be true or false, not a whole number"),
        ('aws = "device"', 1, "aws must be a table, not a string"),
        ('device_id = "{csv.}"', 1, "csv.NAME"),
        ('[aws]\n\ngroups = ["{board", "b"]', 3, "for a literal brace"),
        ('device_id = "{number:99999999}"', 1, "a width"),
        ('device_id = "{unique_id.__class__}"', 1, "{unique_id.__class__} is not a variable"),
        ('device_id = "{unique_id!r}"', 1, "must have nothing after its name"),
        ('device_id = "d"\n\n[azure]\n$edge = true', 4, "Invalid statement"),
        ("[azure.tags]\nmade = 2026-01-01", 2, "write it as a text"),
        ("device_id = ", 1, "Invalid"),
        ('device_id = ""', 1, "has a name"),
        ('[aws]\nthing_type = ""', 2, "has a name"),
        ('[aws]\ngroups = ["a", ""]', 2, "has a name"),
        ("[azure.desired]\nlimit = inf", 2, "write it as a text"),
        ("[azure.desired]\nlimit = 9007199254740993", 2, "out of range"),
        ('[azure.tags]\n"$x" = 1', 2, "not allowed"),
        (f"[azure.tags]\n{'.'.join('a' * 20_000)} = 1", 2, "more than 64 parts"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(TemplateInvalidError) as refused:
        parse_template(text, FILE)
    assert refused.value.facts["line"] == str(line)
    assert said in refused.value.explain_cause()


def test_what_an_entry_has_not_is_told_and_not_left_out() -> None:
    with pytest.raises(TemplateUnfilledError) as refused:
        parse_template('[azure.tags]\nboard = "{board}"', FILE).wish(ENTRY, 1, UNREAD)
    assert "azure.tags.board" in refused.value.explain_cause()


def test_a_table_s_own_columns_may_be_named_as_they_stand_there() -> None:
    entry = replace(ENTRY, columns=(("site_name", "Osaka {x}"), ("serial", "S1")))
    template = parse_template('device_id = "{csv.serial}"\n[azure.tags]\nsite = "{csv.Site Name}"', FILE)
    wish = template.wish(entry, 1, UNREAD)
    assert (wish.device_id, wish.tags) == ("S1", {"site": "Osaka {x}"})


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ((("line", "3"),), "its table has line"),
        ((), "the list is not a table"),
        ((("site", ""),), "an empty csv.site,"),
    ],
)
def test_a_column_that_is_not_there_is_told_with_those_that_are(
    columns: tuple[tuple[str, str], ...], said: str
) -> None:
    with pytest.raises(TemplateUnfilledError) as refused:
        parse_template('device_id = "{csv.site}"', FILE).wish(replace(ENTRY, columns=columns), 1, UNREAD)
    assert said in refused.value.explain_cause()


def test_a_name_that_would_be_empty_is_not_there() -> None:
    with pytest.raises(TemplateUnfilledError):
        parse_template('device_id = "{model}"', FILE).wish(replace(ENTRY, model=""), 1, UNREAD)


def test_a_number_has_the_width_that_is_asked_for() -> None:
    assert parse_template('device_id = "d{number:06}"', FILE).wish(ENTRY, 7, UNREAD).device_id == "d000007"


@given(st.text(max_size=200))
def test_any_text_is_a_template_or_is_refused(text: str) -> None:
    try:
        template = parse_template(text, FILE)
    except TemplateInvalidError:
        return
    try:
        template.wish(ENTRY, 1, UNREAD)
    except TemplateUnfilledError:
        return
