"""MMCosine: the prediction is a sum of cosines, one per modality, so that none wins by the size of its numbers."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from robustmm import Component, DecisionMethod, Options, hookimpl, mean_over_present


class MMCosine(DecisionMethod):
    """The sum over modalities of scaled cosines, each of a modality's feature and its class vectors.

    As it reads a concatenation: the columns of one linear layer that belong to a modality are its head here, with each
    class vector and each feature at length 1, and without bias. The task's loss of the sum is the only one.

    With k of M modalities present the sum of their cosines is multiplied by M / k, so that the largest logit is the
    same for every combination. That is ours; the published method knows no missing modalities.

    Source:
        MMCosine (ICASSP 2023, arXiv:2303.05338), code GeWu-Lab/MMCosine_ICASSP23. One of its two scripts evaluates a
        linear layer with a bias and features of any length instead, which is not what has been trained: the bias gets
        no gradient at all. That form is not offered. Nor are its contrastive term, which is off there by default, and
        its symmetric forms of gated and FiLM fusion.
    """

    def combine(self, opinions: Tensor, presence: Tensor) -> Tensor:
        """M times the mean over the present modalities, whose heads bring the scale."""
        return len(self.modalities) * mean_over_present(opinions, presence)


@hookimpl
def robustmm_register_methods(register: Callable[[Component], None]) -> None:
    """Offer the method."""
    register(
        Component(
            name="mmcosine",
            build=MMCosine,
            options=Options,
            summary="Sum of scaled cosines, one per modality, so that none wins by the size of its features.",
            source="Xu et al., ICASSP 2023, arXiv:2303.05338; code GeWu-Lab/MMCosine_ICASSP23",
            fidelity="code",
            requires=frozenset({"class_probability", "separate_encoders", "head:cosine"}),
            conflicts=frozenset({"stands_in"}),
            provides=frozenset({"no_fusion"}),
        )
    )
