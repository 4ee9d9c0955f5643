"""A trained run in use: any of its modalities in, a prediction out; its data set need not be there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from robustmm.adaptation.adapter import Adapter
from robustmm.adaptation.stream import Autocast, PredictBatch, adapting
from robustmm.build import adapter_factory
from robustmm.builder import Builder
from robustmm.config.load import load_config
from robustmm.engine.run_folder import RunFolder
from robustmm.engine.trained import load_selected, require_weights
from robustmm.errors import DataError, RobustmmError
from robustmm.masks import all_combinations, combination_name
from robustmm.methods.method import Method
from robustmm.network import untrained
from robustmm.plugin_manager import get_plugins
from robustmm.registry import Registry
from robustmm.signature import Signature, read_signature
from robustmm.types import Combination, Modality
from robustmm.use.batches import Given, is_batch, refuse_unknown, samples_of
from robustmm.use.prediction import Prediction as Prediction
from robustmm.use.prediction import predictions_of
from robustmm.use.ranges import RangeWatch, scalers_of
from robustmm.use.values import ChannelOrder, Value, read_value, refuse_order

#: A sample with the name that its prediction gets.
Named = tuple[str, Given]
PRECISIONS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class _Ready(NamedTuple):
    """A sample whose values have the model's shapes.

    Args:
        id: Its name.
        values: Modality -> value; absent ones have no key.
        size: (H, W) of its dense prediction; () of a global one.
    """

    id: str
    values: dict[str, Value]
    size: tuple[int, ...]

    def layout(self) -> tuple[object, ...]:
        """What samples of one batch have in common."""
        return (self.size, *((name, value.tensor.shape) for name, value in self.values.items() if value.size))


class Predictor:
    """Predicts with a trained model, from whatever of its modalities a sample has.

    `load` makes one. Nothing in it changes from call to call, not with an adapter either: each call begins with the
    trained weights.

    Args:
        method: With its weights, on ``device``.
        signature: What it takes and gives.
        device: Where to compute.
        batch_size: Samples that are computed at once.
        autocast: Precision context of the run.
        make_adapter: A fresh test-time adapter; None predicts with the weights as they are.
        channels: Where the channels of arrays stand; ``auto`` finds out where that is possible.
        resize: Bring maps to the size that the model was evaluated at; False leaves them as they are.

    Raises:
        RobustmmError: ``channels`` is another word.
    """

    def __init__(
        self,
        method: Method,
        signature: Signature,
        device: torch.device,
        *,
        batch_size: int,
        autocast: Autocast = nullcontext,
        make_adapter: Callable[[], Adapter] | None = None,
        channels: ChannelOrder = "auto",
        resize: bool = True,
    ) -> None:
        refuse_order(channels)
        self.method = method.eval()
        self.signature = signature
        self.device = device
        self.batch_size = batch_size
        self.channels = channels
        self.resize = resize
        self._autocast = autocast
        self._make_adapter = make_adapter
        self._ranges = RangeWatch(scalers_of(method.trunk))

    def __repr__(self) -> str:
        taken = ", ".join(f"{one.name} {' x '.join(map(str, one.shape))}" for one in self.modalities)
        given = f"{len(self.classes)} {'quantities' if self.method.task.continuous else 'classes'}"
        run = self.signature.facts.get("name", type(self.method).__name__)
        return f"Predictor({run}: {taken} -> {self.signature.task} of {given}, on {self.device})"

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the model takes, in column order."""
        return self.signature.modalities

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; of regression the names of the quantities."""
        return self.signature.classes

    def predict(self, given: Given | Sequence[Given], *, presence: Any = None, ids: Any = None) -> Any:
        """Predict one sample or several.

        A value is a NumPy array, a torch tensor, a PIL picture, or the path of a file; of a vector also a string of
        numbers. Values are raw, in the units of the data set that the model was trained on. Maps may have their
        channels first or last and any height and width. Values that are not finite become the "not measured" of a
        modality that has one, and are refused elsewhere. Of images in [0, 1] where training values were far larger, a
        warning says so once per modality.

        Args:
            given: Modality -> value, where an absent modality's key is missing or its value is None; or a list of such
                samples; or one mapping whose values have an axis more, or are lists, of several samples.
            presence: (B, M) bool, or whole numbers 0 and 1, for a mapping of several samples: what is shown of it;
                None shows everything.
            ids: Names of the samples, all different; by default their places.

        Returns:
            A `Prediction`; a list of them where several samples are given.

        Raises:
            DataError: a modality is unknown, a value does not fit, or a sample has no modality at all.
        """
        if not isinstance(given, Mapping):
            return list(self.stream(_named(list(given), ids)))
        refuse_unknown(given, self.modalities)
        if is_batch(given, self.modalities):
            return list(self.stream(_named(list(samples_of(given, presence, self.modalities)), ids)))
        if presence is not None:
            raise DataError("presence is for several samples; leave out what a single sample lacks")
        (only,) = self.stream([("0" if ids is None else str(ids), given)])
        return only

    def every_combination(
        self, given: Given, combinations: Sequence[Combination] | None = None, *, id: str = "0"
    ) -> list[Prediction]:
        """Predict one sample from each combination of the modalities that it has, with the weights as they are.

        Args:
            given: See `predict`; read once.
            combinations: Of what is given; None means all of them, small ones first.
            id: The sample's name.

        Returns:
            A prediction per combination; dense ones all have the size of the sample's first map.

        Raises:
            DataError: see `predict`, or a combination has a modality that is not given.
        """
        whole = self._ready(id, given)
        chosen = all_combinations(list(whole.values)) if combinations is None else combinations
        for combo in chosen:
            if not set(combo) <= set(whole.values) or not combo:
                raise DataError(f"combination '{combination_name(combo)}': given are {', '.join(whole.values)}")
        parts = (whole._replace(values={name: whole.values[name] for name in combo}) for combo in chosen)
        return [prediction for part in parts for prediction in self._predict([part], self._run)]

    def stream(self, samples: Iterable[Named]) -> Iterator[Prediction]:
        """Predict named samples in their order, so many at once as ``batch_size`` says, each read when it is needed.

        With an adapter this is one stream: it adapts batch by batch.

        Raises:
            DataError: see `predict`.
        """
        ready = (self._ready(name, given) for name, given in samples)
        with self._running() as run:
            while chunk := list(islice(ready, self.batch_size)):
                for _, alike in groupby(chunk, key=_Ready.layout):
                    yield from self._predict(list(alike), run)

    def _ready(self, name: str, given: Given) -> _Ready:
        refuse_unknown(given, self.modalities)
        values = self._values(name, given)
        if not values:
            names = ", ".join(one.name for one in self.modalities)
            raise DataError(f"sample '{name}' has no modality at all; give at least one of {names}")
        for one in self.modalities:
            if one.name in values:
                self._ranges.look(values[one.name].tensor, one)
        sizes = (value.size for value in values.values())
        return _Ready(name, values, next(sizes) if self.method.task.dense else ())

    def _values(self, name: str, given: Given) -> dict[str, Value]:
        """What is given of a sample in the model's shapes; everything wrong with it at once, a line each."""
        values: dict[str, Value] = {}
        problems: list[str] = []
        for one in self.modalities:
            if given.get(one.name) is None:
                continue
            try:
                values[one.name] = read_value(
                    given[one.name], one, self._size(one), order=self.channels, place=f"sample '{name}', "
                )
            except DataError as error:
                problems.append(str(error))
        if problems:
            raise DataError("\n".join(problems))
        return values

    def _size(self, modality: Modality) -> tuple[int, int] | None:
        return self.signature.size_of(modality) if self.resize and len(modality.shape) == 3 else None

    def _running(self) -> AbstractContextManager[PredictBatch]:
        if self._make_adapter is None:
            return nullcontext(self._run)
        return adapting(self.method, self._make_adapter(), autocast=self._autocast)

    def _run(self, inputs: Mapping[str, Tensor], presence: Tensor, size: tuple[int, ...] = ()) -> Any:
        with torch.inference_mode(), self._autocast():
            return self.method(inputs, presence, size=size)

    def _predict(self, samples: Sequence[_Ready], run: PredictBatch) -> list[Prediction]:
        """Predictions of samples of one layout."""
        presence = torch.tensor([[one.name in sample.values for one in self.modalities] for sample in samples])
        inputs = {one.name: self._column(one, samples).to(self.device) for one in self.modalities}
        logits = run(inputs, presence, samples[0].size).logits
        shown = [tuple(sample.values) for sample in samples]
        return predictions_of(self.method, logits, [sample.id for sample in samples], shown)

    def _column(self, modality: Modality, samples: Sequence[_Ready]) -> Tensor:
        """A modality of several samples, (B, ...), zeros where one lacks it."""
        found = {
            row: sample.values[modality.name] for row, sample in enumerate(samples) if modality.name in sample.values
        }
        shape = next((tuple(value.tensor.shape) for value in found.values()), None) or self._absent(
            modality, samples[0]
        )
        column = torch.zeros(len(samples), *shape)
        for row, value in found.items():
            column[row] = value.tensor
        return column

    def _absent(self, modality: Modality, sample: _Ready) -> tuple[int, ...]:
        """The shape of a modality that no sample has; of a map it follows another map that is declared as large."""
        if len(modality.shape) != 3:
            return modality.shape
        for other in self.modalities:
            if other.name in sample.values and other.shape[1:] == modality.shape[1:]:
                return (modality.shape[0], *sample.values[other.name].tensor.shape[1:])
        return (modality.shape[0], *self.signature.size_of(modality))


def _named(samples: Sequence[Given], ids: Sequence[object] | None) -> Iterator[Named]:
    """Samples with their names, or with their places where they have none.

    Raises:
        DataError: there are more or fewer names than samples, or a name stands there twice.
    """
    if ids is None:
        return zip(map(str, count()), samples, strict=False)
    names = [str(name) for name in ids]
    if len(names) != len(samples):
        raise DataError(f"{len(names)} ids for {len(samples)} samples; give one for each")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(f"ids: {', '.join(map(repr, twice))} given more than once; each sample has an id of its own")
    return zip(names, samples, strict=True)


def load(
    run: str | Path,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    adapter: str | None = None,
    adapter_options: Mapping[str, Any] | None = None,
    channels: ChannelOrder = "auto",
    resize: bool = True,
    registry: Registry | None = None,
) -> Predictor:
    """Load a trained run for use; its data set need not be there.

    ::

        predictor = robustmm.load("runs/dmrnet_nyu/20261120-101500-s0")
        prediction = predictor.predict({"rgb": "photo.jpg", "depth": None})

    Args:
        run: Its folder, as ``robustmm train`` printed it.
        device: ``auto`` takes an accelerator where there is one; or a device of torch such as ``cpu`` or ``cuda:1``.
        batch_size: Samples that are computed at once; None as in the run's evaluation.
        adapter: Name of a test-time adapter, with which each call is a stream of its own; None predicts with the
            weights as they are.
        adapter_options: Of the adapter.
        channels: Where the channels of arrays stand; ``auto`` finds out where that is possible.
        resize: See `Predictor`.
        registry: Of the loaded plugins; None loads them.

    Raises:
        CheckpointError: the folder is no run, or has no weights or no ``model.json``.
        ConfigError: a component of the run is not installed, or the adapter does not fit.
        RobustmmError: ``device`` or ``channels`` is not known.
    """
    refuse_order(channels)
    folder = RunFolder(Path(run))
    folder.require()
    require_weights(folder)  # before model.json, which a run that was never trained lacks too
    registry = registry or get_plugins().registry
    config = load_config([folder.config], _overrides(adapter, adapter_options or {}), registry).config
    signature = read_signature(
        folder.signature, repair=f"`robustmm evaluate {run}` writes it, where the run's data are"
    )
    method = untrained(config, registry, signature)
    load_selected(method, folder)
    placed = method.deployable().to(find_device(device))
    if config.train.channels_last:
        placed = placed.to(memory_format=torch.channels_last)
    return Predictor(
        placed,
        signature,
        find_device(device),
        batch_size=batch_size or config.evaluation.batch_size or config.data.batch_size,
        autocast=autocast_of(config.train.precision, find_device(device)),
        make_adapter=None if adapter is None else adapter_factory(config, Builder(registry), placed),
        channels=channels,
        resize=resize,
    )


def _overrides(adapter: str | None, options: Mapping[str, Any]) -> list[str]:
    if adapter is None:
        return []
    return [f"evaluation.adapter={adapter}", *(f"evaluation.adapter.{key}={value}" for key, value in options.items())]


def find_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is the accelerator, or the CPU where there is none.

    Raises:
        RobustmmError: torch does not know or does not have it.
    """
    if name in ("auto", "gpu"):
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if found is None and name == "gpu":
            raise RobustmmError("device 'gpu': torch finds no accelerator here; use cpu or auto")
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RobustmmError(f"device '{name}': {reason}; use auto, cpu, or a device that torch has") from error
    return device


def autocast_of(precision: Literal["32", "bf16-mixed", "16-mixed"], device: torch.device) -> Autocast:
    """The precision context of a run, as in its evaluation; a CPU computes in bfloat16 where float16 was asked for."""
    if precision == "32":
        return nullcontext
    dtype = torch.bfloat16 if device.type == "cpu" else PRECISIONS[precision]
    return lambda: torch.autocast(device.type, dtype=dtype)
