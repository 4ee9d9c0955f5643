"""The contract of a test-time adapter: a trained model changes itself as batches come in, without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn

from robustmm.methods.method import Method
from robustmm.types import Output

#: The output for the batch at hand under the weights as they are now; with a graph unless gradients are switched off.
Predict = Callable[[], Output]


class Adapter:
    """Updates a trained model batch by batch, and predicts each batch with what it has become.

    One object serves one stream of batches and may keep state, such as an optimiser. All else is the stream's affair,
    see `robustmm.adaptation.stream`: the model is in evaluation mode, so that BatchNorm statistics stay; only the
    parameters that the adapter names have a gradient; the model is afterwards as it was.

    Attributes:
        reset: ``never``: each batch goes on from the weights that the batch before it left; ``batch``: each batch
            begins with the trained weights and a prepared adapter.
    """

    reset: Literal["never", "batch"] = "never"

    def parameters(self, method: Method) -> list[nn.Parameter]:
        """What is adapted: as it stands what the fusion offers, see `robustmm.Fusion.adaptable`."""
        return method.trunk.adaptable()

    def prepare(self, parameters: Sequence[nn.Parameter]) -> None:
        """Forget everything; called before the first batch, and before every one where `reset` says ``batch``.

        Args:
            parameters: Those of `parameters`, which are to be changed in place, by an optimiser made here for example.
        """

    def adapt(self, predict: Predict) -> Output:
        """Adapt to a batch and predict it; as it stands the prediction of the trained model.

        Args:
            predict: May be called as often as needed. Every sample that it shows has a modality, so that the logits of
                all rows mean something.

        Returns:
            The output that is scored.
        """
        with torch.no_grad():
            return predict()
