"""Late fusion: every modality predicts alone, and the mean of the logits is the prediction."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from robustmm import Batch, Blueprint, Clock, Component, DecisionMethod, LossTerm, Options, Output, hookimpl


class LateFusionOptions(Options):
    """Options of late fusion."""

    unimodal_weight: float = Field(
        1.0, ge=0, description="Weight of each modality's own loss beside that of the mean; 0 trains the mean alone."
    )


class LateFusion(DecisionMethod):
    """The mean of the present modalities' logits, and a loss on each modality's own.

    The baseline of every table of dynamic or trusted fusion: equal networks, and a rule without confidence.

    Args:
        blueprint: See `Blueprint`.
        unimodal_weight: See `LateFusionOptions`.
    """

    def __init__(self, blueprint: Blueprint, *, unimodal_weight: float = 1.0) -> None:
        super().__init__(blueprint)
        self.unimodal_weight = unimodal_weight

    def losses(self, output: Output, batch: Batch, clock: Clock) -> dict[str, LossTerm]:
        """See `Method.losses`: ``task``, and ``unimodal/<modality>`` for each."""
        terms = super().losses(output, batch, clock)
        if self.unimodal_weight > 0:
            for name, loss in zip(self.modalities, self.unimodal_losses(output, batch), strict=True):
                terms[f"unimodal/{name}"] = LossTerm(self.unimodal_weight * loss, "auxiliary")
        return terms


@hookimpl
def robustmm_register_methods(register: Callable[[Component], None]) -> None:
    """Offer the method."""
    register(
        Component(
            name="late_fusion",
            build=LateFusion,
            options=LateFusionOptions,
            summary="Mean of the logits of one network per modality, each trained by a loss of its own.",
            source="standard",
            requires=frozenset({"separate_encoders"}),
            conflicts=frozenset({"stands_in"}),
            provides=frozenset({"no_fusion"}),
        )
    )
