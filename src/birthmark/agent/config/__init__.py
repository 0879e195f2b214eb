"""The agent's configuration: Azure's super-config, read once, mistakes told by file, line and key."""

from birthmark.agent.config.model import (
    AgentConfig,
    DpsSource,
    EstIssuance,
    Issued,
    LocalIssuance,
    ManualSource,
    Preloaded,
)
from birthmark.agent.config.parse import parse_config, read_config
from birthmark.agent.config.reader import ConfigInvalidError, ConfigMissingError, ConfigUnsupportedError

__all__ = [
    "AgentConfig",
    "ConfigInvalidError",
    "ConfigMissingError",
    "ConfigUnsupportedError",
    "DpsSource",
    "EstIssuance",
    "Issued",
    "LocalIssuance",
    "ManualSource",
    "Preloaded",
    "parse_config",
    "read_config",
]
