"""Recipes: one TOML file a run. Defaults, then the file, then `--set`; a key that does not exist is an error."""

from r1ranker.config.evaluation import ValidationConfig
from r1ranker.config.load import dump_config, load_config, parse_config
from r1ranker.config.model import ModelConfig
from r1ranker.config.ranker import RankerConfig
from r1ranker.config.run import RunConfig
from r1ranker.config.train import RewardConfig, TrainConfig, WarmupConfig

__all__ = [
    "ModelConfig",
    "RankerConfig",
    "RewardConfig",
    "RunConfig",
    "TrainConfig",
    "ValidationConfig",
    "WarmupConfig",
    "dump_config",
    "load_config",
    "parse_config",
]
