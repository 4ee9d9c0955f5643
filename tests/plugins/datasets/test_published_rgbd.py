"""What NYUv2, SUN RGB-D and Cityscapes have in common, on tiny files in the exact published layouts."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from official_layouts import NYU_TRAIN, write_official
from published_sets import NAMES, build, prepare
from robustmm_plugins.datasets import _matlab, _published, nyuv2
from robustmm_plugins.datasets._cells import Unreadable

from robustmm import DataError
from robustmm.data.parts import split_parts
from robustmm.data.survey import survey

each_set = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Callable[[str], Path]:
    """Folder of a tiny published set, written once; do not write to it."""
    written: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in written:
            written[name] = write_official(name, tmp_path_factory.mktemp(name))
        return written[name]

    return folder


@pytest.fixture(scope="module")
def prepared(official, tmp_path_factory) -> Callable[[str], Path]:
    """Folder of a prepared tree, written once; do not write to it."""
    written: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in written:
            written[name] = tmp_path_factory.mktemp(f"prepared_{name}")
            prepare(name, official(name), written[name])
        return written[name]

    return folder


@pytest.fixture
def copied(official, tmp_path) -> Callable[[str], Path]:
    """A copy of a tiny published set that a test may damage."""
    return lambda name: Path(shutil.copytree(official(name), tmp_path / name))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nyuv2", {}),
        ("nyuv2", {"classes": 13, "depth": "raw"}),
        ("sunrgbd", {}),
        ("sunrgbd", {"depth": "raw", "values": "mm"}),
        ("cityscapes", {}),
        ("cityscapes", {"depth": "disparity"}),
    ],
)
def test_published__both_forms_give_the_same_samples(name, options, official, prepared):
    ours, theirs = (build(name, folder(name), **options) for folder in (official, prepared))
    assert ours.notes["form"] == "official"
    assert theirs.notes["form"] == "prepared"
    assert ours.modalities == theirs.modalities
    assert torch.equal(ours.train_groups, theirs.train_groups)
    for first, second in ((ours.train, theirs.train), (ours.test, theirs.test)):
        assert first.ids == second.ids
        for index in range(len(first)):
            one, other = first[index], second[index]
            assert torch.equal(one["target"], other["target"])
            assert torch.equal(first.target(index), one["target"])
            assert all(torch.equal(one["inputs"][key], other["inputs"][key]) for key in one["inputs"])


@each_set
def test_published__survey_finds_nothing_wrong(name, official):
    splits = build(name, official(name))
    problems = [problem for problem in survey(splits).problems if not problem.startswith("train: no sample of class")]
    assert problems == []
    assert len(splits.colours) == len(set(splits.colours)) == len(splits.classes)


@each_set
def test_published__validation_is_carved_by_whole_groups(name, official):
    splits = build(name, official(name))
    parts = split_parts(splits, seed=0, fraction=0.2, carve_seed=0)
    groups = {
        key: set(splits.train_groups[part.indices].tolist())
        for key, part in vars(parts).items()
        if key in ("train", "validation")
    }
    assert groups["train"]
    assert groups["validation"]
    assert not groups["train"] & groups["validation"]
    assert parts.facts["validation"].startswith("carved from training by groups")


@each_set
def test_published__augmentation_gives_inputs_and_label_one_size(name, official):
    splits = build(name, official(name))
    augmented = splits.train.augment(splits.train[0], torch.Generator().manual_seed(0))
    assert augmented["inputs"]["rgb"].shape == (3, 48, 64)
    assert augmented["target"].shape == (48, 64)


@each_set
def test_published__absent_data_say_what_to_obtain_and_where_to_put_it(name, tmp_path):
    with pytest.raises(DataError) as caught:
        build(name, tmp_path / "nowhere")
    text = str(caught.value)
    assert text.startswith(f"data set '{name}': {tmp_path / 'nowhere'} is not a folder\nObtain ")
    assert f"Expected below {tmp_path / 'nowhere'}, as published:\n    " in text
    assert f"'robustmm data prepare {name} SOURCE TARGET':\n    " in text
    assert "https://" in text
    assert text.endswith("Then set ROBUSTMM_DATA to the folder of your data sets, or the option 'root' to this one.")


def test_published__incomplete_folder_names_what_lacks(copied, monkeypatch):
    root = copied("nyuv2")
    (root / "splits.mat").unlink()
    with pytest.raises(DataError, match=r"nyuv2 lacks splits\.mat \(official\)"):
        build("nyuv2", root)
    with pytest.raises(DataError, match=r"lacks train\.txt, test\.txt, train/rgb, test/rgb \(prepared\)"):
        build("nyuv2", root, form="prepared")
    monkeypatch.delenv("ROBUSTMM_DATA", raising=False)
    with pytest.raises(DataError, match=r"ROBUSTMM_DATA is not set; .*\nObtain nyu_depth_v2_labeled\.mat"):
        nyuv2.build_nyuv2(**dict(nyuv2.NyuOptions()))


@each_set
def test_prepare__says_what_it_wrote_and_keeps_what_is_there(name, official, tmp_path):
    target = tmp_path / "prepared"
    line = prepare(name, official(name), target)
    assert line.startswith(f"{target}: ")
    counts = {
        "nyuv2": "9 training and 3 test",
        "sunrgbd": "9 training and 3 test",
        "cityscapes": "9 frames of train and 3 of val",
    }
    assert counts[name] in line
    pictures = sorted(path for path in target.rglob("*") if path.suffix in (".png", ".npy", ".jpg"))
    damaged, kept = next(path for path in pictures if path.stat().st_nlink == 1), pictures[-1]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    before = kept.stat().st_mtime_ns
    prepare(name, official(name), target)
    assert kept.stat().st_mtime_ns == before
    assert build(name, target).train[0]["id"]
    assert not list(target.rglob("*.part"))


def test_prepare__goes_on_where_it_was_stopped(official, tmp_path):
    def stop(label, items):
        yield from items[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("nyuv2", official("nyuv2"), tmp_path, stop)
    assert len(list((tmp_path / "train/rgb").iterdir())) == 2
    with pytest.raises(DataError, match=r"lacks train\.txt"):
        build("nyuv2", tmp_path, form="prepared")
    prepare("nyuv2", official("nyuv2"), tmp_path)
    assert len(list((tmp_path / "train/rgb").iterdir())) == len(NYU_TRAIN)


def test_prepare__beside_the_published_files_adds_labels_and_lists(copied):
    root = copied("sunrgbd")
    prepare("sunrgbd", root, root)
    assert build("sunrgbd", root).notes["form"] == "prepared"


def test_matlab__every_process_opens_the_file_itself(official):
    slot = _matlab.Slot(official("nyuv2") / "nyu_depth_v2_labeled.mat", "depths", 0)
    ours = slot.read()
    opened_by, file = _matlab._OPEN[slot.path]
    assert opened_by == os.getpid()
    _matlab._OPEN[slot.path] = opened_by + 1, file  # as a forked worker finds it
    np.testing.assert_array_equal(slot.read(), ours)
    assert not file
    assert _matlab._OPEN[slot.path][0] == os.getpid()
    assert pickle.loads(pickle.dumps(slot)) == slot


def test_matlab__workers_read_what_this_process_reads(official):
    dataset = build("nyuv2", official("nyuv2")).train
    expected = [dataset[index]["inputs"]["depth"] for index in range(len(dataset))]  # the file is open here
    loader = torch.utils.data.DataLoader(
        [*range(len(dataset))], batch_size=1, num_workers=2, collate_fn=lambda rows: dataset[rows[0]]["inputs"]["depth"]
    )
    assert all(torch.equal(one, other) for one, other in zip(loader, expected, strict=True))


def test_matlab__absent_entries_are_named(official):
    path = official("nyuv2") / "nyu_depth_v2_labeled.mat"
    with pytest.raises(DataError, match="lacks 'colours'"):
        _matlab.shape_of(path, "colours")
    with pytest.raises(DataError, match="'depths' is not a readable list of texts"):
        _matlab.read_texts(path, "depths")
    with pytest.raises(_matlab.Unreadable, match="not readable"):
        _matlab.Slot(path, "depths", 99).read()


def test_palette__is_that_of_pascal_voc():
    # The first colours of the devkit's colour map.
    assert _published.palette(4) == ((128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))


def test_targets__refuse_labels_that_would_wrap_round_to_void_or_a_class() -> None:
    labels = np.array([[0, 1, 40]], np.uint16)
    assert _published.Targets(lambda place: labels)(None).tolist() == [[255, 0, 39]]
    for wrong in (255, 256, 257, 300):
        with pytest.raises(Unreadable, match=rf"holds labels 0 to {wrong}; expected 0 for void"):
            _published.Targets(lambda place, wrong=wrong: np.array([[0, wrong]], np.uint16))(None)
