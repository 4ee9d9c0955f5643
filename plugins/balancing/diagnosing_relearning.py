"""Diagnosing and re-learning: pull encoders that know the training data too well back towards where they began.

Source: Wei et al., Diagnosing and Re-learning for Balanced Multimodal Learning, ECCV 2024, arXiv:2407.09705; code
GeWu-Lab/Diagnosing_Relearning_ECCV2024.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from robustmm import (
    Balancer,
    Batch,
    Component,
    EpochView,
    Options,
    RunFailed,
    Task,
    hookimpl,
    pooled,
)

#: Seed of the clustering, as released; it draws from no global generator.
CLUSTER_SEED = 0

Gap = Literal["signed", "absolute"]


class DiagnosingRelearningOptions(Options):
    """Options of diagnosing and re-learning."""

    strength: float = Field(3.0, ge=0, description="Lambda: how far a gap pulls; 0 leaves every encoder as it is.")
    every: int = Field(20, gt=0, description="Epochs between two diagnoses; published: 20 of 90 (CREMA-D).")
    count: int = Field(3, ge=0, description="Diagnoses in a run.")
    gap: Gap = Field(
        "signed",
        description="signed pulls where features separate classes better in training than on validation; absolute, as "
        "released, also where they do worse.",
    )
    rows_per_class: int = Field(
        10, gt=0, description="A modality with fewer rows per class than this, on either side, is left as it is."
    )
    reset_state: bool = Field(False, description="Whether the optimiser forgets the encoders that are pulled.")
    norm_batches: int = Field(
        0,
        ge=0,
        description="Training batches from which BatchNorm statistics of pulled encoders are taken; 0 leaves them.",
    )


class Rows(NamedTuple):
    """Features with labels.

    Args:
        features: (R, D) float32.
        label: (R,) int64.
    """

    features: Tensor
    label: Tensor


def purity(label: Tensor, cluster: Tensor) -> float:
    """Share of rows that have the most frequent label of their cluster, (R,) int64 each."""
    pairs, counts = torch.stack([cluster, label]).unique(dim=1, return_counts=True)  # type: ignore[no-untyped-call]
    best = counts.new_zeros(int(cluster.max()) + 1).scatter_reduce_(0, pairs[0], counts, "amax")
    return float(best.sum() / len(label))


def cluster_purity(rows: Rows, clusters: int) -> float:
    """Purity of k-means clusters of features that are brought to [-1, 1] dimension by dimension.

    Raises:
        RunFailed: a feature is not finite.
    """
    from sklearn.cluster import KMeans  # takes a second: only where it is needed
    from sklearn.preprocessing import minmax_scale

    if not bool(rows.features.isfinite().all()):
        raise RunFailed("diagnosing_relearning: an encoder gives features that are not finite")
    scaled = minmax_scale(rows.features.numpy(), (-1, 1))  # a constant dimension becomes -1
    found = KMeans(clusters, random_state=CLUSTER_SEED).fit_predict(scaled)
    return purity(rows.label, torch.as_tensor(found, dtype=torch.int64))


def pull_of(training: float, held_out: float, strength: float, gap: Gap = "signed") -> float:
    """How far towards its beginning an encoder is pulled, in [0, 1): tanh(strength * gap of the purities)."""
    difference = training - held_out
    difference = abs(difference) if gap == "absolute" else max(difference, 0.0)
    return float(torch.tensor(strength * difference, dtype=torch.float64).tanh())


@torch.no_grad()
def pull(parameters: Sequence[nn.Parameter], beginning: Sequence[Tensor], alpha: float) -> None:
    """theta <- alpha * beginning + (1 - alpha) * theta, in place; exact where both are equal."""
    for parameter, initial in zip(parameters, beginning, strict=True):
        parameter.lerp_(initial.to(parameter), alpha)


class DiagnosingRelearning(Balancer):
    """Every so many epochs, each encoder is diagnosed alone and pulled back as far as it is over-trained.

    The pooled features of a modality, of all training samples that have it and likewise of the validation part, are
    clustered into as many clusters as there are classes; purity tells how well they separate the classes. The more pure
    they are in training than on validation, the further every parameter of the encoder goes back towards its value
    before the first epoch, which with pretrained encoders is the pretrained one. Fusion, heads, buffers, learning rate
    and, unless asked for, the optimiser's memory are untouched. Training in between is plain.

    A diagnosis comes before epoch e + 1 for e > 0 with e a multiple of ``every``. Features are those of evaluation
    without augmentation. A gap is signed by default: clusters of few held-out samples are pure by chance, and a purity
    that is larger there says nothing of over-training. ``absolute`` is the released form.

    Of label maps a row is the mean feature of an image's region of one class, at the size of the encoder's last level;
    this is ours. With one modality, or where no sample has two, nothing is changed.

    Args:
        strength, every, count, gap, rows_per_class, reset_state, norm_batches: See `DiagnosingRelearningOptions`.
    """

    def __init__(
        self,
        *,
        strength: float = 3.0,
        every: int = 20,
        count: int = 3,
        gap: Gap = "signed",
        rows_per_class: int = 10,
        reset_state: bool = False,
        norm_batches: int = 0,
    ) -> None:
        self.strength = strength
        self.every = every
        self.count = count
        self.gap: Gap = gap
        self.rows_per_class = rows_per_class
        self.reset_state = reset_state
        self.norm_batches = norm_batches
        self.beginning: dict[str, list[Tensor]] = {}  # modality -> the encoder's parameters before the first epoch
        self.done = 0  # diagnoses

    def on_epoch_start(self, epoch: EpochView) -> None:
        """Remember how encoders began; diagnose them where it is time for it."""
        if len(epoch.modalities) == 1:
            return
        if not self.beginning:
            self.beginning = {name: [p.detach().clone() for p in own] for name, own in epoch.groups.items()}
        last = epoch.clock.epoch - 1
        if self.done >= self.count or last <= 0 or last % self.every:
            return
        self.done += 1
        pulls = self.diagnose(epoch)
        pulled = [name for name, alpha in pulls.items() if alpha > 0]
        for name in pulled:
            pull(epoch.groups[name], self.beginning[name], pulls[name])
            if self.reset_state:
                epoch.forget(epoch.groups[name])
        if pulled and self.norm_batches:
            estimate_norms(epoch, pulled, self.norm_batches)

    def diagnose(self, epoch: EpochView) -> dict[str, float]:
        """How far each modality's encoder is to be pulled, the same on every process."""
        training, contested = gathered(epoch, epoch.batches())
        held_out, _ = gathered(epoch, epoch.held_out())
        alphas = [self._pull(epoch, training[name], held_out[name]) if contested else 0.0 for name in epoch.modalities]
        # Threads of k-means may add up in another order elsewhere: the first process decides.
        decided = epoch.gather(torch.tensor([alphas], dtype=torch.float64))[0].tolist()
        return dict(zip(epoch.modalities, decided, strict=True))

    def _pull(self, epoch: EpochView, training: Rows, held_out: Rows) -> float:
        clusters = epoch.method.task.num_outputs
        if min(len(training.label), len(held_out.label)) < self.rows_per_class * clusters:
            return 0.0
        purities = cluster_purity(training, clusters), cluster_purity(held_out, clusters)
        return pull_of(*purities, self.strength, self.gap)

    def state_dict(self) -> dict[str, Any]:
        """How encoders began, and how many diagnoses there were."""
        return {"beginning": self.beginning, "done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Balancer.load_state_dict`."""
        self.beginning, self.done = dict(state["beginning"]), state["done"]


def gathered(epoch: EpochView, batches: Iterable[Batch]) -> tuple[dict[str, Rows], bool]:
    """Rows of each modality in the order of the samples, of all processes; and whether a sample has two modalities."""
    method, names = epoch.method, epoch.modalities
    widths = {name: channels[-1] for name, channels in method.trunk.feature_channels.items()}
    # A process may have no share: its lists begin with nothing, of the right shape.
    places = {name: [torch.zeros(0, 2, dtype=torch.int64)] for name in names}  # position and label
    features = {name: [torch.zeros(0, widths[name])] for name in names}
    contested = torch.zeros(1, dtype=torch.bool)
    for batch, output in epoch.outputs(batches):
        contested |= (batch.observed.sum(dim=1) > 1).any()
        for column, name in enumerate(names):
            own, row, label = feature_rows(method.task, output.features[name][-1], batch.target)
            row, label = row.cpu(), label.cpu()
            kept = batch.observed[row, column]
            features[name].append(own.float().cpu()[kept])
            places[name].append(torch.stack([batch.index[row], label], dim=1)[kept])
    rows = {}
    for name in names:
        place = epoch.gather(torch.cat(places[name]))
        order = (place[:, 0] * method.task.num_outputs + place[:, 1]).argsort()  # clustering begins at some row
        rows[name] = Rows(epoch.gather(torch.cat(features[name]))[order], place[order, 1])
    return rows, bool(epoch.gather(contested).any())


def feature_rows(task: Task, feature: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features (R, D), the batch row that each is of, and its label: pooled, or of each region of a label map.

    Args:
        task: Says whether targets are maps.
        feature: (B, D, ...), a modality's last level.
        target: (B,) or (B, H, W).
    """
    if not task.dense:
        return pooled(feature), torch.arange(len(target), device=target.device), target
    feature = feature.float()
    labels = task.at(target, tuple(feature.shape[2:])).flatten(1)  # (B, P)
    member = (labels[:, None] == torch.arange(task.num_outputs, device=labels.device)[:, None]).to(feature.dtype)
    sums, sizes = member @ feature.flatten(2).transpose(1, 2), member.sum(dim=2)  # (B, C, D), (B, C)
    row, label = sizes.nonzero(as_tuple=True)
    return sums[row, label] / sizes[row, label, None], row, label


def estimate_norms(epoch: EpochView, names: Sequence[str], count: int) -> None:
    """Take BatchNorm statistics of some encoders from the first batches of the training part, each counting alike.

    Args:
        epoch: See `EpochView`.
        names: Modalities; in a batch that has a lone sample of one of them no statistic can be taken, it is left out.
        count: Batches of each process.
    """
    owned = {id(parameter) for name in names for parameter in epoch.groups[name]}
    columns = [epoch.modalities.index(name) for name in names]
    norms = [
        part
        for part in epoch.method.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and id(part.weight) in owned and part.track_running_stats
    ]
    before = [(norm.momentum, copy.deepcopy(norm.state_dict())) for norm in norms]
    with epoch.looking():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative mean
            norm.train()
        for batch in islice(epoch.batches(), count):
            if not bool((batch.observed[:, columns].sum(dim=0) == 1).any()):
                epoch.method.train_output(batch, batch.observed)
    for norm, (momentum, state) in zip(norms, before, strict=True):
        norm.momentum = momentum
        if not _averaged(epoch, norm):
            norm.load_state_dict(state)


def _averaged(epoch: EpochView, norm: nn.modules.batchnorm._BatchNorm) -> bool:
    """Weigh the statistics of all processes by their batches; False where there was none."""
    statistics, seen = (norm.running_mean, norm.running_var), norm.num_batches_tracked
    assert seen is not None  # it tracks
    total = epoch.all_reduce(seen.float())
    for statistic in statistics:
        assert statistic is not None
        statistic.copy_(epoch.all_reduce(statistic * seen) / total.clamp_min(1))
    return bool(total > 0)


@hookimpl
def robustmm_register_balancers(register: Callable[[Component], None]) -> None:
    """Offer the strategy."""
    register(
        Component(
            name="diagnosing_relearning",
            build=DiagnosingRelearning,
            options=DiagnosingRelearningOptions,
            summary="Pull encoders back that separate the classes better in training than on validation.",
            source="Wei et al., ECCV 2024, arXiv:2407.09705; code GeWu-Lab/Diagnosing_Relearning_ECCV2024",
            fidelity="code",
            requires=frozenset({"class_probability"}),
        )
    )
