"""Batches that come in one after the other, and a model that an adapter changes on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robustmm.adaptation.adapter import Adapter, Predict
from robustmm.errors import RobustmmError, ShapeError
from robustmm.methods.method import Method
from robustmm.models.modes import evaluating
from robustmm.models.trunk import Features
from robustmm.types import Output

#: Makes the context of the run's precision, afresh for each call.
Autocast = Callable[[], AbstractContextManager[Any]]
#: How to mend a model in which there is nothing to adapt.
REPAIR = "train with a fusion that has parameters, such as attention, gated, film or sum"


def adapted_parameters(adapter: Adapter, method: Method) -> list[nn.Parameter]:
    """What an adapter is going to change in a model.

    Raises:
        RobustmmError: nothing.
    """
    parameters = adapter.parameters(method)
    if not parameters:
        raise RobustmmError(
            f"adapter {type(adapter).__name__} finds no parameter to adapt in {type(method).__name__} with "
            f"{type(method.trunk).__name__}: its fusion offers none; {REPAIR}"
        )
    return parameters


@contextmanager
def only_adapting(method: Method, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within, evaluation mode and gradients of ``parameters`` alone; afterwards every bit of the model as it was."""
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in method.parameters()]
    trained = copies(parameters)
    chosen = set(map(id, parameters))
    with evaluating(method):
        try:
            for parameter, _, _ in before:
                parameter.requires_grad_(id(parameter) in chosen)
                parameter.grad = None
            yield
        finally:
            put(parameters, trained)
            for parameter, trains, gradient in before:
                parameter.requires_grad_(trains)
                parameter.grad = gradient


def copies(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The values of parameters, apart from them."""
    return [parameter.detach().clone() for parameter in parameters]


def put(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    """Give parameters these values, in place."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


@dataclass(frozen=True)
class Encoded:
    """A batch whose modalities are encoded.

    Args:
        inputs: Modality -> (B, ...), raw.
        features: As the encoders made them, without a graph; None where the adapter changes the encoders themselves.
        size: Spatial size of the target, () for global prediction.
    """

    inputs: Mapping[str, Tensor]
    features: Features | None
    size: tuple[int, ...]

    def rows(self, rows: Tensor) -> Encoded:
        """Some of the samples; rows (R,) int64 on the inputs' device."""
        inputs = {name: value[rows] for name, value in self.inputs.items()}
        if self.features is None:
            return Encoded(inputs, None, self.size)
        return Encoded(inputs, {name: [x[rows] for x in levels] for name, levels in self.features.items()}, self.size)


class AdaptedModel:
    """A trained model that adapters change; several streams may share it, each with weights of its own.

    Args:
        method: On its device, within `only_adapting`.
        parameters: What the streams' adapters change.
        autocast: Precision context of the run. It must not be active around the streams: a backward pass belongs
            outside of it, and weights that it has cast before an update would be used after it.
    """

    def __init__(self, method: Method, parameters: Sequence[nn.Parameter], autocast: Autocast = nullcontext) -> None:
        self.method = method
        self.parameters = list(parameters)
        self.trained = copies(parameters)
        self._autocast = autocast
        encoders = {id(one) for group in method.trunk.parameter_groups().values() for one in group}
        self._keeps_features = encoders.isdisjoint(map(id, self.parameters))

    def encode(self, inputs: Mapping[str, Tensor], observed: Tensor, size: tuple[int, ...]) -> Encoded:
        """Encode all that was observed (B, M), once for every stream; evaluation without an adapter does the same."""
        if not self._keeps_features:
            return Encoded(inputs, None, size)
        # Not in inference mode, whose tensors could not take part in a graph later.
        with torch.no_grad(), self._autocast():
            return Encoded(inputs, self.method(inputs, observed, size=size).features, size)

    def predictor(self, encoded: Encoded, presence: Tensor) -> Predict:
        """The prediction of a batch under the weights of the moment, presence (B, M) bool.

        From the fusion on where the trunk can fuse features anew, else from the inputs.
        """
        method = self.method

        def predict() -> Output:
            with self._autocast():
                # Whoever calls may have autocast on already; its copies of weights are older than the last update.
                torch.clear_autocast_cache()
                if encoded.features is not None:
                    shown = presence.to(next(iter(encoded.inputs.values())).device)
                    fused = method.trunk.refuse(encoded.features, shown)
                    if fused is not None:
                        return method.readout(encoded.features, fused, shown, encoded.size)
                return method(encoded.inputs, presence, size=encoded.size)  # type: ignore[no-any-return]

        return predict


class Stream:
    """One adapter's batches, one after the other, and the weights that it has come to.

    Args:
        adapter: Of this stream alone.
        model: Its weights are those of this stream after each batch; `only_adapting` gives the trained ones back.
    """

    def __init__(self, adapter: Adapter, model: AdaptedModel) -> None:
        self.adapter = adapter
        self.model = model
        self._weights: list[Tensor] | None = None

    def __call__(self, encoded: Encoded, presence: Tensor) -> Output:
        """Adapt to a batch and predict it.

        Args:
            encoded: By the stream's model.
            presence: (B, M) bool; each sample shows something.

        Returns:
            The output; no graph hangs on its logits.
        """
        parameters = self.model.parameters
        if self._weights is None or self.adapter.reset == "batch":
            self._weights = self.model.trained
            self.adapter.prepare(parameters)
        put(parameters, self._weights)
        output = self.adapter.adapt(self.model.predictor(encoded, presence))
        for parameter in parameters:
            parameter.grad = None  # another stream's adapter must not find it
        self._weights = copies(parameters)
        output.logits = output.logits.detach()
        return output


class PredictBatch(Protocol):
    """Adapts to a batch and predicts it."""

    def __call__(self, inputs: Mapping[str, Tensor], presence: Tensor, size: tuple[int, ...] = ()) -> Output:
        """Predict.

        Args:
            inputs: Modality -> (B, ...), raw, on the model's device.
            presence: (B, M) bool.
            size: Spatial size of the target, () for global prediction.

        Raises:
            ShapeError: a sample has no modality.
        """


@contextmanager
def adapting(method: Method, adapter: Adapter, *, autocast: Autocast = nullcontext) -> Iterator[PredictBatch]:
    """Predict with an adapter, batch by batch; afterwards the model is as it was.

    ::

        with adapting(method, adapter) as predict:
            for batch in batches:
                logits = predict(batch.inputs, batch.observed).logits

    Args:
        method: On its device.
        adapter: A fresh one.
        autocast: Precision context of the run.

    Yields:
        See `PredictBatch`.

    Raises:
        RobustmmError: there is nothing to adapt.
    """
    parameters = adapted_parameters(adapter, method)
    with only_adapting(method, parameters):
        model = AdaptedModel(method, parameters, autocast)
        stream = Stream(adapter, model)

        def predict(inputs: Mapping[str, Tensor], presence: Tensor, size: tuple[int, ...] = ()) -> Output:
            if not bool(presence.any(dim=1).all()):
                raise ShapeError("a sample without any modality can neither be predicted nor adapted to; leave it out")
            return stream(model.encode(inputs, presence, size), presence)

        yield predict
