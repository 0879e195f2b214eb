"""The agent's configuration: Azure's super-config, read once, mistakes told by file, line and key."""

from birthmark.agent.config.model import (
    AgentConfig,
    DpsSource,
    EstAuth,
    EstIssuance,
    Issued,
    KeyLocation,
    LocalIssuance,
    ManualSource,
    Preloaded,
    TokenSettings,
    X509Pair,
)
from birthmark.agent.config.parse import MAX_CONFIG_BYTES, parse_config, read_config
from birthmark.agent.config.reader import ConfigInvalidError, ConfigMissingError, ConfigUnsupportedError

__all__ = [
    "MAX_CONFIG_BYTES",
    "AgentConfig",
    "ConfigInvalidError",
    "ConfigMissingError",
    "ConfigUnsupportedError",
    "DpsSource",
    "EstAuth",
    "EstIssuance",
    "Issued",
    "KeyLocation",
    "LocalIssuance",
    "ManualSource",
    "Preloaded",
    "TokenSettings",
    "X509Pair",
    "parse_config",
    "read_config",
]
