"""PMR: class prototypes tell which modality lags, and pull its features towards them.

Source: Fan et al., PMR: Prototypical Modal Rebalance for Multimodal Learning, CVPR 2023, arXiv:2211.07089; code
fanyunfeng-bit/Modal-Imbalance-PMR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from robustmm import (
    Balancer,
    Component,
    EpochPlan,
    EpochView,
    LossTerm,
    Options,
    StepView,
    Task,
    added,
    full_precision,
    hookimpl,
    pooled,
)

from .ogm import SMALLEST_LEAD, SMALLEST_SCORE

#: Norm below which a feature has no direction.
SMALLEST_NORM = 1e-6

Coefficient = Literal["continuous", "binary"]
Normalised = Literal["dense", "always", "never"]


class PMROptions(Options):
    """Options of PMR."""

    alpha: float = Field(
        1.0, ge=0, description="Weight of the prototype cross-entropy. Published: 1 or 2 by data set; 1 in the code."
    )
    mu: float = Field(
        0.01, ge=0, description="Weight of the entropy of a modality that leads. Published: 0.01 or 0.001 by data set."
    )
    entropy_epochs: int = Field(
        10,
        ge=0,
        description="First epochs, with that entropy (E_r). The paper's text, as far as it could be read, gives no "
        "value, and the code has no entropy; 10 is chosen here. 0 does without.",
    )
    momentum: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of a prototype that stays in each epoch (epsilon). 0.2 is the code's; the paper's text, as "
        "far as it could be read, gives no value. 1 keeps the first ones, 0 replaces them.",
    )
    fraction: float = Field(
        0.1, gt=0, le=1, description="Share of the training part from which prototypes are taken before each epoch."
    )
    coef: Coefficient = Field(
        "continuous",
        description="Weight of a lagging modality: continuous is by how much the best one is ahead, at most 1, as in "
        "the paper; binary is 1 as soon as another is ahead, as in the code.",
    )
    last_epoch: int | None = Field(
        None, ge=0, description="Last epoch with PMR, included; null for all. The code's default is 100."
    )
    normalise: Normalised = Field(
        "dense",
        description="Where features are brought to length 1 before distances are taken: in dense prediction alone, "
        "where it keeps their scale, always, or never.",
    )
    max_positions: int = Field(
        2048,
        ge=1,
        description="In dense prediction, positions that are drawn of a map for distances; no more are used.",
    )


def class_sums(features: Tensor, target: Tensor, keep: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sum and number of the kept features of each class.

    Args:
        features: (R, D).
        target: (R,) labels.
        keep: (R,) bool.
        num_classes: C.

    Returns:
        (C, D), (C,).
    """
    member = (target[:, None] == torch.arange(num_classes, device=target.device)) & keep[:, None]  # (R, C)
    member = member.to(features.dtype)
    return member.T @ features, member.sum(dim=0)


def updated_prototypes(old: Tensor | None, sums: Tensor, counts: Tensor, momentum: float) -> Tensor:
    """c <- momentum c + (1 - momentum) class mean; the mean where there was none, c where the class did not occur.

    Args:
        old: (C, D), NaN for classes without one; None at first.
        sums, counts: See `class_sums`.
        momentum: In [0, 1].

    Returns:
        (C, D), NaN for classes that never occurred.
    """
    mean = (sums / counts.clamp_min(1)[:, None]).masked_fill(counts[:, None] == 0, torch.nan)
    if old is None:
        return mean
    old = old.to(mean)
    moved = momentum * old + (1 - momentum) * mean
    return moved.where(~moved.isnan(), mean.where(old.isnan(), old))


def prototype_log_probability(features: Tensor, prototypes: Tensor) -> Tensor:
    """log softmax of minus the Euclidean distance to each class's prototype.

    The gradient is finite where a feature equals its prototype; the released loop gives NaN there.

    Args:
        features: (R, D).
        prototypes: (C, D), NaN for classes without one, which the softmax leaves out.

    Returns:
        (R, C); -inf for classes without a prototype, and uniform where no class has one.
    """
    known = ~prototypes.isnan().any(dim=1)
    distance = torch.cdist(features, prototypes.nan_to_num(), compute_mode="donot_use_mm_for_euclid_dist")
    left_out = ~known & known.any()
    return (-distance).masked_fill(left_out, -torch.inf).log_softmax(dim=1)


def leads(probability: Tensor, present: Tensor) -> Tensor:
    """Sums from which it follows who is ahead of whom: [m, w] is the sum of p_m(y) over rows that show both m and w.

    Args:
        probability: (R, M), finite.
        present: (R, M) bool.

    Returns:
        (M, M).
    """
    there = present.to(probability.dtype)
    return (probability * there).T @ there


def coefficients(sums: Tensor, coef: Coefficient) -> tuple[Tensor, Tensor]:
    """How much each modality lags and leads.

    beta_m = clip(s_best / s_m - 1, 0, 1) and gamma_m = clip(s_m / s_worst - 1, 0, 1), where each pair is compared on
    the rows that show both.

    Args:
        sums: (M, M), see `leads`; 0 where no row shows both.
        coef: ``binary`` makes each coefficient that is not 0 a 1.

    Returns:
        beta, gamma, (M,) each.

    Source:
        PMR (CVPR 2023) for two modalities; the best and the worst of more are this project's rule.
    """
    ratio = sums / sums.T.clamp_min(SMALLEST_SCORE)  # s_m / s_w: both over the same rows
    lead = (ratio - 1).where(ratio > 1 + SMALLEST_LEAD, 0.0).clamp_max(1)
    if coef == "binary":
        lead = (lead > 0).to(lead.dtype)
    return lead.amax(dim=0), lead.amax(dim=1)


class _Rows(NamedTuple):
    """Features by row, a sample or a position.

    Args:
        features: Of each modality, (R, D_m).
        target: (R,).
        present: (R, M) bool.
    """

    features: list[Tensor]
    target: Tensor
    present: Tensor


def _places(shape: Sequence[int], most: int, generator: torch.Generator) -> Tensor | None:
    """Positions of a flattened map, drawn without repetition; None for all of them."""
    count = torch.Size(shape).numel()
    if count <= most:
        return None
    return torch.randperm(count, generator=generator, device=generator.device)[:most].sort().values


class PMR(Balancer):
    """Prototypical modal rebalance.

    Before each epoch the mean feature of each class is taken per modality, from a part of the training data that is
    drawn anew. In training the distances to these prototypes make a classifier of each modality that needs no
    parameters, whatever the fusion. A modality whose probability of the true class lags gets a cross-entropy on its
    prototypes, ``pce/<modality>``; in the first epochs one that leads is held up by its entropy, ``per/<modality>``.
    Their gradients reach that modality's encoder alone, hence the requirement of separate encoders.

    - Rows show both modalities of a pair that is compared, and a sample that lacks a modality stays out of its
      prototypes and terms. More than two modalities: see `coefficients`.
    - A class that the part for prototypes lacks keeps its prototype. One that never had one is left out of the softmax,
      and rows of that class out of scores; they count 0 in the cross-entropy. The release divides by zero.
    - Prototypes come from training data, as in the paper. The release takes them from validation or test for some sets.
    - The entropy is the paper's; the release has none. Equal scores help nobody; the release helps one then.
    - In dense prediction rows are positions of the coarsest level that an encoder gives, with the label there, and
      features have length 1. This is not in the paper.

    Args:
        alpha, mu, entropy_epochs, momentum, fraction, coef, last_epoch, normalise, max_positions: See `PMROptions`.
    """

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        mu: float = 0.01,
        entropy_epochs: int = 10,
        momentum: float = 0.2,
        fraction: float = 0.1,
        coef: Coefficient = "continuous",
        last_epoch: int | None = None,
        normalise: Normalised = "dense",
        max_positions: int = 2048,
    ) -> None:
        self.alpha, self.mu, self.entropy_epochs = alpha, mu, entropy_epochs
        self.momentum, self.fraction = momentum, fraction
        self.coef: Coefficient = coef
        self.last_epoch = last_epoch
        self.normalise = normalise
        self.max_positions = max_positions
        self.prototypes: dict[str, Tensor] = {}  # modality -> (C, D), NaN for classes without one
        self._sums: Tensor | None = None  # of the batches of this update so far

    def _active(self, epoch: int, modalities: Sequence[str]) -> bool:
        strength = self.alpha > 0 or (self.mu > 0 and epoch < self.entropy_epochs)
        return strength and len(modalities) > 1 and (self.last_epoch is None or epoch <= self.last_epoch)

    def on_epoch_start(self, epoch: EpochView) -> EpochPlan | None:
        """Refresh the prototypes."""
        if not self._active(epoch.clock.epoch, epoch.modalities):
            return None
        task = epoch.method.task
        device = next(epoch.method.parameters()).device
        sizes = {name: epoch.method.trunk.feature_channels[name][-1] for name in epoch.modalities}
        # All of a modality in one tensor: the class sums, and the counts as one channel more.
        found = {name: torch.zeros(task.num_outputs, size + 1, device=device) for name, size in sizes.items()}
        for batch, output in epoch.outputs(epoch.batches(self._chosen(epoch))):
            levels = [own[-1] for own in output.features.values()]
            positions = epoch.generator("pmr positions")  # the same in every batch, however batches are dealt out
            rows = self._rows(task, levels, batch.target, output.presence, positions)
            for column, (name, own) in enumerate(zip(sizes, rows.features, strict=True)):
                sums, counts = class_sums(own, rows.target, rows.present[:, column], task.num_outputs)
                found[name] += torch.cat([sums, counts[:, None]], dim=1)
        for name, own in found.items():
            own = epoch.all_reduce(own)
            old = self.prototypes.get(name)
            self.prototypes[name] = updated_prototypes(old, own[:, :-1], own[:, -1], self.momentum)
        return None

    def _chosen(self, epoch: EpochView) -> Tensor:
        count = ceil(self.fraction * epoch.samples)
        return torch.randperm(epoch.samples, generator=epoch.generator("pmr samples"))[:count].sort().values

    def _rows(
        self, task: Task, levels: Sequence[Tensor], target: Tensor, presence: Tensor, generator: torch.Generator
    ) -> _Rows:
        """Features in full precision by row; of maps at most `max_positions` of each, the same for all modalities."""
        with full_precision(*levels) as maps:
            if task.dense:
                grid = maps[0].shape[2:]
                target = task.at(target, tuple(grid)).flatten(1)
                places = _places(grid, self.max_positions, generator)
                flat = [own.flatten(2) for own in maps]
                if places is not None:
                    places = places.to(target.device)
                    flat, target = [own[:, :, places] for own in flat], target[:, places]
                maps = tuple(own[..., None] for own in flat)  # (B, D, P, 1)
                target = target[..., None]
            else:
                maps = tuple(pooled(own) for own in maps)
            widths = [own.shape[1] for own in maps]
            rows = task.rows(torch.cat(maps, dim=1), target)  # once, since finding valid pixels may wait
            features = list(torch.split(rows.logits, widths, dim=1))
            if self.normalise == "always" or (self.normalise == "dense" and task.dense):
                features = [unit_length(own) for own in features]
        return _Rows(features, rows.target, presence[rows.sample])

    def weigh(self, terms: Mapping[str, LossTerm], view: StepView) -> Mapping[str, LossTerm]:
        """Add the terms of modalities that lag or lead."""
        epoch = view.clock.epoch
        if not self._active(epoch, view.modalities) or not self.prototypes or not view.contested:
            return terms
        levels = [own[-1] for own in view.output.features.values()]
        generator = view.generator("pmr positions")
        rows = self._rows(view.method.task, levels, view.batch.target, view.presence, generator)
        with torch.autocast(view.presence.device.type, enabled=False):
            log_p = [
                prototype_log_probability(own, self.prototypes[name].to(own))
                for name, own in zip(view.modalities, rows.features, strict=True)
            ]
            losses = torch.stack([-own.gather(1, rows.target[:, None]).squeeze(1) for own in log_p], dim=1)  # (R, M)
            usable = rows.present & losses.isfinite()  # infinite: the class has no prototype
            sums = leads((-losses.detach()).exp().where(usable, 0.0), usable)
            self._sums = sums if view.earlier is None or self._sums is None else self._sums + sums
            beta, gamma = coefficients(view.all_reduce(self._sums), self.coef)
            number = rows.present.sum(dim=0).clamp_min(1)
            pce = losses.where(usable, 0.0).sum(dim=0) / number
            weighed = {"pce": self.alpha * beta * pce}
            if epoch < self.entropy_epochs:
                entropy = torch.stack([_entropy(own) for own in log_p], dim=1)
                weighed["per"] = -self.mu * gamma * entropy.where(rows.present, 0.0).sum(dim=0) / number
        for prefix, values in weighed.items():
            whole = {name: view.mean_over_update(values[at], at) for at, name in enumerate(view.modalities)}
            terms = added(terms, whole, prefix)
        return terms

    def state_dict(self) -> dict[str, Any]:
        """The prototypes."""
        return {"prototypes": dict(self.prototypes)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Balancer.load_state_dict`."""
        self.prototypes = dict(state["prototypes"])


def unit_length(features: Tensor) -> Tensor:
    """(R, D) of length 1; a feature without a direction is 0 and has a gradient of 0."""
    norm: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / norm.where(norm > SMALLEST_NORM, torch.inf)


def _entropy(log_probability: Tensor) -> Tensor:
    """Entropy in nats by row, (R, C) -> (R,); a class with probability 0 counts 0."""
    finite = log_probability.masked_fill(log_probability.isinf(), 0.0)
    return -(log_probability.exp() * finite).sum(dim=1)


@hookimpl
def robustmm_register_balancers(register: Callable[[Component], None]) -> None:
    """Offer the strategy."""
    register(
        Component(
            name="pmr",
            build=PMR,
            options=PMROptions,
            summary="Pull features of the lagging modality to class prototypes, hold up the leading one.",
            source="Fan et al., CVPR 2023, arXiv:2211.07089; code fanyunfeng-bit/Modal-Imbalance-PMR",
            fidelity="code",
            requires=frozenset({"class_probability", "separate_encoders"}),
        )
    )
