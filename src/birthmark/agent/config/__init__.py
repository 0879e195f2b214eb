"""Agent configuration: Azure's super-config, read once; errors are reported with file, line, and key."""

from birthmark.agent.config.config_with_drop_ins import read_config
from birthmark.agent.config.model import (
    AgentConfig,
    AwsSource,
    AzureIssuance,
    DpsSource,
    EstIssuance,
    IssuedIdentity,
    LocalIssuance,
    ManualSource,
    PreloadedIdentity,
    SymmetricKeySource,
)
from birthmark.agent.config.parser import parse_config
from birthmark.agent.config.toml_tables import ConfigInvalidError, ConfigMissingError, ConfigUnsupportedError

__all__ = [
    "AgentConfig",
    "AwsSource",
    "AzureIssuance",
    "ConfigInvalidError",
    "ConfigMissingError",
    "ConfigUnsupportedError",
    "DpsSource",
    "EstIssuance",
    "IssuedIdentity",
    "LocalIssuance",
    "ManualSource",
    "PreloadedIdentity",
    "SymmetricKeySource",
    "parse_config",
    "read_config",
]
