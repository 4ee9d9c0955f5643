"""Joint training in which each sample shows a random combination of its modalities."""

from __future__ import annotations

from collections.abc import Callable

from robustmm import Component, Method, Options, hookimpl


class ModalityDropoutOptions(Options):
    """The combinations are drawn by the sampler, which has options of its own."""


class ModalityDropout(Method):
    """Plain training under masks: each sample draws one of the non-empty combinations of what it has, uniformly.

    This is the deployment network of MMANet and DMRNet without their helpers, hence the baseline both are held
    against. An absent modality is what the missing policy makes of it; features are not rescaled.

    Source:
        MMANet (CVPR 2023, arXiv:2304.08028), section 3.1, without teacher and regularisation head.
    """

    sampler = "uniform"


@hookimpl
def robustmm_register_methods(register: Callable[[Component], None]) -> None:
    """Offer the method."""
    register(
        Component(
            name="modality_dropout",
            build=ModalityDropout,
            options=ModalityDropoutOptions,
            summary="Joint training in which each sample shows a random combination of its modalities.",
            source="standard; the deployment network of MMANet, arXiv:2304.08028",
        )
    )
