"""Errors a user can do something about. Each message names the file, row or key, and the remedy."""

from __future__ import annotations


class R1RankerError(Exception):
    """Base class: the command line prints the message alone and exits with code 1."""


class InputError(R1RankerError):
    """Something handed in (an example, a file's row, an argument) cannot be used as it stands."""


class ConfigError(R1RankerError):
    """A recipe or a `--set` has an unknown key or a value of the wrong kind."""


class AssetError(R1RankerError):
    """A model or a data set could not be fetched, or what is on disk is not what was fetched."""


class CheckpointError(R1RankerError):
    """A checkpoint is incomplete, damaged, or belongs to another run."""


class TrainingError(R1RankerError):
    """A training diverged: it does not go on, and its checkpoints stay."""


class MissingExtraError(R1RankerError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, package: str, extra: str) -> None:
        super().__init__(f"{feature} needs the package '{package}': install it with  pip install 'r1ranker[{extra}]'")
