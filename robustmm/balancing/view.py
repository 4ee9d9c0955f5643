"""All that a balancer sees of a step or an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from robustmm.balancing.statistics import true_class_sums
from robustmm.errors import RunFailed
from robustmm.methods.method import Evaluate, Method
from robustmm.methods.probes import UnimodalLogits, unimodal_logits
from robustmm.seeding import generator_for
from robustmm.types import Batch, Clock, Output


@dataclass
class StepView:
    """One step, as a balancer sees it.

    Args:
        method: The method in training.
        batch: On the run's device.
        output: Of the forward pass that this step trains.
        clock: Where training stands.
        groups: Modality -> the encoder parameters that it owns.
        backward: ``backward(loss, retain_graph=False)`` with gradient scaling where precision asks for it.
        all_reduce: Sum of a tensor over processes; the tensor itself where there is one process.
        seed: The run's seed.
    """

    method: Method
    batch: Batch
    output: Output
    clock: Clock
    groups: Mapping[str, Sequence[nn.Parameter]]
    backward: Callable[..., None]
    all_reduce: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor)
    seed: int = 0

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in column order."""
        return self.batch.modalities

    @property
    def presence(self) -> Tensor:
        """(B, M) bool on the device: what this step showed."""
        return self.output.presence

    @cached_property
    def unimodal(self) -> UnimodalLogits:
        """Each modality's own logits without gradient, computed once a step; see `robustmm.methods.probes`.

        Raises:
            RunFailed: trunk and head offer neither a split nor a masked readout.
        """
        with torch.no_grad():
            logits = unimodal_logits(self.method, self.output)
        if logits is None:
            trunk = self.method.trunk
            policy = getattr(trunk, "policy", None)
            cause = "" if policy is None else f" under the missing policy {type(policy).__name__}"
            raise RunFailed(
                f"the balancer needs logits of each modality in training, and {type(trunk).__name__} cannot fuse kept "
                f"features anew{cause}; use missing_policy zero_feature, or fusion concat or sum with a linear head"
            )
        return logits

    def true_class_probability(self, *, complete_rows: bool = False) -> Tensor:
        """Mean softmax probability that each modality alone gives to the true class, over all processes.

        Args:
            complete_rows: Compare on rows in which every modality is present, instead of each on its own rows.

        Returns:
            (M,) float32; NaN for a modality without a row.
        """
        presence = self.presence & self.presence.all(dim=1, keepdim=True) if complete_rows else self.presence
        sums = true_class_sums(self.method.task, self.unimodal.logits, self.batch.target, presence)
        score, count = self.all_reduce(sums)
        return torch.where(count > 0, score / count.clamp_min(1), torch.nan)

    def generator(self, purpose: str) -> torch.Generator:
        """A generator on the run's device, seeded from (seed, step, purpose): the same on every rank, new each step."""
        return generator_for(self.seed, self.clock.step, purpose, device=self.output.logits.device)


@dataclass
class EpochView:
    """The training part before an epoch, as a balancer sees it.

    Args:
        method: The method in training.
        clock: The coming epoch.
        groups: As in `StepView`.
        batches: Iterates once, in order and without augmentation, over this process's share of the training part, on
            the run's device; sums over it are to be reduced over processes.
        evaluate: Scores on the held-out part.
        all_reduce: Sum of a tensor over processes.
        seed: The run's seed.
    """

    method: Method
    clock: Clock
    groups: Mapping[str, Sequence[nn.Parameter]]
    batches: Callable[[], Iterable[Batch]]
    evaluate: Evaluate
    all_reduce: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor)
    seed: int = 0
