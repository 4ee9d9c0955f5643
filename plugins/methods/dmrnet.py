"""DMRNet: a Gaussian per sample in place of a point, and an extra loss on the hardest combinations.

Source: Wei et al., Robust Multimodal Learning via Representation Decoupling, ECCV 2024, arXiv:2407.04458; code
shicaiwei123/ECCV2024-DMRNet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from robustmm import (
    Batch,
    Blueprint,
    Clock,
    Component,
    Evaluate,
    Features,
    LossTerm,
    Method,
    Options,
    Output,
    ShapeError,
    all_combinations,
    all_reduce_sum,
    gaussian_kl,
    hookimpl,
    parse_combination,
)

from ._combination_set import (
    CombinationSet,
    RegularisationForm,
    combination_loss,
    missing_one,
    with_subsets,
)
from ._deployment import shared_blueprint
from ._warmup import warn_if_never_past

Hard = Literal["mined", "incomplete"] | list[str]


class DMRNetOptions(Options):
    """Options of DMRNet; defaults are the published values unless a description says otherwise."""

    kl_weight: float = Field(1e-3, ge=0, description="Weight of the divergence from the standard normal; 0 is off.")
    kl_positions: Literal["mean", "sum"] = Field(
        "mean",
        description="Reduction over the positions of a fused map; without effect on vectors. The released "
        "face anti-spoofing code sums, the segmentation code averages.",
    )
    kl_detached: bool = Field(
        False, description="Released segmentation code: the divergence is logged and has no gradient."
    )
    hcr_weight: float = Field(
        0.5,
        ge=0,
        description="Weight of the loss on hard combinations; 0 is off. 0.5 is the released value for segmentation, "
        "the only release whose mask singles them out; 0.2 and 0.3 (audio-visual) belong to hcr_form outer.",
    )
    hcr_form: RegularisationForm = Field(
        "masked",
        description="masked: loss of the hard samples; outer: the released broadcast, mean loss of all samples times "
        "the number of hard ones (about B/2 times larger: set the weight accordingly).",
    )
    hard: Hard = Field(
        "mined",
        description="mined: the combination that misses one modality and has the largest mean variance in the "
        "warm-up, with all its subsets; incomplete: every combination but the complete one; or a list such as "
        "[rgb, rgb+ir].",
    )
    warmup_epochs: int = Field(
        6, ge=0, description="Epochs without the loss on hard combinations, in which variances are gathered (0 to 5)."
    )
    auxiliary_head: Literal["separate", "shared"] = Field(
        "separate",
        description="Head behind the loss on hard combinations: its own (paper, segmentation release), or the main "
        "head (audio-visual and anti-spoofing release).",
    )
    log_var_limit: float = Field(
        10.0, gt=0, description="Log variances are clamped to plus and minus this; the release has no clamp."
    )

    @model_validator(mode="after")
    def _mining_needs_epochs(self) -> DMRNetOptions:
        if self.hard == "mined" and self.hcr_weight > 0 and self.warmup_epochs == 0:
            raise ValueError("hard: mined needs warmup_epochs of at least 1; name the hard combinations instead")
        return self


class NormalisedLinear(nn.Module):
    """Square linear map over channels, then BatchNorm, no activation; each position of a map is a row.

    On maps this is a 1x1 convolution with BatchNorm2d, on vectors a linear layer with BatchNorm1d.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) or (B, D, ...) -> same shape.

        Raises:
            ShapeError: one row in training, on which BatchNorm has no variance.
        """
        by_position = self.linear(x.movedim(1, -1))  # (B, ..., D)
        rows = by_position.flatten(0, -2)  # (R, D)
        if self.training and len(rows) == 1:
            raise ShapeError(
                f"dmrnet: the fused feature is {tuple(x.shape)}, one row, and BatchNorm cannot train on one row; "
                "use batches of at least 2 samples"
            )
        normalised: Tensor = self.norm(rows)
        return normalised.view_as(by_position).movedim(-1, 1)


class VarianceLedger:
    """Predicted variance of each candidate combination, as sums and counts over the warm-up.

    Tensors of no module: data-parallel training copies the first process's buffers over all others at every step.

    Args:
        candidates: The combinations to compare.
    """

    def __init__(self, candidates: CombinationSet) -> None:
        self.candidates = candidates
        self.totals = torch.zeros(2, len(candidates.combinations))  # sums, counts

    def add(self, log_var: Tensor, presence: Tensor) -> None:
        """Add a batch: log_var (B, D, ...), presence (B, M) bool."""
        variance = log_var.detach().float().exp().flatten(1).mean(dim=1)  # (B,)
        matches = self.candidates.matches(presence)  # (B, K)
        sums = (variance[:, None] * matches).sum(dim=0)
        self.totals = self.totals.to(sums.device) + torch.stack([sums, matches.sum(dim=0)])

    def means(self) -> list[float]:
        """Mean variance of each candidate over all processes; NaN for one that was never shown."""
        sums, counts = all_reduce_sum(self.totals)
        means: list[float] = (sums / counts).tolist()
        return means


class DeployedDMRNet(Method):
    """The mean of the Gaussian and the main head: all that prediction needs."""

    def __init__(self, blueprint: Blueprint, mean: NormalisedLinear) -> None:
        super().__init__(blueprint)
        self.mean = mean

    def readout(self, features: Features, fused: list[Tensor], presence: Tensor, size: tuple[int, ...]) -> Output:
        """See `Method.readout`; the last fused level is replaced by its mean."""
        return self.output([*fused[:-1], self.mean(fused[-1])], presence, features, fused, size)


class DMRNet(Method):
    """Probabilistic bottleneck on the last fused level, KL term and hard-combination regulariser (HCR).

    In training the head reads a sample of N(mu, sigma^2), in evaluation mu. The loss binds the sample alone, so
    combinations of one class may keep different means. Each of mu and log sigma^2 is a linear map with BatchNorm.

    Terms: ``task``; ``kl``, sum over channels and mean over the batch, from epoch 0; ``hcr``, from epoch
    ``warmup_epochs``. In evaluation mode `losses` gives the task term alone.

    Where the release and the paper's intention differ, the intention is the default:
        HCR: the released classification codes multiply a mask (B, 1, 1, 1) by losses (B,), which singles out no
            combination: ``hcr_form``.
        Mining: carried out in the audio-visual release alone, between two modalities. The rule here covers every
            variant: of the combinations that miss one modality the one with the largest mean variance, with its
            non-empty subsets. Means are sums over the whole warm-up divided once, where the release adds up means of
            batches, which is NaN after a batch without the combination.
        Auxiliary head: separate by default. With the main head HCR is no more than a larger weight on some samples,
            and pulls the classifier towards them; a head of its own acts on the representation, and the released
            segmentation code does so.
        KL: has a gradient; the released segmentation code loses it (``kl_detached``).
        Variance: log sigma^2 is clamped; one of nine released anti-spoofing runs collapsed without.

    With one modality there is no combination to be hard, and HCR is off.

    Args:
        blueprint: See `Blueprint`.
        kl_weight, kl_positions, kl_detached, hcr_weight, hcr_form, hard, warmup_epochs, auxiliary_head, log_var_limit:
            See `DMRNetOptions`.
    """

    sampler = "uniform"

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        kl_weight: float = 1e-3,
        kl_positions: Literal["mean", "sum"] = "mean",
        kl_detached: bool = False,
        hcr_weight: float = 0.5,
        hcr_form: RegularisationForm = "masked",
        hard: Hard = "mined",
        warmup_epochs: int = 6,
        auxiliary_head: Literal["separate", "shared"] = "separate",
        log_var_limit: float = 10.0,
    ) -> None:
        super().__init__(blueprint)
        self._specifications = blueprint.modalities
        self.kl_weight, self.kl_positions, self.kl_detached = kl_weight, kl_positions, kl_detached
        self.hcr_weight, self.hcr_form, self.warmup_epochs = hcr_weight, hcr_form, warmup_epochs
        self.log_var_limit = log_var_limit
        channels = self.trunk.fused_channels
        self.mean = NormalisedLinear(channels[-1])
        self.log_var = NormalisedLinear(channels[-1])
        self.mined = hard == "mined" and hcr_weight > 0
        self.hard = CombinationSet(self.modalities, () if hard == "mined" else self._fixed(hard))
        self.candidates = CombinationSet(self.modalities, missing_one(self.modalities))
        self.ledger = VarianceLedger(self.candidates)
        separate = auxiliary_head == "separate" and hcr_weight > 0 and len(self.modalities) > 1
        self.auxiliary_head = blueprint.make_head(channels) if separate else None

    def _fixed(self, hard: Hard) -> list[tuple[str, ...]]:
        if isinstance(hard, list):
            return [parse_combination(text, self.modalities) for text in hard]
        return all_combinations(self.modalities)[:-1]  # the complete one is last

    def readout(self, features: Features, fused: list[Tensor], presence: Tensor, size: tuple[int, ...]) -> Output:
        """See `Method.readout`; in training the extras hold mu, log_var and the sample, each like the last level."""
        mu = self.mean(fused[-1])
        if not self.training:
            return self.output([*fused[:-1], mu], presence, features, fused, size)
        log_var = self.log_var(fused[-1]).clamp(-self.log_var_limit, self.log_var_limit)
        sample = mu + torch.randn_like(mu) * (0.5 * log_var).exp()
        output = self.output([*fused[:-1], sample], presence, features, fused, size)
        output.extras |= {"mu": mu, "log_var": log_var, "sample": sample}
        return output

    def losses(self, output: Output, batch: Batch, clock: Clock) -> dict[str, LossTerm]:
        """See `Method.losses`; during the warm-up it also notes the variances that were predicted."""
        terms = super().losses(output, batch, clock)
        if self.hcr_weight > 0:
            warn_if_never_past("dmrnet", self.warmup_epochs, "the loss on hard combinations", clock)
        if "log_var" not in output.extras:
            return terms
        if self.mined and clock.epoch < self.warmup_epochs:
            self.ledger.add(output.extras["log_var"], output.presence)
        if self.kl_weight > 0:
            terms["kl"] = LossTerm(self.kl_weight * self._divergence(output), "regulariser")
        if self.hcr_weight > 0 and clock.epoch >= self.warmup_epochs and self.hard.combinations:
            terms["hcr"] = LossTerm(self.hcr_weight * self._hard_loss(output, batch), "auxiliary")
        return terms

    def _divergence(self, output: Output) -> Tensor:
        mu, log_var = output.extras["mu"], output.extras["log_var"]
        divergence = gaussian_kl(mu, log_var, positions=self.kl_positions).mean()
        return divergence.detach() if self.kl_detached else divergence

    def _hard_loss(self, output: Output, batch: Batch) -> Tensor:
        scales = output.scales
        if self.auxiliary_head is not None:
            levels = [*output.fused[:-1], output.extras["sample"]]
            scales = self.auxiliary_head.scales(levels, self.task.target_size(batch.target))
        keep = self.hard.contains(output.presence)
        return combination_loss(self.task, scales, batch.target, keep, self.hcr_form)

    def on_epoch_end(self, evaluate: Evaluate, clock: Clock) -> None:
        """Choose the hard combinations once, after the last epoch of the warm-up.

        A candidate that no training sample showed cannot win; if none was shown, no combination is hard.
        """
        if not self.mined or clock.epoch != self.warmup_epochs - 1:
            return
        pairs = zip(self.ledger.means(), self.candidates.combinations, strict=True)
        shown = [(mean, combination) for mean, combination in pairs if not math.isnan(mean)]
        if shown:
            self.hard.replace(with_subsets(max(shown, key=lambda pair: pair[0])[1]))

    def deployable(self) -> Method:
        """Trunk, mean and main head, shared with this method; same output in evaluation."""
        deployed = DeployedDMRNet(shared_blueprint(self, self._specifications), self.mean)
        deployed.training = self.training
        return deployed

    def method_state(self) -> dict[str, Any]:
        """The mined hard combinations, and what has been gathered so far."""
        return {"hard": self.hard.names, "variance_totals": self.ledger.totals.tolist()} if self.mined else {}

    def load_method_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `method_state` gave; combinations that the options name stay as they are."""
        if not self.mined or not state:
            return
        self.hard.replace(parse_combination(text, self.modalities) for text in state["hard"])
        totals = torch.tensor(state["variance_totals"]).reshape(self.ledger.totals.shape)
        self.ledger.totals = totals.to(self.ledger.totals.device)


@hookimpl
def robustmm_register_methods(register: Callable[[Component], None]) -> None:
    """Offer the method."""
    register(
        Component(
            name="dmrnet",
            build=DMRNet,
            options=DMRNetOptions,
            summary="Gaussian in place of the fused feature, extra loss on the hardest combinations.",
            source="Wei et al., ECCV 2024, arXiv:2407.04458; code shicaiwei123/ECCV2024-DMRNet",
            fidelity="code",
        )
    )
