"""What a configuration may say: frozen sections, every unknown key refused, every default visible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, StrictBool, ValidationInfo, field_validator

from robustmm.config.component import ComponentSection, Kind, complain
from robustmm.config.evaluation import EvaluationSection
from robustmm.config.messages import Complaint
from robustmm.config.section import Count, CountOrZero, NotNegative, Positive, Section, Share, Word
from robustmm.config.tree import KeyPath
from robustmm.registry import Registry

#: The modality kinds, which may stand for a modality in ``model.encoders``; as `robustmm.types.ModalityKind`.
MODALITY_KINDS = ("vector", "sequence", "image", "spectrogram")
#: The key of ``model.encoders`` for every modality that has no key of its own.
DEFAULT_ENCODER = "default"

Dataset = Annotated[ComponentSection, Kind("dataset")]
Task = Annotated[ComponentSection, Kind("task")]
Encoder = Annotated[ComponentSection, Kind("encoder")]
Trunk = Annotated[ComponentSection, Kind("trunk")]
Fusion = Annotated[ComponentSection, Kind("fusion")]
Head = Annotated[ComponentSection, Kind("head")]
MissingPolicy = Annotated[ComponentSection, Kind("missing_policy")]
Sampler = Annotated[ComponentSection, Kind("sampler")]
Method = Annotated[ComponentSection, Kind("method")]
Balancer = Annotated[ComponentSection, Kind("balancer")]
Optimizer = Annotated[ComponentSection, Kind("optimizer")]
Schedule = Annotated[ComponentSection, Kind("schedule")]
Callback = Annotated[ComponentSection, Kind("callback")]


def _default_component(*names: str) -> Any:
    """Names that validation turns into component sections, since defaults are validated too."""
    return names[0] if len(names) == 1 else names


class ValidationPart(Section):
    """How a validation part is carved from training data that have none."""

    fraction: Share = Field(0.15, description="Share of the training part that is held out for validation.")
    seed: CountOrZero = Field(
        0, description="Seed of the draw; independent of the run's seed, so that runs share the split."
    )


class DataSection(Section):
    """What is trained on."""

    dataset: Dataset = Field(description="The data set and its options.")
    modalities: tuple[Word, ...] | None = Field(
        None, description="Modalities of the run, in column order; null means all that the data set has."
    )
    batch_size: Count = Field(64, description="Samples in a training batch, per device.")
    workers: CountOrZero = Field(0, description="Loader processes; 0 loads in the main process.")
    validation: ValidationPart = Field(
        ValidationPart(), description="The validation part, where the data set brings none."
    )
    pin_memory: StrictBool | None = Field(
        None, description="Copy batches through page-locked memory; null means where the accelerator gains from it."
    )

    @field_validator("modalities")
    @classmethod
    def _once_each(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and (not names or len(set(names)) != len(names)):
            raise complain([Complaint((), "expected at least one modality and each only once")])
        return names


class ModelSection(Section):
    """What the model is made of, apart from what the method adds."""

    encoders: dict[Word, Encoder] = Field(
        {},
        description="Encoder per modality name, per modality kind (vector, sequence, image, spectrogram) or 'default'; "
        "the name goes before the kind, the kind before the default.",
    )
    trunk: Trunk = Field(
        _default_component("late"), description="In which order encoders, missing policy and fusion act."
    )
    fusion: Fusion = Field(_default_component("concat"), description="How the modalities' features are fused.")
    head: Head | None = Field(None, description="Fused levels to logits; null means the task's default.")
    missing_policy: MissingPolicy = Field(
        _default_component("zero_feature"), description="What stands in for an absent modality."
    )
    skip_absent: StrictBool = Field(
        True, description="Run an encoder only on samples that have its modality, where the missing policy allows it."
    )

    @field_validator("encoders")
    @classmethod
    def _fit_their_kind(cls, encoders: dict[str, ComponentSection], info: ValidationInfo) -> Mapping[str, Any]:
        registry: Registry = (info.context or {})["registry"]
        wrong = []
        for key, section in encoders.items():
            suits = registry.get("encoder", section.name).suits
            if key in MODALITY_KINDS and suits and key not in suits:
                text = f"encoder '{section.name}' takes {', '.join(sorted(suits))}, not {key}"
                wrong.append(Complaint((key, "name"), text))
        if wrong:
            raise complain(wrong)
        return encoders


class SelectSection(Section):
    """Which epoch's weights are kept as the best."""

    metric: str = Field(
        "mean",
        pattern=r"^[^/\s]+(/[^/\s]+)?$",
        description="Score on the validation part as aggregate/metric, such as mean/macro_accuracy or worst/accuracy; "
        "the aggregate alone stands for the task's main metric.",
    )
    mode: Literal["max", "min"] | None = Field(
        None, description="Whether larger or smaller is better; null asks the metric."
    )
    every: Count = Field(1, description="Epochs between two evaluations on the validation part.")


class EarlyStopSection(Section):
    """When to stop before the last epoch."""

    patience: Count = Field(description="Evaluations without improvement before training stops.")
    min_delta: NotNegative = Field(0.0, description="Smallest change that counts as an improvement.")


def _as_text(value: Any) -> Any:
    """``precision: 32`` without quotes."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class TrainSection(Section):
    """How training runs."""

    epochs: Count = Field(description="Passes over the training part.")
    accumulate: Count = Field(
        1, description="Batches whose gradients are added up before an update, so that the batch may exceed the memory."
    )
    clip_norm: Positive | None = Field(None, description="Largest norm of all gradients together; null: no clipping.")
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = Field("auto", description="Kind of device.")
    devices: Count | Literal["auto"] | Annotated[tuple[CountOrZero, ...], Field(min_length=1)] = Field(
        1, description="Number of devices on each node, the indices of the devices, or auto."
    )
    nodes: Count = Field(1, description="Machines that train together.")
    strategy: Word = Field("auto", description="Lightning Fabric strategy, such as ddp.")
    precision: Annotated[Literal["32", "bf16-mixed", "16-mixed"], BeforeValidator(_as_text)] = Field(
        "32", description="Number format of the forward and backward pass."
    )
    channels_last: StrictBool = Field(
        False,
        description="Keep the weights of 2-D convolutions in channels-last order, which half precision on GPUs likes.",
    )
    deterministic: StrictBool = Field(
        True,
        description="Use algorithms that give the same result in every run; an operation that has none warns once.",
    )
    select: SelectSection = Field(SelectSection(), description="Model selection on the validation part.")
    early_stop: EarlyStopSection | None = Field(None, description="Early stop; null: all epochs.")
    log_every: Count = Field(20, description="Steps between two entries of the training log.")
    checkpoint_every: Count = Field(1, description="Epochs between two checkpoints; the last epoch always has one.")
    threads: Count | None = Field(None, description="CPU threads for tensor operations; null: as torch decides.")


class RunConfig(Section):
    """A whole run."""

    name: str = Field(
        "run",
        pattern=r"^[^/\\.][^/\\]*$",
        description="Name of the run's folder; by default the last configuration file's name.",
    )
    seed: CountOrZero = Field(0, description="Seed of everything random in the run, except the validation part.")
    data: DataSection = Field(description="The data.")
    task: Task | None = Field(None, description="What is predicted; null means the data set's own task.")
    model: ModelSection = Field({}, description="Encoders, fusion, head and missing policy.")  # type: ignore[assignment]  # validated like input
    method: Method = Field(description="What is computed: modules, teachers, losses.")
    balancer: Balancer = Field(_default_component("none"), description="How the optimiser sees the modalities.")
    sampler: Sampler | None = Field(
        None, description="Which combination each training sample shows; null means the method's own default."
    )
    optimizer: Optimizer = Field(description="The optimiser and its options.")
    schedule: Schedule = Field(_default_component("constant"), description="Learning rate over training.")
    train: TrainSection = Field(description="How training runs.")
    evaluation: EvaluationSection = Field(EvaluationSection(), description="What is measured.")
    callbacks: tuple[Callback, ...] = Field(
        _default_component("console", "jsonl", "tensorboard"), description="Observers of the run."
    )

    def components(self) -> tuple[tuple[KeyPath, ComponentSection], ...]:
        """Every chosen component with the path of its section, in the order of the schema."""
        return tuple(_components(self, ()))


def _components(value: Any, path: KeyPath) -> list[tuple[KeyPath, ComponentSection]]:
    if isinstance(value, ComponentSection):
        return [(path, value)]
    children: list[tuple[Any, Any]] = []
    if isinstance(value, Section):
        children = [(name, getattr(value, name)) for name in type(value).model_fields]
    elif isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, tuple):
        children = list(enumerate(value))
    return [found for key, child in children for found in _components(child, (*path, key))]


def component_places() -> dict[tuple[str, ...], str]:
    """Where the schema has component sections: path, with ``*`` for any key or index, to kind."""
    return dict(_places(RunConfig, ()))


def _places(annotation: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], str]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [
            found
            for name, field in annotation.model_fields.items()
            for found in _marked(field.metadata, (*path, name)) or _places(field.annotation, (*path, name))
        ]
    arguments = get_args(annotation)
    marked = _marked(arguments[1:], path)
    if marked:
        return marked
    below = (*path, "*") if _is_container(annotation) else path
    return [found for argument in arguments for found in _places(argument, below)]


def _marked(metadata: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], str]]:
    return [(path, mark.name) for mark in metadata if isinstance(mark, Kind)]


def _is_container(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (dict, tuple, list)
