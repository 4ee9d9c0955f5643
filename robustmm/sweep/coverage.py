"""Whether the data hold something of every sample for each combination that a model is to be trained for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from robustmm.build import read_parts
from robustmm.builder import Builder
from robustmm.config.load import load_config
from robustmm.config.schema import RunConfig
from robustmm.data.loaders import PartLoader
from robustmm.data.parts import Part, Parts
from robustmm.engine.run_folder import RunFolder
from robustmm.errors import DataError
from robustmm.registry import Registry
from robustmm.sweep.customised import Customised, CustomiseRequest

PARTS = {"train": "training", "validation": "validation", "test": "test"}


def check_samples(request: CustomiseRequest, planned: Sequence[Customised], registry: Registry) -> None:
    """Make sure that the data are there and leave no sample with nothing, before hours go into a part of the models.

    A data set does not say beforehand whether it is complete, so every sample is read once, unless all that is to be
    trained has every modality of the run, as the run itself had.

    Args:
        request: Of the user.
        planned: Models; those that are done are not looked at.
        registry: Of the loaded plugins.

    Raises:
        DataError: the data set is gone, or samples have none of a combination's modalities.
    """
    waiting = [one for one in planned if not RunFolder(one.folder).done]
    if not waiting:
        return
    config = load_config([RunFolder(request.run).config], request.overrides, registry).config
    _, parts = read_parts(config, Builder(registry))
    names = [modality.name for modality in parts.modalities]
    partial = [one for one in waiting if set(names) - set(one.combination.split("+"))]
    if partial:
        observed = {part: _observed(parts, part, config) for part in PARTS}
        problems = [line for one in partial for line in _problems(one.combination, names, parts, observed)]
        if problems:
            raise DataError("\n".join(problems))


def _observed(parts: Parts, name: str, config: RunConfig) -> Tensor:
    """What every sample of a part has, (N, M) bool."""
    part: Part = getattr(parts, name).without_augmentation()
    loader = PartLoader(
        part,
        parts.modalities,
        batch_size=config.data.batch_size if hasattr(part.dataset, "take") else 1,  # alone, label maps have any size
        workers=config.data.workers,
    )
    return torch.cat([batch.observed for batch in loader.ordered(whole=True)])


def _problems(combination: str, names: Sequence[str], parts: Parts, observed: dict[str, Tensor]) -> Iterator[str]:
    """One line where samples have nothing of a combination."""
    columns = [names.index(name) for name in combination.split("+")]
    told = []
    for part, title in PARTS.items():
        empty = (~observed[part][:, columns].any(dim=1)).nonzero().flatten().tolist()
        if empty:
            samples: Part = getattr(parts, part)
            told.append(f"{len(empty)} of {len(samples)} {title} samples, such as '{samples[empty[0], 0][1]['id']}'")
    if told:
        yield (
            f"{combination}: nothing of it is in {', and in '.join(told)}; no model can be trained or tested on these: "
            f"leave the combination out (--combinations), or the samples out of the data set"
        )
