"""A model card says what the run's files say, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from regression_results import ERRORS, regression_record
from used_runs import DENSE, train_run

from robustmm import CheckpointError, LogMel, Modality, Reading, Scaling
from robustmm.engine.run_folder import RunFolder
from robustmm.report.model_card import CARD, model_card, write_model_card
from robustmm.report.tables import number
from robustmm.signature import Signature

CONFIG: dict[str, Any] = {
    "model": {
        "encoders": {"default": {"name": "mlp", "hidden": [8]}},
        "missing_policy": {"name": "zero_feature"},
        "trunk": {"name": "late"},
        "fusion": {"name": "concat"},
        "head": None,
    },
    "method": {"name": "plain"},
    "balancer": {"name": "none"},
    "optimizer": {"name": "adamw", "lr": 0.01},
    "schedule": {"name": "constant"},
    "train": {"epochs": 3},
    "data": {"batch_size": 4},
    "seed": 7,
}
SIGNATURE = Signature(
    (
        Modality("rgb", "image", (3, 4, 6), Scaling("constants", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)), "0-255"),
        Modality("depth", "image", (1, 4, 6), Scaling(invalid=0.0), "mm", Reading("share", recording=LogMel())),
    ),
    "regression",
    ("age",),
    10,
    sizes={"rgb": (8, 12)},
    facts={
        "licence": "CC BY 4.0 | or so",
        "name": "demo",
        "dataset": "faces",
        "sampler": "uniform",
        "parameters": 12345,
        "train_samples": 10,
    },
)


def card(**changes: Any) -> str:
    """Of a made-up run."""
    record = regression_record(ERRORS, degenerate="depth") | changes
    return model_card(SIGNATURE, CONFIG, record, {"python": "3.12.1", "versions": {"torch": "2.11", "timm": None}})


def test_card__has_the_facts() -> None:
    text = card()
    for line in (
        "# demo",
        "Predicts numbers (age) from rgb and depth.",
        "Any of them may be missing, as long as one is there.",
        "| rgb | image | 3 x 4 x 6 | 0-255 | (value - mean) / deviation, means 1, 2, 3, deviations 4, 5, 6 |",
        "| depth | image | 1 x 4 x 6 | mm | standardised by the training part; 0 means not measured; whole numbers of "
        "pictures are shares of their largest |",
        "Test samples of rgb had 8 x 12, to which maps are brought for prediction.",
        "| licence | CC BY 4.0 \\| or so |",
        "| train samples | 10 |",
        "| method | plain |",
        "| combinations shown in training | uniform |",
        "| encoders | default mlp (hidden [8]) |",
        "| optimiser, schedule | adamw (lr 0.01); constant |",
        "| epochs, batch size, seed | 3, 4, 7 |",
        "| parameters of the deployed model | 12,345 |",
        "- Degenerate: depth gives one answer for everything; do not use the model with it.",
        "| torch | 2.11 |",
    ):
        assert f"{line}\n" in text, line
    assert "timm" not in text


def test_card__the_worst_error_is_the_largest() -> None:
    assert f"- Worst combination: rgb+depth, mae {number(ERRORS['rgb+depth'])}." in card()


def test_card__says_where_rows_stand_on_other_samples() -> None:
    assert "The test part is incomplete" not in card()
    rows = [{**row, "excluded": 2} for row in regression_record(ERRORS)["rows"]]
    assert "- The test part is incomplete: 3 of 3 combinations leave samples out" in card(rows=rows)


def test_card__one_modality_cannot_be_missing() -> None:
    alone = dataclasses.replace(SIGNATURE, modalities=SIGNATURE.modalities[:1])
    text = model_card(alone, CONFIG, regression_record({"rgb": 1.0}), {})
    assert "from rgb.\n" in text
    assert "may be missing" not in text


@pytest.mark.parametrize(("changes", "use"), [({}, "prediction.label"), (DENSE, "prediction.map")])
def test_card__lies_beside_the_weights_of_every_run(tmp_path: Path, changes: dict[str, Any], use: str) -> None:
    made = train_run(tmp_path, **changes)
    text = (made / "checkpoints" / CARD).read_text(encoding="utf-8")
    assert f"print({use}, prediction.uncertainty)" in text
    assert "| m0+m1 |" in text
    assert "| **worst** |" in text
    (made / "results.json").unlink()
    with pytest.raises(CheckpointError, match=r"results.json cannot be read"):
        write_model_card(RunFolder(made))
