"""The scenario that `birthmark swarm init` writes: every key with its description and required values."""

from birthmark.agent.config.setting_catalog import AgentSetting, SettingSection
from birthmark.swarm.model import TargetKind
from birthmark.swarm.scenario.setting_catalog import SECTIONS

_GROUP = "meters"
_SET = {
    "duration": '"60s"',
    "devices": "50",
    "ramp": "25",
    "interval": '"5s"',
}
_HEAD = """# Swarm scenario: simulated devices, their behavior, and the reactions expected from the target.
# Run it: birthmark swarm run FILE. Commented keys show their default, if any.
# Times: "500ms", "10s", "5m", "1h", "30d". Percentages: "5%".
"""


def example(kind: TargetKind) -> str:
    """Return the text of an example scenario."""
    return _HEAD + "".join(_section(section, kind) for section in SECTIONS)


def _section(section: SettingSection, kind: TargetKind) -> str:
    (table,) = section.tables
    head = f"\n[{table.replace('NAME', _GROUP)}]  # {section.title.lower()}\n" if table else "\n"
    return head + "".join(_line(one, kind) for one in section.settings)


def _line(setting: AgentSetting, kind: TargetKind) -> str:
    value = f'"{kind}"' if setting.key == "to" else _SET.get(setting.key)
    told = f"{setting.means} ({setting.takes})"
    if value is not None:
        return f"{setting.key} = {value}  # {told}\n"
    is_value = setting.default[:1] in {'"', "'", "["} or setting.default.replace(".", "").isdigit()
    shown = setting.default.replace("NAME", _GROUP) if is_value else "…"
    return f"# {setting.key} = {shown}  # {told}{'' if is_value or not setting.default else f'; {setting.default}'}\n"
