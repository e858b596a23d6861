"""Settings: typed models, one YAML file, `--set a.b=c`; the resolved file reproduces the run."""

from medssl.config.listing import explained_yaml
from medssl.config.problems import check_options
from medssl.config.resolve import Resolved, as_config, load_config, resolve_config
from medssl.config.setting_rows import SettingRow, setting_rows
from medssl.config.settings import (
    EncoderConfig,
    FinetuneConfig,
    LoopConfig,
    OptimConfig,
    PretrainConfig,
    ProbeConfig,
    SamplingConfig,
    TrackingConfig,
)
from medssl.config.yaml_text import dump_config

__all__ = [
    "EncoderConfig",
    "FinetuneConfig",
    "LoopConfig",
    "OptimConfig",
    "PretrainConfig",
    "ProbeConfig",
    "Resolved",
    "SamplingConfig",
    "SettingRow",
    "TrackingConfig",
    "as_config",
    "check_options",
    "dump_config",
    "explained_yaml",
    "load_config",
    "resolve_config",
    "setting_rows",
]
