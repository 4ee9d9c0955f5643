"""DGL: encoders learn from unimodal losses, fusion and head from the joint one.

Source: Wei et al., Boosting Multimodal Learning via Disentangled Gradient Learning, ICCV 2025, arXiv:2507.10213; code
shicaiwei123/ICCV2025-GDL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import Field

from robustmm import Balancer, Component, LossTerm, Options, StepView, added, hookimpl, total

#: Begins the names of the terms that reach encoders alone.
PREFIX = "alone"


class DGLOptions(Options):
    """Options of the strategy."""

    alpha: float = Field(
        4.0,
        ge=0,
        description="Weight of the unimodal losses, in effect a factor of the encoders' learning rate. Released: 4 and "
        "5 (CREMA-D), 2 and 3 (Kinetics-Sounds), 2 (VGGSound). 0 trains no encoder.",
    )


class DGL(Balancer):
    """Disentangled gradient learning.

    The task's losses reach fusion and head alone, with the encoders' features taken as constants; encoders get ``alpha
    * sum_m L_m``, the losses of each modality alone through the same fusion and head, which get none of it. Terms that
    are not the task's, such as a distillation, reach everything. Every parameter outside of the encoders counts as
    fusion.

    These are the gradients of the released code behind concatenation, sums and bilinear fusion. Its gated fusion cuts
    the gradient behind a projection that then never trains; here it is cut at the encoders' output. Its files for
    fusion at several stages do not cut it at all. Of a trunk that fuses at several stages, where a modality carries
    the fused maps on, every loss of one modality reaches all encoders that it passes, the carrier's included.

    A modality's loss is the mean over the samples that show it. Hidden modalities are what the missing policy makes of
    them; the unimodal passes run in evaluation mode, so that they leave no trace in statistics of BatchNorm.

    Where no sample shows two modalities, nothing is changed.

    Args:
        alpha: See `DGLOptions`.
    """

    def __init__(self, *, alpha: float = 4.0) -> None:
        self.alpha = alpha

    def weigh(self, terms: Mapping[str, LossTerm], view: StepView) -> Mapping[str, LossTerm]:
        """Add the loss of each modality alone."""
        if self.alpha == 0 or not view.contested:
            return terms
        return added(terms, {name: self.alpha * loss for name, loss in view.shared_head_losses().items()}, PREFIX)

    def backward(self, terms: Mapping[str, LossTerm], view: StepView) -> None:
        """Two passes: to fusion and head, then to the encoders."""
        if not view.contested:
            super().backward(terms, view)
            return
        alone = {name: term for name, term in terms.items() if name.startswith(f"{PREFIX}/")}
        joint = {name: term for name, term in terms.items() if name not in alone}
        to_all = {name: term for name, term in joint.items() if term.role != "task"}
        view.backward(total(joint), only=view.shared, retain_graph=True)
        to_encoders = alone | to_all
        if to_encoders:
            view.backward(total(to_encoders), only=view.encoders)


@hookimpl
def robustmm_register_balancers(register: Callable[[Component], None]) -> None:
    """Offer the strategy."""
    register(
        Component(
            name="dgl",
            build=DGL,
            options=DGLOptions,
            summary="Encoders learn from unimodal losses, fusion and head from the joint one.",
            source="Wei et al., ICCV 2025, arXiv:2507.10213; code shicaiwei123/ICCV2025-GDL",
            fidelity="code",
        )
    )
