"""The hooks of robustmm. A plugin implements those it needs; each hands over a ``register`` callable.

pluggy serves registration at start-up alone; no tensor passes through it. Each docstring names the context with which
the kind's ``build`` is called, as keyword arguments, beside the component's own options.
"""

from __future__ import annotations

from collections.abc import Callable

import click
import pluggy

from robustmm.registry import Component

Register = Callable[[Component], None]

hookspec = pluggy.HookspecMarker("robustmm")
hookimpl = pluggy.HookimplMarker("robustmm")


@hookspec
def robustmm_register_tasks(register: Register) -> None:
    """Offer tasks. ``build(classes, **options) -> robustmm.Task``; ``classes`` are the class names."""


@hookspec
def robustmm_register_datasets(register: Register) -> None:
    """Offer data sets. ``build(**options) -> robustmm.DataSplits``."""


@hookspec
def robustmm_register_encoders(register: Register) -> None:
    """Offer encoders. ``build(modality, **options) -> robustmm.Encoder``; ``modality`` is a `robustmm.Modality`."""


@hookspec
def robustmm_register_trunks(register: Register) -> None:
    """Offer trunks. ``build(parts, **options) -> robustmm.Trunk``; ``parts`` is a `robustmm.TrunkParts`."""


@hookspec
def robustmm_register_fusions(register: Register) -> None:
    """Offer fusions. ``build(channels, **options) -> robustmm.Fusion``; ``channels``: modality -> channels by level."""


@hookspec
def robustmm_register_heads(register: Register) -> None:
    """Offer heads. ``build(channels, num_outputs, **options) -> robustmm.Head``; ``channels`` of the fused levels."""


@hookspec
def robustmm_register_missing_policies(register: Register) -> None:
    """Offer missing policies. ``build(channels, **options) -> robustmm.MissingPolicy``; ``channels`` as for fusions."""


@hookspec
def robustmm_register_samplers(register: Register) -> None:
    """Offer combination samplers. ``build(modalities, **options) -> robustmm.CombinationSampler``."""


@hookspec
def robustmm_register_methods(register: Register) -> None:
    """Offer methods. ``build(blueprint, **options) -> robustmm.Method``; see `robustmm.Blueprint`."""


@hookspec
def robustmm_register_balancers(register: Register) -> None:
    """Offer balancing strategies. ``build(**options) -> robustmm.Balancer``."""


@hookspec
def robustmm_register_optimizers(register: Register) -> None:
    """Offer optimisers. ``build(parameters, **options) -> torch.optim.Optimizer``."""


@hookspec
def robustmm_register_schedules(register: Register) -> None:
    """Offer schedules. ``build(epochs, steps_per_epoch, **options) -> robustmm.Schedule``."""


@hookspec
def robustmm_register_adapters(register: Register) -> None:
    """Offer test-time adapters. ``build(**options) -> robustmm.Adapter``."""


@hookspec
def robustmm_register_corruptions(register: Register) -> None:
    """Offer corruptions. ``build(modality, spread, **options) -> robustmm.Corruption``; see `robustmm.Spread`."""


@hookspec
def robustmm_register_metrics(register: Register) -> None:
    """Offer metrics. ``build(classes, **options) -> robustmm.Metric``."""


@hookspec
def robustmm_register_callbacks(register: Register) -> None:
    """Offer callbacks. ``build(**options) -> robustmm.Callback``."""


@hookspec
def robustmm_register_commands(register: Callable[[click.Command], None]) -> None:
    """Offer commands of the ``robustmm`` program: call ``register`` with each click command."""
