"""``robustmm explain``: which object acts at which place of the step, and from which file."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

import click

from robustmm.commands.options import config_options

if TYPE_CHECKING:
    from robustmm.build import Assembly

#: The members through which methods and balancers act, in the order of the step.
BALANCER_PLACES = ("on_epoch_start", "updates", "modulate_features", "weigh", "backward", "modulate_gradients")
METHOD_PLACES = ("on_fit_start", "train_output", "forward", "readout", "losses", "on_epoch_end")


@click.command("explain")
@config_options
def command(configs: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Say for each place of the step which object acts there, and from which file."""
    from rich.console import Console
    from rich.table import Table

    from robustmm.build import assemble
    from robustmm.config.load import load_config
    from robustmm.plugin_manager import get_plugins

    registry = get_plugins().registry
    loaded = load_config(configs, overrides, registry)
    assembly = assemble(loaded.config, registry, fit_scalers=False)
    table = Table(box=None, pad_edge=False)
    for column in ("place", "acts", "file"):
        table.add_column(column, no_wrap=True, overflow="ignore")
    for place, acts, file in rows(assembly):
        table.add_row(place, acts, file)
    Console(highlight=False, width=200 if not os.isatty(1) else None).print(table)


def rows(assembly: Assembly) -> list[tuple[str, str, str]]:
    """(place, who acts, file:line) in the order of the step."""
    method, balancer = assembly.method, assembly.balancer
    used = assembly.components
    found = [("dataset", used["dataset"].name, _home(used["dataset"].build))]
    found += [(f"{name} part", text, "") for name, text in _part_facts(assembly)]
    found.append(("on_epoch_start", *_member(balancer, "on_epoch_start")))
    found.append(
        ("masks", f"{type(assembly.sampler).__name__} ({assembly.sampler_name})", _home(type(assembly.sampler)))
    )
    found.append(("updates", *_member(balancer, "updates")))
    found += [(place, used[place].name, _home(used[place].build)) for place in used if place.startswith("encoder of")]
    found.append(("trunk", used["trunk"].name, _home(type(method.trunk))))
    found += [(place, used[place].name, _home(used[place].build)) for place in ("missing_policy", "fusion", "head")]
    found.append(("modulate_features", *_member(balancer, "modulate_features")))
    found += [(f"method.{name}", *_member(method, name)) for name in METHOD_PLACES]
    found.append(("task loss", used["task"].name, _home(type(method.task).loss)))
    found += [(name, *_member(balancer, name)) for name in BALANCER_PLACES[3:]]
    clip = assembly.recipe.clip_norm
    found.append(("clip", "no clipping" if clip is None else f"norm {clip}", ""))
    found += [(place, used[place].name, _home(used[place].build)) for place in ("optimizer", "schedule")]
    found.append(("selection", f"{assembly.recipe.select_metric} ({assembly.recipe.select_mode}) on validation", ""))
    return found


def _part_facts(assembly: Assembly) -> list[tuple[str, str]]:
    facts = assembly.parts.facts
    return [
        ("train", f"{facts['train_samples']} samples"),
        ("validation", f"{facts['validation_samples']} samples, {facts['validation']}"),
        ("test", f"{facts['test_samples']} samples"),
    ]


def _member(owner: Any, name: str) -> tuple[str, str]:
    """Who really implements a member: the class that defines it, and where."""
    for cls in type(owner).__mro__:
        if name in vars(cls):
            base = cls.__module__.startswith("robustmm.")
            return f"{cls.__name__}.{name}" + (" (default)" if base else ""), _home(vars(cls)[name])
    return "-", ""


def _home(thing: Any) -> str:
    thing = inspect.unwrap(thing)
    try:
        path, line = inspect.getsourcefile(thing), inspect.getsourcelines(thing)[1]
    except (TypeError, OSError):
        return getattr(thing, "__module__", "")
    return f"{os.path.relpath(path) if path and path.startswith(os.getcwd()) else path}:{line}"
