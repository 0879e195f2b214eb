"""The page of what is trusted says who reaches the port for people."""

from pathlib import Path

from birthmark.server.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "security.md"


def test_the_boundaries_name_the_port_for_people_of_other_machines() -> None:
    (person,) = [line for line in PAGE.read_text().splitlines() if line.startswith("| a user |")]
    assert f"port {Settings().ports.console} (every address)" in person
