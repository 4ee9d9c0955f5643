"""OGM-GE: gradient modulation, and noise that gives back what the smaller step takes from stochastic descent.

Source: Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, CVPR 2022, arXiv:2203.15332; code
GeWu-Lab/OGM-GE_CVPR2022.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustmm import Component, StepView, hookimpl

from .ogm import OGM, OGMOptions

#: Added to each deviation, as released: a zero gradient still gets a trace of noise.
SMALLEST_DEVIATION = 1e-8


class OGMGEOptions(OGMOptions):
    """The options of OGM; alpha 0 leaves the noise alone."""


def enhancement_noise(gradients: list[Tensor], scale: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Gaussian noise as large as the gradients vary, one tensor for each of them.

    Args:
        gradients: At least two elements each.
        scale: Scalar, multiplies the noise.
        generator: On the gradients' device.

    Returns:
        N(0, (std + 1e-8)^2) per tensor, with the unbiased deviation over the elements of that tensor.
    """
    first = gradients[0]
    sizes = [gradient.numel() for gradient in gradients]
    flat = torch.randn(sum(sizes), generator=generator, device=first.device, dtype=torch.float32).to(first.dtype)
    deviation = torch.stack([gradient.std() for gradient in gradients]) + SMALLEST_DEVIATION
    factors = (deviation * scale).to(first.dtype).unbind()
    pieces = zip(flat.split(sizes), gradients, factors, strict=True)  # type: ignore[no-untyped-call]  # untyped in torch
    return [piece.view_as(gradient) * factor for piece, gradient, factor in pieces]


class OGMGE(OGM):
    """OGM, then noise on the same tensors of every encoder, also of those that are not damped.

    The deviation is that of the gradient before it is damped. The paper speaks of the covariance of the mini-batch
    gradient; the code, which made the published numbers and is followed here, takes one deviation over the elements of
    each tensor. A tensor of one element has none and gets no noise, nor does the encoder of a modality that has no
    score in this batch. The noise is drawn anew each step from the run's seed and is the same on every process, which
    keeps replicas equal.

    Args:
        alpha, first_epoch, last_epoch, rows, parameters: See `robustmm_plugins.balancing.ogm.OGMOptions`.
    """

    def apply(self, gradients: list[list[Tensor]], score: Tensor, view: StepView) -> None:
        """See `OGM.apply`."""
        scored = ~score.isnan()
        compared = (scored & (scored.sum() > 1)).to(torch.float32).unbind()
        generator = view.generator("ogm_ge")
        varied = [[gradient for gradient in own if gradient.numel() > 1] for own in gradients]
        noise = [
            enhancement_noise(own, scale, generator) if own else [] for own, scale in zip(varied, compared, strict=True)
        ]
        super().apply(gradients, score, view)
        for own, added in zip(varied, noise, strict=True):
            if own:
                torch._foreach_add_(own, added)


@hookimpl
def robustmm_register_balancers(register: Callable[[Component], None]) -> None:
    """Offer the strategy."""
    register(
        Component(
            name="ogm_ge",
            build=OGMGE,
            options=OGMGEOptions,
            summary="Damp the gradients of the leading encoder, add noise of the gradients' own size.",
            source="Peng et al., CVPR 2022, arXiv:2203.15332; code GeWu-Lab/OGM-GE_CVPR2022",
            fidelity="code",
            requires=frozenset({"class_probability"}),
        )
    )
