"""docs/reference/limits.md says what the code does: every row of it, and every setting."""

from birthmark.dps import mqtt as dps_mqtt
from birthmark.iothub.mqtt import admission as hub_mqtt
from birthmark.net import listener
from support.tools_pages import limits_tool

TOOL = limits_tool()
SOURCE = TOOL.SOURCE.read_text()
HEADS = ("| name", "| limit", "| what", "| path", "| port", "| service")


def test_the_page_is_what_the_code_has() -> None:
    assert TOOL.page() == TOOL.TARGET.read_text(), "run: python tools/make_limits.py"


def test_every_row_reads_its_limit_from_the_code() -> None:
    rows = [line for line in SOURCE.splitlines() if line.startswith("| ") and not line.startswith(HEADS)]
    assert [row for row in rows if "{{" not in row.split(" | ")[1]] == []


def test_every_setting_has_its_row() -> None:
    assert TOOL.not_named() == set()


def test_deadlines_are_checked_as_often_as_the_page_says() -> None:
    assert listener._SWEEP_S == 0.5
    assert "checked every 0.5 s" in SOURCE
    assert hub_mqtt.MAX_KEEP_ALIVE_S == dps_mqtt.MAX_KEEP_ALIVE_S
