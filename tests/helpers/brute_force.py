"""What fast evaluation is held to: the model is asked anew for each combination, on data with holes."""

from __future__ import annotations

import torch

from robustmm import Batch
from robustmm.masks import presence_of
from robustmm.methods.method import Method
from robustmm.models.modes import evaluating
from robustmm.plugin_manager import get_plugins
from robustmm.testing.tiny import settings


def holed(data: Batch, seed: int = 0) -> Batch:
    """The batch with cells that are really missing, each sample keeping at least one; inputs are zero there."""
    generator = torch.Generator().manual_seed(seed)
    observed = torch.rand(data.observed.shape, generator=generator) < 0.6
    observed[torch.arange(len(data)), torch.arange(len(data)) % observed.shape[1]] = True
    inputs = {
        name: value * observed[:, column].view(-1, *[1] * (value.dim() - 1))
        for column, (name, value) in enumerate(data.inputs.items())
    }
    return Batch(inputs, observed, data.target, data.ids, data.index)


def settled(method: Method, data: Batch) -> Method:
    """The method with BatchNorm statistics of its own, in training mode."""
    method.train()
    with torch.no_grad():
        for _ in range(3):
            method(data.inputs, torch.ones_like(data.observed), size=method.task.target_size(data.target))
    return method


def brute_force(method: Method, data: list[Batch], combination) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of the samples that can be predicted from ``combination``, each asked for on its own."""
    logits, target = [], []
    shown = presence_of(combination, method.modalities)
    with evaluating(method), torch.no_grad():
        for batch in data:
            presence = batch.observed & shown
            rows = presence.any(dim=1)
            own = method(batch.inputs, presence, size=method.task.target_size(batch.target)).logits
            logits.append(own[rows])
            target.append(batch.target[rows])
    return torch.cat(logits), torch.cat(target)


SETTINGS = [
    (component, setting)
    for component in get_plugins().registry.all("method")
    for setting in settings(component, counts=(2, 3))
    if setting.count == 3 or setting.dense
]
