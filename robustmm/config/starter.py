"""The commented file that ``robustmm config init`` writes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from annotated_types import MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from robustmm.config.document import dump
from robustmm.config.schema import MODALITY_KINDS
from robustmm.registry import Component, Registry

#: Stands where a path or a name must be filled in.
PLACEHOLDER = "CHANGE_ME"
DEFAULT_DATASET = "handwritten_6views"
DEFAULT_METHOD = "dmrnet"
#: Taken where they are registered, in this order.
_OPTIMIZERS = ("adamw", "adam", "sgd")

_TEMPLATE = """\
# {method} on {dataset}: {summary}
# Check:    robustmm config validate -c {file}
# Defaults: robustmm config show -c {file} --origins
# Train:    robustmm train -c {file}
# Lines that begin with '# key: value' are optional: below a component's name they show its default, elsewhere a choice.

seed: 0

data:
  dataset:
{dataset_section}
  batch_size: 64
  # modalities: [a, b]  # a part of the data set's modalities, in this order; by default all
  # workers: 0  # loader processes

# model:
#   encoders:  # by modality name, by kind (vector, sequence, image, spectrogram), or 'default'
{encoder_lines}
#   fusion: concat
#   missing_policy: zero_feature  # what stands in for an absent modality

method:
{method_section}

# balancer: none  # 'robustmm list balancers' shows all

optimizer:
{optimizer_section}

train:
  epochs: 20
  # clip_norm: 5.0  # largest norm of all gradients together
  # precision: bf16-mixed
  # select: {{metric: mean}}  # the mean over all combinations of the task's main metric
  # early_stop: {{patience: 10}}  # evaluations without improvement
"""


def starter(dataset: str, method: str, file: str, registry: Registry) -> str:
    """A commented configuration that trains ``method`` on ``dataset``.

    Args:
        dataset: Registered name.
        method: Registered name.
        file: How the comments refer to the file.
        registry: The components that may be named.

    Returns:
        YAML that loads; options that must be filled in hold `PLACEHOLDER` where they take text.

    Raises:
        ConfigError: there is no such data set or method.
    """
    chosen = registry.get("method", method)
    return _TEMPLATE.format(
        file=file,
        dataset=dataset,
        method=method,
        summary=" ".join(chosen.summary.split()),
        dataset_section=section_lines(registry.get("dataset", dataset), indent=4),
        method_section=section_lines(chosen, indent=2),
        optimizer_section=section_lines(registry.get("optimizer", _first(_OPTIMIZERS, registry)), indent=2),
        encoder_lines="\n".join(_encoder_lines(registry)),
    )


def _encoder_lines(registry: Registry) -> list[str]:
    """For each kind of modality an encoder that takes it and needs no options, as comments."""
    lines = []
    for kind in MODALITY_KINDS:
        for component in registry.all("encoder"):
            given = any(field.is_required() for field in component.options.model_fields.values())
            if kind in component.suits and not given:
                lines.append(f"#     {kind}: {component.name}")
                break
    return lines or ["#     default: mlp"]


def _first(preferred: Sequence[str], registry: Registry) -> str:
    known = registry.names("optimizer")
    return next((name for name in (*preferred, *known) if name in known), preferred[0])


def section_lines(component: Component, *, indent: int) -> str:
    """A component's section: its name, the options that must be given, and the others as comments."""
    lines = [f"name: {component.name}"]
    for name, field in component.options.model_fields.items():
        said = f"  # {_one_line(field.description)}" if field.description else ""
        if field.is_required():
            lines.append(f"{name}: {_flow(_filled(field))}{said}")
        else:
            lines.append(f"# {name}: {_flow(_default(component, name, field))}{said}")
    return textwrap.indent("\n".join(lines), " " * indent)


def _default(component: Component, name: str, field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True, validated_data={})
    shown = component.options.model_construct(**{name: value}).model_dump(mode="json", include={name}, warnings=False)
    return shown.get(name)


def _filled(field: FieldInfo) -> Any:
    """A placeholder with as many items as the option asks for, all different."""
    value = _placeholder(field.annotation)
    least = next((mark.min_length for mark in field.metadata if isinstance(mark, MinLen)), 0)
    if isinstance(value, list) and value == [PLACEHOLDER]:
        value += [f"{PLACEHOLDER}_{number}" for number in range(2, least + 1)]
    return value


def _placeholder(annotation: Any) -> Any:
    """The simplest value of a type, with `PLACEHOLDER` for text."""
    if annotation in (int, float, bool):
        return annotation(True)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        required = {name: field for name, field in annotation.model_fields.items() if field.is_required()}
        return {name: _placeholder(field.annotation) for name, field in required.items()}
    container, arguments = get_origin(annotation), get_args(annotation)
    if container is Literal:
        return arguments[0]
    if container is dict:
        return {PLACEHOLDER: _placeholder(arguments[1])}
    if container in (list, tuple, set, frozenset):
        return [_placeholder(item) for item in arguments if item is not Ellipsis]
    return _placeholder(arguments[0]) if arguments else PLACEHOLDER


def _flow(value: Any) -> str:
    """A value on one line, as it stands after a key."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return dump([value]).strip().removeprefix("[").removesuffix("]")


def _one_line(text: str) -> str:
    return textwrap.shorten(" ".join(text.split()), 90, placeholder=" ...")
