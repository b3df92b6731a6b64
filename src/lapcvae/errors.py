"""The errors a user can meet. Each message says what is wrong, where, and what to do about it."""

from __future__ import annotations


class LapcvaeError(Exception):
    """Base of every error raised on purpose. `exit_code` is what a command ends with: 1, our mistake."""

    exit_code = 1


class UserError(LapcvaeError):
    """Something the user gave cannot be used: exit code 2."""

    exit_code = 2


class ConfigError(UserError):
    """A parameter is unknown, missing, of the wrong type or out of its range."""


class SourceError(UserError):
    """A source of photographs is missing, truncated, unsafe, or has the wrong digest."""


class DataError(UserError):
    """Data between two stages is missing or does not have the form its reader needs."""


class ExpectationError(UserError):
    """The data set breaks one of the expectations in `params.yaml`."""


class ModelError(UserError):
    """A stored model cannot be loaded: missing, damaged, or of another configuration."""


class StorageError(UserError):
    """An output could not be written: disk full, no permission, path in the way."""


class TrainingError(LapcvaeError):
    """Training cannot go on, for example after repeated non-finite losses."""


class StoppedError(LapcvaeError):
    """SIGINT or SIGTERM ended training; it goes on from a checkpoint. `exit_code` is the shell's, 128 + the signal."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


class PipelineError(LapcvaeError):
    """DVC or a stage it ran failed. `exit_code` is the stage's own, or DVC's where no stage was run."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RegistryError(LapcvaeError):
    """MLflow's registry could not be reached, or does not hold what was asked for."""
