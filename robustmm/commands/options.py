"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def config_options(function: F) -> F:
    """Add ``-c/--config`` (repeatable, required) and ``-o/--override`` (repeatable)."""
    with_overrides = click.option(
        "-o",
        "--override",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change one key, as in -o optimizer.lr=1e-3; may be repeated.",
    )(function)
    return click.option(
        "-c",
        "--config",
        "configs",
        multiple=True,
        required=True,
        metavar="FILE",
        help="Configuration file; of several, later ones win.",
    )(with_overrides)
