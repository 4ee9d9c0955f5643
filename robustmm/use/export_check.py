"""Does an exported file predict what the model predicts? On every combination, in batches of several sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from robustmm.errors import RunFailed
from robustmm.masks import combination_table, presence_of
from robustmm.methods.method import Method
from robustmm.models.scaler import Scaler
from robustmm.seeding import generator_for
from robustmm.signature import Signature

#: Modalities in column order and presence, (B, ...) each, to logits.
Program = Callable[[Sequence[Tensor]], Tensor]
#: Sizes of the batches in which a program with an open batch is run.
BATCHES = (1, 2, 5, 16)
#: Largest difference of logits, as a share of the largest logit or of 1, whichever is more.
TOLERANCE = 1e-4
#: With more modalities than this, single ones and all together stand for every combination.
MOST_FOR_ALL = 12
#: Random samples per combination.
RANDOM = 2


@dataclass(frozen=True)
class Difference:
    """How far a file's logits are from the model's.

    Args:
        largest: Largest difference.
        scale: Largest logit of the model, at least 1.
        samples: Predictions that were compared.
        combinations: Combinations among them.
    """

    largest: float
    scale: float
    samples: int
    combinations: int

    @property
    def small(self) -> bool:
        """Whether it is within `TOLERANCE`; NaN is not."""
        return self.largest <= TOLERANCE * self.scale


@dataclass(frozen=True)
class Compare:
    """The model that a file is compared with, as it predicts in evaluation.

    Args:
        method: On the CPU.
        size: Of dense predictions.
        signature: What it takes.
    """

    method: Method
    size: tuple[int, ...]
    signature: Signature

    def logits(self, tensors: Sequence[Tensor]) -> Tensor:
        """See `Program`."""
        *inputs, presence = tensors
        with torch.inference_mode():
            named = dict(zip(self.method.modalities, inputs, strict=True))
            logits: Tensor = self.method(named, presence, size=self.size).logits.float()
        return logits.clone()

    def table(self) -> Tensor:
        """The combinations, (K, M) bool."""
        names = self.method.modalities
        if len(names) <= MOST_FOR_ALL:
            return combination_table(names)
        return torch.stack([presence_of(one, names) for one in (*((name,) for name in names), names)])

    def _scaler(self, name: str) -> Scaler | None:
        """What scales a modality, wherever the trunk has it."""
        parts = self.method.named_modules()
        own = (part for path, part in parts if isinstance(part, Scaler) and path.endswith(f"scalers.{name}"))
        return next(own, None)

    def random_samples(self, count: int) -> dict[str, Tensor]:
        """Values of the size that training had, some of them "not measured" where a modality knows that."""
        made = {}
        for one in self.signature.modalities:
            generator = generator_for("export", one.name)
            shape = (one.shape[0], *self.signature.size_of(one)) if len(one.shape) == 3 else one.shape
            value = torch.randn(count, *shape, generator=generator)
            scaler = self._scaler(one.name)
            value = value if scaler is None else scaler.mean + scaler.std * value
            if one.scaling.invalid is not None:
                value[torch.rand(value.shape, generator=generator) < 0.1] = one.scaling.invalid
            made[one.name] = value
        return made


def check_program(
    program: Program, compare: Compare, *, batch: int | None, real: Mapping[str, Tensor] | None
) -> dict[str, Difference]:
    """Compare a file with the model on random samples, and on real ones where there are some.

    Args:
        program: The file, run.
        compare: The model.
        batch: Samples of every call; None where it may be any.
        real: Modality -> (B, ...).

    Returns:
        By what was predicted: ``random`` and ``real``.

    Raises:
        RunFailed: a difference is too large.
    """
    found = {"random": _difference(program, compare, compare.random_samples(RANDOM), batch)}
    if real is not None:
        found["real"] = _difference(program, compare, real, batch)
    wrong = [
        f"on {name} samples logits differ by {own.largest:.3g}, where {TOLERANCE * own.scale:.3g} is accepted"
        for name, own in found.items()
        if not own.small
    ]
    if wrong:
        raise RunFailed(f"the exported file does not predict what the model predicts ({'; '.join(wrong)}); removed")
    return found


def _difference(program: Program, compare: Compare, samples: Mapping[str, Tensor], batch: int | None) -> Difference:
    """Every sample under every combination."""
    table = compare.table()
    count = len(next(iter(samples.values())))
    rows = torch.arange(count).repeat(len(table))
    presence = table.repeat_interleave(count, dim=0)  # (K B, M)
    largest, scale = 0.0, 1.0
    for part in _parts(len(rows), batch):
        tensors = [*(samples[name][rows[part]] for name in compare.method.modalities), presence[part]]
        expected, got = compare.logits(tensors), program(tensors)
        apart = float((expected - got).abs().max())
        largest = apart if apart != apart else max(largest, apart)  # NaN stays
        scale = max(scale, float(expected.abs().max()))
        if largest != largest:
            break
    return Difference(largest, scale, len(rows), len(table))


def _parts(total: int, batch: int | None) -> Iterator[Tensor]:
    """Positions in batches of the wanted size, or of several; the last one begins again at 0 where it must be full."""
    sizes = cycle([batch] if batch else BATCHES)
    start = 0
    while start < total:
        size = next(sizes)
        places = torch.arange(start, start + size)
        yield places % total if batch else places[places < total]
        start += size
