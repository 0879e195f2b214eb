"""One word, one meaning: what was retired stays away, and the glossary has what is used."""

import re
from pathlib import Path

import pytest

import birthmark

TOP = Path(birthmark.__file__).parents[2]
SOURCES = {path: path.read_text() for path in (TOP / "src").rglob("*.py") if "migrations" not in path.parts}
GLOSSARY = (TOP / "docs" / "reference" / "glossary.md").read_text()

RETIRED = {
    r"\bMqttLink\b": "MqttDriver: a link is a device's way out",
    r"\b\w+_links\b = HubConnections": "hub_connections",
    r"\b(Hub|Aws|Dps|Mqtt)Session\b": "a connection's handler is a connection; a session outlives connections",
    r"\bshown: (str|Certificate|object)\b": "presented, printable or view",
    r"\bshown=\b(?!line|f')": "presented, printable or view",
    r"\bdef shown\b": "printable",
    r"\b(Doors|DeviceWish|Happened|Shares|_spokesman)\b": "the field's word",
    r"\bfingerprint\b(?!\()": "thumbprint",
    r"\bfactory cert\b|\bop cert\b": "IDevID, LDevID",
    r"\benrol(?!l)|\bauthoris": "American spelling",
}


@pytest.mark.parametrize("pattern", RETIRED)
def test_a_retired_word_is_not_used(pattern: str) -> None:
    found = [
        f"{path.relative_to(TOP)}: {line.strip()}"
        for path, text in SOURCES.items()
        if "/demo/" not in str(path)  # what a demo shows is shown
        for line in text.splitlines()
        if re.search(pattern, line)
    ]
    assert found == [], RETIRED[pattern]


def test_no_command_that_is_said_goes_on_to_remove_where_a_step_before_it_failed() -> None:
    removal = r";\s*(sudo )?(birthmark [^`;&]*\b(rm|revoke|retire|rotate)\b|rm |userdel )"
    joined = {path: re.sub(r"[\"']\s*\n\s*f?[\"']", "", text) for path, text in SOURCES.items()}
    found = {
        str(path.relative_to(TOP)): match.group()
        for path, text in joined.items()
        if (match := re.search(removal, text))
    }
    assert found == {}


@pytest.mark.parametrize("user", ["birthmark", "birthmark-agent"])
def test_a_user_is_removed_once_nothing_is_its_groups_either_which_goes_with_it(user: str) -> None:
    page = (TOP / "docs" / "howto" / "install.md").read_text()
    assert f"`userdel {user}`" in page
    assert f"`find / \\( -user {user} -o -group {user} \\)`" in page
    assert f"-user {user}`" not in page


@pytest.mark.parametrize(
    "word",
    ["enroll", "register", "issue", "thumbprint", "connection", "session", "link", "presented", "printable", "view"],
)
def test_the_glossary_says_what_a_word_means(word: str) -> None:
    assert re.search(rf"^\| [^|]*\b{word}\b[^|]* \| [^|]+ \| [^|]+ \| [^|]* \|$", GLOSSARY, re.MULTILINE)


def test_the_table_for_those_who_know_it_elsewhere_names_commands_that_there_are() -> None:
    commands = (TOP / "docs" / "reference" / "commands.md").read_text()
    named = {" ".join(words.split()[:2]) for words in re.findall(r"`birthmark ([a-z]+(?: [a-z-]+)?)", GLOSSARY)}
    single = {"env", "serve"}
    assert [one for one in named if one.split()[0] not in single and f"birthmark {one}" not in commands] == []
