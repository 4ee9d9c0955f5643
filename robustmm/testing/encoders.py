"""What encoders promise."""

from __future__ import annotations

import torch
from torch import Tensor

from robustmm.models.encoder import Encoder
from robustmm.registry import Component
from robustmm.testing.contract import (
    NotApplicable,
    build,
    check,
    during,
    require,
    require_close,
    require_finite,
    require_gradients,
)
from robustmm.types import Modality, Scaling

#: Samples of every kind, odd sizes among them.
SHAPES = {
    "vector": ((1,), (7,)),
    "sequence": ((1, 33), (3, 50)),
    "image": ((1, 33, 47), (3, 40, 64)),
    "spectrogram": ((1, 37, 51),),
}


def modalities_for(component: Component) -> list[Modality]:
    """A modality of each shape of each kind that the encoder suits.

    Raises:
        NotApplicable: it suits none of the known kinds.
    """
    kinds = [kind for kind in SHAPES if not component.suits or kind in component.suits]
    if not kinds:
        raise NotApplicable(f"it suits {', '.join(sorted(component.suits))} alone")
    return [Modality("m0", kind, shape, Scaling("none")) for kind in kinds for shape in SHAPES[kind]]  # type: ignore[arg-type]  # keys of SHAPES are kinds


def one_of_each_rank(component: Component) -> list[Modality]:
    """A modality of each number of axes that the encoder suits, for what takes long to repeat."""
    return list({len(modality.shape): modality for modality in modalities_for(component)}.values())


def inputs(modality: Modality, count: int) -> Tensor:
    """Standard normal values, (B, ...)."""
    return torch.randn(count, *modality.shape)


def level_fits(level: Tensor, modality: Modality, channels: int, reduction: int) -> bool:
    """Whether a level has the declared channels, and the input's size divided by the reduction, either way rounded."""
    if level.shape[1] != channels:
        return False
    if reduction == 0:
        return level.dim() == 2
    sizes = list(zip(level.shape[2:], modality.shape[1:], strict=False))
    return level.dim() == len(modality.shape) + 1 and all(
        whole // reduction <= part <= -(-whole // reduction) for part, whole in sizes
    )


@check("encoder")
def levels_are_as_declared(component: Component) -> None:
    """Each level has the channels and the reduction that the encoder declares, for any size of the input."""
    for modality in modalities_for(component):
        with during(modality):
            encoder: Encoder = build(component, modality=modality).eval()
            with torch.no_grad():
                levels = encoder(inputs(modality, 2))
            counts = len(levels), len(encoder.channels), len(encoder.reductions)
            require(len(set(counts)) == 1, f"{counts[0]} levels, {counts[1]} channels and {counts[2]} reductions")
            declared = zip(levels, encoder.channels, encoder.reductions, strict=True)
            for place, (level, channels, reduction) in enumerate(declared):
                require(
                    level_fits(level, modality, channels, reduction) and len(level) == 2,
                    f"level {place} of an input (2, {', '.join(map(str, modality.shape))}) is {tuple(level.shape)}, "
                    f"declared are {channels} channels and reduction {reduction}",
                )


@check("encoder")
def rows_do_not_mix_in_evaluation(component: Component) -> None:
    """In evaluation a sample's feature is the same in any batch and in any call, also alone."""
    for modality in one_of_each_rank(component):
        with during(modality), torch.no_grad():
            encoder: Encoder = build(component, modality=modality).eval()
            x = inputs(modality, 3)
            together, again, alone = encoder(x), encoder(x), encoder(x[1:2])
            for place, level in enumerate(together):
                require_finite(level, f"level {place}")
                require_close(level, again[place], f"level {place} of one input in two calls", tolerance=0.0)
                what = f"level {place} of a sample in a batch and alone"
                require_close(level[1:2], alone[place], what, tolerance=1e-4)


@check("encoder")
def every_parameter_trains(component: Component) -> None:
    """Each parameter gets a gradient from some level."""
    for modality in one_of_each_rank(component):
        with during(modality):
            encoder: Encoder = build(component, modality=modality).train()
            levels = encoder(inputs(modality, 4))
            torch.autograd.backward(torch.stack([(level * torch.randn_like(level)).sum() for level in levels]).sum())
            require_gradients(encoder, "backward from all levels")
