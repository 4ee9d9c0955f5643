"""Models of a few numbers, global and dense, for tests of methods and balancing strategies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustmm import (
    Batch,
    Blueprint,
    Clock,
    Combination,
    Encoder,
    FeatureEdit,
    Features,
    Fusion,
    Head,
    Method,
    Metrics,
    MissingPolicy,
    Modality,
    Rows,
    Scaling,
    StepView,
    Task,
    Trunk,
    where_present,
)
from robustmm.masks import all_combinations, presence_of
from robustmm.models.fusion import NoFusion
from robustmm.models.trunk import LateTrunk

NAMES = ("rgb", "depth", "ir", "audio")
WIDTH = 4
CLASSES = 3
GRID = (4, 6)


class TinyMetrics(Metrics):
    """A confusion matrix; accuracy, or mean IoU over the classes that occur."""

    def __init__(self, classes: int, score: str) -> None:
        self.confusion = torch.zeros(classes, classes + 1, dtype=torch.int64)
        self.count = 0
        self.score = score

    def update(self, logits: Tensor, target: Tensor) -> None:
        classes = len(self.confusion)
        flat = target.flatten() * (classes + 1) + logits.argmax(dim=1).flatten()
        self.confusion += torch.bincount(flat, minlength=classes * (classes + 1)).view(classes, classes + 1)
        self.count += len(target)

    def merge(self, other: Metrics) -> None:
        self.confusion += other.confusion
        self.count += other.count

    def compute(self) -> dict[str, float | None]:
        square = self.confusion[:, :-1].double()
        hits = square.diagonal()
        union = square.sum(0) + square.sum(1) - hits
        value = hits.sum() / square.sum() if self.score == "accuracy" else (hits / union)[union > 0].mean()
        return {self.score: float(value)}

    @property
    def degenerate(self) -> bool:
        return False


class TinyTask(Task):
    """Cross-entropy over samples, or over pixels where ``dense``."""

    default_head = "linear"

    def __init__(self, *, dense: bool = False, classes: int = CLASSES) -> None:
        super().__init__([f"class_{index}" for index in range(classes)])
        self.dense = dense
        self.score = "miou" if dense else "accuracy"
        self.directions: dict[str, Literal["max", "min"]] = {self.score: "max"}

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target)

    def sample_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, reduction="none").reshape(len(target), -1).mean(dim=1)

    def masked_loss(self, logits: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        losses = self.sample_losses(logits, target)
        return losses.masked_fill(~keep, 0).sum() / keep.sum().clamp_min(1)

    def rows(self, logits: Tensor, target: Tensor) -> Rows:
        sample = torch.arange(len(target)).view(-1, *[1] * (target.dim() - 1)).expand_as(target)
        return Rows(logits.movedim(1, -1).flatten(0, -2), target.flatten(), sample.flatten())

    def metrics(self) -> TinyMetrics:
        return TinyMetrics(self.num_outputs, self.score)


class ConcatFusion(Fusion):
    """Features side by side."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__((sum(widths),))

    def forward(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> Tensor:
        return torch.cat(list(features.values()), dim=1)

    def summands(self, level: int, features: Mapping[str, Tensor], presence: Tensor) -> dict[str, Tensor] | None:
        def padded(name: str) -> Tensor:
            return torch.cat([f if n == name else torch.zeros_like(f) for n, f in features.items()], dim=1)

        return {name: padded(name) for name in features}


class LinearHead(Head):
    """One linear layer on the last level; each position of a map is a row, and maps are resized to the target."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels[-1], classes)

    def forward(self, fused: Sequence[Tensor], size: tuple[int, ...]) -> Tensor:
        logits = self.linear(fused[-1].movedim(1, -1)).movedim(-1, 1)
        return F.interpolate(logits, size=size, mode="bilinear") if size else logits

    def linear_part(self, fused: Sequence[Tensor], bias_share: Tensor) -> Tensor | None:
        return fused[-1] @ self.linear.weight.T + bias_share[:, None] * self.linear.bias


class DenseTrunk(Trunk):
    """Two convolution stages per modality, summed level by level; the second level has half the resolution."""

    def __init__(self, modalities: Sequence[Modality], *, fused: bool = True) -> None:
        super().__init__()
        self.modalities = tuple(modality.name for modality in modalities)
        self.fused_channels = (WIDTH, WIDTH) if fused else ()
        self.feature_channels = dict.fromkeys(self.modalities, (WIDTH, WIDTH))
        self.policy = MissingPolicy()
        self.encoders = nn.ModuleDict({name: self._encoder() for name in self.modalities})

    @staticmethod
    def _encoder() -> Encoder:
        first = nn.Sequential(nn.Conv2d(2, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU())
        second = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, stride=2), nn.Tanh())
        return Encoder(nn.ModuleList([first, second]), (WIDTH, WIDTH), (1, 2))

    def forward(
        self, inputs: Mapping[str, Tensor], presence: Tensor, edit: FeatureEdit | None = None
    ) -> tuple[Features, list[Tensor]]:
        features = {name: self.encoders[name](inputs[name]) for name in self.modalities}
        return features, self.refuse(features, presence)

    def refuse(self, features: Features, presence: Tensor) -> list[Tensor]:
        return [
            sum(
                where_present(features[name][level], presence[:, m], torch.zeros(())) for m, name in enumerate(features)
            )
            for level in range(len(self.fused_channels))
        ]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {name: list(encoder.parameters()) for name, encoder in self.encoders.items()}


def blueprint(count: int, *, dense: bool = False, task: Task | None = None) -> Blueprint:
    """Parts for ``count`` modalities: MLPs with BatchNorm and concatenation, or `DenseTrunk`."""
    shape = (2, *GRID) if dense else (5,)
    modalities = tuple(Modality(n, "image" if dense else "vector", shape, Scaling("none")) for n in NAMES[:count])
    task = task or TinyTask(dense=dense)

    def make_trunk(*, only: Sequence[str] | None = None, fused: bool = True) -> Trunk:
        chosen = tuple(modality for modality in modalities if only is None or modality.name in only)
        if dense:
            return DenseTrunk(chosen, fused=fused)
        encoders = {modality.name: _vector_encoder() for modality in chosen}
        fusion = ConcatFusion([WIDTH] * len(chosen)) if fused else NoFusion()
        return LateTrunk(chosen, encoders, fusion, MissingPolicy())

    def make_head(channels: tuple[int, ...], outputs: int | None = None) -> Head:
        return LinearHead(channels, task.num_outputs if outputs is None else outputs)

    return Blueprint(modalities, task, make_trunk, make_head, 40)


def _vector_encoder() -> Encoder:
    layers = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, WIDTH), nn.Tanh())
    return Encoder(nn.ModuleList([layers]), (WIDTH,), (0,))


def batch(count: int, *, size: int = 8, dense: bool = False, seed: int = 0) -> Batch:
    """Random inputs and labels, everything observed."""
    generator = torch.Generator().manual_seed(seed)
    shape = (size, 2, *GRID) if dense else (size, 5)
    inputs = {name: torch.randn(shape, generator=generator) for name in NAMES[:count]}
    target = torch.randint(0, CLASSES, (size, *GRID) if dense else (size,), generator=generator)
    ids = tuple(f"sample_{index}" for index in range(size))
    return Batch(inputs, torch.ones(size, count, dtype=torch.bool), target, ids, torch.arange(size))


def mixed_presence(count: int, size: int = 8) -> Tensor:
    """(B, M) bool in which the samples go through all combinations in turn."""
    combinations = all_combinations(NAMES[:count])
    return torch.stack([presence_of(combinations[index % len(combinations)], NAMES[:count]) for index in range(size)])


def shown(combination: Combination, count: int, size: int = 8) -> Tensor:
    """(B, M) bool in which every sample shows ``combination``."""
    return presence_of(combination, NAMES[:count]).expand(size, -1)


def clock(epoch: int = 0, step: int = 0) -> Clock:
    """Epoch and step of a run of 20 epochs."""
    return Clock(epoch=epoch, step=step, epochs=20, steps_per_epoch=10)


def run_forward(method: Method, data: Batch, presence: Tensor) -> torch.Tensor:
    """Logits of a batch."""
    return method(data.inputs, presence, size=tuple(data.target.shape[1:])).logits


def step_view(method: Method, data: Batch, presence: Tensor, *, at: Clock | None = None, seed: int = 0) -> StepView:
    """A view after forward and backward of the sum of the loss terms, as `modulate_gradients` finds it."""
    at = at or clock()
    output = method(data.inputs, presence, size=tuple(data.target.shape[1:]))
    loss = sum(term.value for term in method.losses(output, data, at).values())
    loss.backward()
    view = StepView(method, data, presence, at, method.trunk.parameter_groups(), torch.Tensor.backward, seed=seed)
    view.output = output
    return view


def train_steps(
    method: Method,
    *,
    steps: int = 3,
    epoch: int = 0,
    dense: bool = False,
    after_backward: Callable[[StepView], None] = lambda view: None,
) -> dict[str, Tensor]:
    """A few SGD steps under mixed masks, each seeded by its number; the state after them."""
    count = len(method.modalities)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9)
    method.train()
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        data = batch(count, dense=dense, seed=step)
        after_backward(step_view(method, data, mixed_presence(count), at=clock(epoch, step)))
        optimizer.step()
    return {name: value.clone() for name, value in method.state_dict().items()}
