"""Errors that a user can mend: one line each, with place, value, what is accepted and the repair."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class RobustmmError(Exception):
    """Base of every error that is the user's to mend; the command line prints it without a traceback."""

    exit_code = 2


class ConfigError(RobustmmError):
    """Everything wrong with a configuration, all at once.

    Args:
        problems: One line per problem, as ``file:line:column  key: what is wrong``.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DataError(RobustmmError):
    """A data set is missing, unreadable or breaks the data contract."""


class ShapeError(RobustmmError):
    """Tensors or feature maps do not fit together."""


class CheckpointError(RobustmmError):
    """A checkpoint or run folder is missing, damaged or belongs to another configuration."""


class PluginError(RobustmmError):
    """A plugin clashes with another one, or failed while ``ROBUSTMM_STRICT_PLUGINS`` is set."""

    exit_code = 3


class RunFailed(RobustmmError):
    """Training stopped for a reason that lies in the run: a non-finite loss, for example."""

    exit_code = 1


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return ``" - did you mean 'x'?"`` for the closest known word, or an empty string."""
    close = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f" - did you mean '{close[0]}'?" if close else ""
