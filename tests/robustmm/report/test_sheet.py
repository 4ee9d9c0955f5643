from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustmm.engine.shots import Shot
from robustmm.masks import all_combinations, combination_name
from robustmm.report.lettering import SMALL, shorten, width_of, wrap_text
from robustmm.report.palette import INVALID, WRONG, class_colours
from robustmm.report.sheet import DESCRIPTION, STRIPS, write_sheet
from robustmm.report.sheet_block import class_shares, draw_block
from robustmm.report.sheet_plan import (
    GAP,
    MARGIN,
    Plan,
    choose_combinations,
    layout_for,
    left_out_words,
    name_lines,
    plan_of,
)
from robustmm.types import VOID, Modality, Scaling

NAMES = ("rgb", "depth", "thermal", "event", "radar")


def make_plan(count: int, classes: int = 3, **changes: Any) -> Plan:
    modalities = tuple(
        Modality(name, "image", (3 if name == "rgb" else 1, 5, 7), Scaling(invalid=0.0)) for name in NAMES[:count]
    )
    names = tuple(f"class {index}" for index in range(classes))
    plan = Plan(
        "run", "facts", "test", 40, modalities, names, class_colours(names), tuple(all_combinations(NAMES[:count]))
    )
    return replace(plan, **changes)


def make_shot(plan: Plan, label: tuple[int, int] = (9, 14), missing: tuple[str, ...] = (), seed: int = 0) -> Shot:
    draw = torch.Generator().manual_seed(seed)
    inputs = {
        modality.name: 1 + torch.rand(modality.shape, generator=draw)
        for modality in plan.modalities
        if modality.name not in missing
    }
    target = torch.randint(0, len(plan.classes), label, generator=draw)
    wrong = (target + 1) % len(plan.classes)
    predictions = {combo: wrong.to(torch.int16) if set(combo) & set(inputs) else None for combo in plan.combinations}
    return Shot(3, "room_3", inputs, target, predictions)


def block_of(plan: Plan, shot: Shot) -> Any:
    return draw_block(shot, plan, layout_for(len(plan.modalities), len(plan.combinations), 1))


def has_colour(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(image) == colour).all(axis=2).any())


@pytest.mark.parametrize(
    ("modalities", "combinations", "samples", "columns", "rows", "abreast"),
    [
        (1, 1, 6, 2, 1, 3),
        (2, 3, 6, 5, 1, 1),
        (3, 7, 6, 9, 1, 1),
        (4, 15, 6, 9, 2, 1),
        (12, 16, 6, 8, 3, 1),
        (1, 1, 1, 2, 1, 1),
    ],
)
def test_layout__wraps_many_columns_and_puts_small_samples_abreast(
    modalities: int, combinations: int, samples: int, columns: int, rows: int, abreast: int
) -> None:
    layout = layout_for(modalities, combinations, samples)
    assert (layout.columns, layout.rows, layout.abreast) == (columns, rows, abreast)
    assert layout.columns * layout.rows >= layout.lead + combinations
    used = layout.abreast * layout.block_width + (layout.abreast - 1) * 3 * GAP + 2 * MARGIN
    assert used <= layout.width
    assert layout.tile >= 150


def test_layout__tiles_have_the_shape_of_the_label_within_limits() -> None:
    layout = layout_for(2, 3, 1)
    assert layout.tile_height((480, 640)) == round(layout.tile * 0.75)
    assert layout.tile_height((10, 1000)) == round(layout.tile * 0.25)
    assert layout.tile_height((1000, 10)) == round(layout.tile * 1.35)


def record_of(scores: dict[str, float], direction: str = "max", **changes: Any) -> dict[str, Any]:
    rows = [{"combination": name, "metrics": {"miou": value}, "degenerate": False} for name, value in scores.items()]
    return {"rows": rows, "score": "miou", "directions": {"miou": direction}, "chance": 0.1, **changes}


def test_choose_combinations__few_are_all_drawn() -> None:
    scores = {combination_name(combo): 0.5 for combo in all_combinations(NAMES[:4])}
    assert choose_combinations(record_of(scores)) == (list(scores), [])


@pytest.mark.parametrize(("direction", "expected"), [("max", "a+b"), ("min", "b+c")])
def test_choose_combinations__keeps_complete_single_and_worst(direction: str, expected: str) -> None:
    scores = {"a": 0.9, "b": 0.8, "c": 0.7, "a+b": 0.1, "a+c": 0.5, "b+c": 0.6, "a+b+c": 0.95}
    drawn, left_out = choose_combinations(record_of(scores, direction), most=5)
    assert drawn == [name for name in scores if name in {"a", "b", "c", expected, "a+b+c"}]
    assert sorted(drawn + left_out) == sorted(scores)


def test_left_out_words__name_them_and_count_the_rest() -> None:
    combos = tuple(all_combinations(NAMES))
    plan = make_plan(5, combinations=combos[:16], left_out=combos[16:])
    assert left_out_words(plan).startswith("16 of 31 combinations are drawn: the complete one, the single ones")
    assert left_out_words(plan).endswith(f"Left out: {', '.join(map(combination_name, combos[16:28]))} and 3 more.")
    assert left_out_words(make_plan(2)) == ""


def test_name_lines__say_what_lacks_where_names_are_long() -> None:
    long = tuple(f"a_long_modality_{letter}" for letter in "abcdef")
    assert name_lines(("rgb", "depth"), NAMES, 300) == ["from rgb+depth"]
    assert " ".join(name_lines(long, long, 200)) == "from all 6 modalities"
    assert " ".join(name_lines(long[:5], long, 200)) == "from all but a_long_modality_f"
    for width in (60, 150, 250):
        lines = name_lines(long[:3], long, width)
        assert len(lines) <= 2
        assert all(width_of(line, SMALL) <= width for line in lines)


def test_lettering__lines_fit() -> None:
    text = "one two three four five, and a verylongwordthatdoesnotfitanywhereatall"
    lines = wrap_text(text, SMALL, 120)
    assert all(width_of(line, SMALL) <= 120 for line in lines)
    assert lines[0] == "one two three"
    assert lines[-1].endswith("...")
    assert shorten("short", SMALL, 120) == "short"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_block__any_number_of_modalities(count: int) -> None:
    plan = make_plan(count)
    block = block_of(plan, make_shot(plan))
    assert block.image.width == layout_for(count, 2**count - 1, 1).block_width
    assert list(block.scores.values()) == [0.0] * (2**count - 1)
    assert block.classes == {0, 1, 2}
    assert has_colour(block.image, WRONG)
    assert block.mapped == (count > 1)
    assert not block.void
    assert not block.invalid


@pytest.mark.parametrize("label", [(1, 1), (1, 40), (40, 1), (97, 31), (2000, 3)])
def test_block__odd_sizes_of_labels(label: tuple[int, int]) -> None:
    plan = make_plan(2)
    block = block_of(plan, make_shot(plan, label))
    assert block.image.height < 1200
    assert has_colour(block.image, WRONG)


def test_block__missing_modality_is_an_empty_place_and_scores_nothing() -> None:
    plan = make_plan(2)
    whole, lacking = (block_of(plan, make_shot(plan, missing=names)) for names in ((), ("depth",)))
    assert lacking.scores == {("rgb",): 0.0, ("depth",): None, ("rgb", "depth"): 0.0}
    tile = layout_for(2, 3, 1).tile
    x = 3 * (tile + GAP) + 4  # the column of depth alone, inside of its place
    strip = np.asarray(lacking.image)[60:90, x : x + 20]
    assert (strip == 255).all()
    assert not (np.asarray(whole.image)[60:90, x : x + 20] == 255).all()


def test_block__tells_what_the_legend_must_have() -> None:
    plan = make_plan(2)
    shot = make_shot(plan)
    shot.inputs["depth"][0, 0] = 0.0
    shot.target[0] = VOID
    block = block_of(plan, shot)
    assert (block.void, block.invalid) == (True, True)
    assert has_colour(block.image, INVALID)
    assert VOID not in block.classes


def test_block__non_finite_prediction_is_wrong_and_no_class() -> None:
    plan = make_plan(1)
    shot = make_shot(plan)
    shot.predictions[("rgb",)].fill_(-1)
    block = block_of(plan, shot)
    assert block.scores == {("rgb",): 0.0}
    assert block.void


def test_class_shares__largest_first_and_void_last() -> None:
    plan = make_plan(2)
    target = torch.tensor([VOID] * 60 + [1] * 250 + [0] * 688 + [2] * 2).view(10, 100)
    assert [words for _, words in class_shares(target, plan)] == [
        "69% class 0",
        "25% class 1",
        "< 1% class 2",
        "6% void",
    ]
    assert class_shares(target, plan)[1][0][0, 0].tolist() == plan.colours[1].tolist()


def test_sheet__is_written_whole_with_description_and_cuts(tmp_path: Path) -> None:
    plan, path = make_plan(2), tmp_path / "eval" / "pictures.png"
    write_sheet(path, plan, (make_shot(plan, seed=seed) for seed in range(3)), 3)
    assert [file.name for file in path.parent.iterdir()] == ["pictures.png"]
    with Image.open(path) as sheet:
        cuts = [int(word) for word in sheet.info[STRIPS].split()]
        assert sheet.width == layout_for(2, 3, 3).width
        assert len(cuts) == 4  # heading and three samples
        assert cuts == sorted(cuts)
        assert cuts[-1] <= sheet.height
        assert sheet.info[DESCRIPTION] == (
            "3 of 40 test samples, evenly spaced: inputs (rgb, depth), label, and for each combination the predicted "
            "classes and a map of errors. Mean of these pictures' own mIoU: rgb 0.000, depth 0.000, rgb+depth 0.000."
        )


def test_sheet__same_pictures_give_the_same_bytes(tmp_path: Path) -> None:
    plan = make_plan(1)
    for name in ("one.png", "two.png"):
        write_sheet(tmp_path / name, plan, [make_shot(plan)], 1)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_sheet__legend_of_many_classes_names_those_that_are_drawn(tmp_path: Path) -> None:
    heights = []
    for classes in (60, 200):
        plan = make_plan(1, classes=classes)
        shot = make_shot(plan)
        shot.target.fill_(1)
        shot.predictions[("rgb",)].fill_(2)
        write_sheet(tmp_path / "sheet.png", plan, [shot], 1)
        with Image.open(tmp_path / "sheet.png") as sheet:
            heights.append(sheet.height)
    assert heights[1] < heights[0]


def test_plan__is_taken_from_the_record() -> None:
    record = record_of(
        {"rgb": 0.1, "depth": 0.2, "rgb+depth": 0.3},
        run="blocks",
        method="dmrnet",
        balancer="none",
        dataset="blocks_rgbd_sim",
        split="test",
        missing_policy="zero_feature",
        seed=2,
        classes=["a", "b"],
        colours=[[1, 2, 3], [4, 5, 6]],
        selection={"part": "validation", "metric": "mean/miou", "value": None, "epoch": 7},
    )
    plan = plan_of(record, make_plan(2).modalities, total=9)
    assert plan.facts == (
        "method dmrnet · balancer none · data set blocks_rgbd_sim · test part · missing policy zero_feature · seed 2 · "
        "weights of epoch 7 (validation mean/miou -)"
    )
    assert plan.combinations == (("rgb",), ("depth",), ("rgb", "depth"))
    assert plan.colours.tolist() == record["colours"]
