"""Where a run's weights are put."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from cli_runs import TINY, merged
from lightning.fabric import Fabric

from robustmm.build import assemble
from robustmm.config.load import load_config
from robustmm.launch import place
from robustmm.plugin_manager import get_plugins


@pytest.mark.parametrize("last", [False, True])
def test_place__keeps_convolutions_in_the_format_that_was_asked_for(tmp_path: Path, last: bool) -> None:
    changes = {
        "data": {"dataset": {**TINY["data"]["dataset"], "kind": "image"}},
        "model": None,
        "train": {"channels_last": last},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(merged(TINY, changes)), encoding="utf-8")
    registry = get_plugins().registry
    config = load_config([path], [], registry).config
    method = place(assemble(config, registry).method, Fabric(accelerator="cpu", devices=1), config.train)
    weights = [weight for weight in method.parameters() if weight.dim() == 4 and min(weight.shape[1:]) > 1]
    assert weights
    assert all(weight.is_contiguous(memory_format=torch.channels_last) == last for weight in weights)
