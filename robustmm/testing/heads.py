"""What heads promise."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robustmm.models.head import Head
from robustmm.registry import Component
from robustmm.testing.contract import build, check, during, require, require_close, require_finite, require_gradients

OUTPUTS = 3
BATCH = 4
#: Channels and sizes of the fused levels, and the size of the target, for global and dense prediction. The levels are
#: halved five times and rounded up, down to one position.
FUSED: dict[str, tuple[tuple[int, ...], tuple[tuple[int, ...], ...], tuple[int, ...]]] = {
    "global": ((5,), ((),), ()),
    "dense": ((4, 6, 8, 6, 8), ((16, 12), (8, 6), (4, 3), (2, 2), (1, 1)), (31, 23)),
}


def heads(component: Component) -> Iterator[tuple[str, Head, list[Tensor], tuple[int, ...]]]:
    """(form, head, fused levels, target size), global and dense unless the head suits one of them alone."""
    for form in [form for form in FUSED if form in component.suits] or FUSED:
        channels, grids, size = FUSED[form]
        with during(f"{form} prediction"):
            head: Head = build(component, channels=channels, num_outputs=OUTPUTS)
        fused = [torch.randn(BATCH, width, *grid) for width, grid in zip(channels, grids, strict=True)]
        yield form, head, fused, size


@check("head")
def logits_have_the_targets_size(component: Component) -> None:
    """(B, C), or (B, C, H, W) at the target's size, whatever that is."""
    for form, head, fused, size in heads(component):
        with during(f"{form} prediction"):
            logits = head(fused, size)
            require(logits.shape == (BATCH, OUTPUTS, *size), f"{tuple(logits.shape)}, target size is {size}")
            require_finite(logits, "the result")


@check("head")
def samples_do_not_mix(component: Component) -> None:
    """In evaluation a sample's logits are the same in any batch, also alone."""
    for form, head, fused, size in heads(component):
        with during(f"{form} prediction"), torch.no_grad():
            head.eval()
            alone = head([level[1:2] for level in fused], size)
            require_close(head(fused, size)[1:2], alone, "logits of a sample in a batch and alone")


@check("head")
def every_parameter_trains(component: Component) -> None:
    """Each parameter gets a gradient from the logits or a side output."""
    for form, head, fused, size in heads(component):
        with during(f"{form} prediction"):
            scales = head.train().scales(fused, size)
            torch.autograd.backward([(logits * torch.randn_like(logits)).sum() for logits in scales])
            require_gradients(head, "backward from the logits and side outputs")


@check("head")
def side_outputs_follow_the_logits(component: Component) -> None:
    """What is supervised in training is the logits at the target's size, then side outputs that are no larger."""
    for form, head, fused, size in heads(component):
        with during(f"{form} prediction"), torch.no_grad():
            first, *coarser = head.eval().scales(fused, size)
            require_close(first, head(fused, size), "the first scale and the logits")
            largest = first.shape[2:].numel()
            for logits in coarser:
                shape = tuple(logits.shape)
                require(shape[:2] == (BATCH, OUTPUTS), f"a side output is {shape}, logits are {tuple(first.shape)}")
                require_finite(logits, "a side output")
                require(logits.shape[2:].numel() <= largest, f"a side output is {shape}, larger than the scale before")
                largest = logits.shape[2:].numel()


@check("head")
def linear_parts_add_up(component: Component) -> None:
    """Where there is a linear part, those of two summands, with half the bias each, make the logits of their sum."""
    for form, head, fused, size in heads(component):
        if form != "global":
            continue
        with during(f"{form} prediction"), torch.no_grad():
            head.eval()
            others = [torch.randn_like(level) for level in fused]
            share = torch.full((BATCH,), 0.5)
            first, second = head.linear_part(fused, share), head.linear_part(others, share)
            if first is None or second is None:
                continue
            whole = head([one + other for one, other in zip(fused, others, strict=True)], size)
            require_close(first + second, whole, "sum of the linear parts and logits")
