"""Tiny trained runs to be used, and what evaluation makes of their test part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from cli_runs import write_config
from torch import Tensor

from robustmm import Combination, Sample
from robustmm.build import assemble
from robustmm.cli import run
from robustmm.config.load import load_config
from robustmm.data.collate import Collate
from robustmm.engine.run_folder import RunFolder
from robustmm.engine.trained import load_selected
from robustmm.masks import presence_of
from robustmm.methods.probes import logits_by_chunk
from robustmm.plugin_manager import get_plugins

DENSE: dict[str, Any] = {
    "data": {"dataset": {"name": "synthetic", "dense": True, "samples": 8, "size": 8}},
    "model": {"encoders": None},
}
#: A picture and a vector in files, the forms in which people have data of their own.
PHOTO = {
    "photo": {"kind": "image", "size": [8, 8], "channels": 3},
    "sensor": {"kind": "vector"},
}


def train_run(folder: Path, name: str = "made", **changes: Any) -> Path:
    """A run of one epoch of `cli_runs.TINY` with changes."""
    changes.setdefault("train", {"epochs": 1})
    changes.setdefault("callbacks", [])
    config = write_config(folder, **changes)
    assert run(["train", "-c", config, "--folder", str(folder / name)]) == 0
    return folder / name


def evaluated(folder: Path) -> tuple[list[Sample], Mapping[Combination, Tensor], Tensor]:
    """The test part of a run, the logits that evaluation scores for every combination, and which (K, N) it scores."""
    registry = get_plugins().registry
    assembly = assemble(load_config([folder / "config.yaml"], [], registry).config, registry, fit_scalers=False)
    load_selected(assembly.method, RunFolder(folder))
    method = assembly.method.deployable().eval()
    samples = [assembly.parts.test[place, 0][1] for place in range(len(assembly.parts.test))]
    batch = Collate(assembly.parts.modalities)(list(enumerate(samples)))
    table = torch.stack([presence_of(combo, method.modalities) for combo in assembly.combinations])
    shown = batch.observed & table[:, None]
    with torch.inference_mode():
        output = method(batch.inputs, batch.observed, size=method.task.target_size(batch.target))
        logits = torch.cat(list(logits_by_chunk(method, batch, output, shown)))
    return samples, dict(zip(assembly.combinations, logits, strict=True)), shown.any(dim=2)
