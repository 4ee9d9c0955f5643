"""Manifests: what cells may hold, what the parts are, and how each mistake is named."""

import logging
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from robustmm_plugins.datasets import manifest as plugin

from robustmm import DataError

VECTOR = {"vec": {"kind": "vector"}}
IMAGE = {"rgb": {"kind": "image", "size": [4, 6]}}


def write(folder, text, name="table.csv"):
    (folder / name).write_text(text.replace(" | ", ","))
    return str(folder / name)


def make(csv, modalities=None, **options):
    return plugin.build_manifest(csv=csv, modalities=modalities or VECTOR, **options)


def small(folder, *more_rows):
    return write(folder, "\n".join(["vec,label,split", "1 2,cat,train", "3 4,dog,train", "5 6,cat,test", *more_rows]))


def save_image(path, value=51, size=(6, 4)):
    Image.new("RGB", size, (value, 0, 255)).save(path)


# ---- parts and targets


def test_manifest__split_column_makes_the_parts(tmp_path):
    splits = make(small(tmp_path, "7 8,dog,val", "9 9,dog,Validation"))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (2, 2, 1)
    assert splits.classes == ("cat", "dog")
    assert splits.train_labels.tolist() == [0, 1]
    sample = splits.validation[0]
    assert sample["inputs"]["vec"].tolist() == [7, 8]
    assert (sample["target"], sample["id"]) == (1, "table.csv:5")
    assert splits.notes["train"] == 2


def test_manifest__separate_files_make_the_parts(tmp_path):
    train = write(tmp_path, "vec,label\n1,a\n2,b\n", "train.csv")
    test = write(tmp_path, "vec,label\n3,b\n", "test.csv")
    splits = make({"train": train, "test": test})
    assert splits.validation is None
    assert splits.test[0]["target"] == 1
    assert splits.test[0]["id"] == "test.csv:2"


def test_manifest__whole_numbers_are_classes_in_numeric_order(tmp_path):
    splits = make(write(tmp_path, "vec,label,split\n1,10,train\n1,9,train\n1,10,test\n"))
    assert splits.classes == ("9", "10")
    assert splits.test[0]["target"] == 1


def test_manifest__given_classes_are_named_or_numbered(tmp_path):
    splits = make(small(tmp_path, "1 1,0,test"), classes=["dog", "cat"])
    assert splits.train_labels.tolist() == [1, 0]
    assert [int(splits.test[index]["target"]) for index in range(2)] == [1, 0]


def test_manifest__ids_and_groups_come_from_their_columns(tmp_path):
    text = "vec,label,split,name,who\n1,a,train,x,eve\n2,b,train,y,ada\n3,a,train,z,eve\n4,a,test,w,bob\n"
    splits = make(write(tmp_path, text), id_column="name", group_column="who")
    assert splits.train_groups.tolist() == [0, 1, 0]
    assert splits.test[0]["id"] == "w"


# ---- cells


def test_manifest__empty_cell_is_an_absent_modality(tmp_path):
    text = "vec,other,label,split\n1 2,,a,train\n3 4,5,b,train\n, 6,a,test\n"
    splits = make(write(tmp_path, text), {"vec": {"kind": "vector"}, "aux": {"kind": "vector", "column": "other"}})
    assert splits.train[0]["inputs"]["aux"] is None
    assert splits.test[0]["inputs"]["vec"] is None
    assert splits.test[0]["inputs"]["aux"].tolist() == [6]
    assert [(modality.name, modality.shape) for modality in splits.modalities] == [("vec", (2,)), ("aux", (1,))]


def test_manifest__images_are_resized_to_the_unit_range(tmp_path):
    save_image(tmp_path / "a.png", value=51)
    save_image(tmp_path / "b.png", value=102, size=(12, 8))
    splits = make(write(tmp_path, "rgb,label,split\na.png,x,train\nb.png,y,train\na.png,x,test\n"), IMAGE)
    assert splits.modalities[0].shape == (3, 4, 6)
    torch.testing.assert_close(splits.train[0]["inputs"]["rgb"][:, 0, 0], torch.tensor([0.2, 0.0, 1.0]))
    torch.testing.assert_close(splits.train[1]["inputs"]["rgb"][0], torch.full((4, 6), 0.4))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_manifest__sixteen_bit_depth_keeps_its_bits(tmp_path, suffix):
    depth = np.array([[0, 1], [256, 65535]], np.uint16)
    Image.fromarray(depth).save(tmp_path / f"d.{suffix}")
    text = f"depth,label,split\nd.{suffix},x,train\nd.{suffix},y,train\nd.{suffix},x,test\n"
    splits = make(write(tmp_path, text), {"depth": {"kind": "image", "size": [2, 2], "channels": 1}})
    torch.testing.assert_close(
        splits.train[0]["inputs"]["depth"][0] * 65535, torch.from_numpy(depth.astype(np.float32))
    )


def test_manifest__arrays_need_no_pickle(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    np.savez(tmp_path / "b.npz", only=np.ones((2, 3), np.float16))
    text = "signal,label,split\na.npy,x,train\nb.npz,y,train\na.npy,x,test\n"
    splits = make(write(tmp_path, text), {"signal": {"kind": "sequence"}})
    assert splits.modalities[0].shape == (2, 3)
    assert splits.train[0]["inputs"]["signal"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert splits.train[1]["inputs"]["signal"].dtype == torch.float32


def test_manifest__sound_becomes_a_spectrogram(tmp_path, wav_bytes):
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.sin(np.arange(4000)) * 9000, rate=16000))
    text = "sound,label,split\na.wav,x,train\na.wav,y,train\na.wav,x,test\n"
    splits = make(write(tmp_path, text), {"sound": {"kind": "spectrogram", "size": [20, 16]}})
    assert splits.train[0]["inputs"]["sound"].shape == splits.modalities[0].shape == (1, 20, 16)


def test_manifest__root_moves_relative_paths(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    save_image(tmp_path / "elsewhere" / "a.png")
    csv = write(tmp_path, "rgb,label,split\na.png,x,train\na.png,y,train\na.png,x,test\n")
    assert make(csv, IMAGE, root=str(tmp_path / "elsewhere")).train[0]["inputs"]["rgb"].shape == (3, 4, 6)


def test_manifest__label_maps_are_targets_of_segmentation(tmp_path):
    save_image(tmp_path / "a.png")
    Image.fromarray(np.array([[0, 1], [255, 1]], np.uint8)).save(tmp_path / "m.png")
    np.save(tmp_path / "m.npy", np.full((2, 2), 2))
    text = "rgb,label,split\na.png,m.png,train\na.png,m.npy,train\na.png,m.png,test\n"
    options = {"task": "segmentation", "classes": ["road", "car"], "target_size": [4, 2]}
    splits = make(write(tmp_path, text), IMAGE, **options)
    assert splits.train[0]["target"].tolist() == [[0, 1], [0, 1], [255, 1], [255, 1]]
    assert splits.train_labels is None
    with pytest.raises(DataError, match=r"table\.csv:3 column label: m\.npy: holds label 2; expected 0 to 1, or 255"):
        splits.train[1]
    csv = write(tmp_path, "rgb,label,split\na.png,m.png,train\na.png,,train\na.png,m.png,test\n", "unlabelled.csv")
    with pytest.raises(DataError, match=r"unlabelled\.csv:3 column label: the cell is empty$"):
        make(csv, IMAGE, **options).train[1]


# ---- reading when needed


def test_manifest__numbers_are_targets_of_regression(tmp_path):
    text = "vec,age,split\n1,40.5,train\n2,-3e2,train\n3,7,test\n"
    splits = make(write(tmp_path, text), task="regression", target="age")
    assert (splits.task, splits.classes, splits.train_labels) == ("regression", ("age",), None)
    targets = [splits.train[0]["target"], splits.train[1]["target"], splits.test[0]["target"]]
    assert [(target.shape, target.dtype, target.item()) for target in targets] == [
        ((), torch.float32, 40.5),
        ((), torch.float32, -300),
        ((), torch.float32, 7),
    ]


def test_manifest__a_cell_may_hold_several_quantities_with_names(tmp_path):
    text = "vec,pose,split\n1,0.5 2,train\n2,1;3,train\n3,7 8,test\n"
    splits = make(write(tmp_path, text), task="regression", target="pose", classes=["x", "y"])
    assert splits.classes == ("x", "y")
    assert splits.train[1]["target"].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("", "table.csv:3 column age: holds nothing; expected one number"),
        ("old", "could not convert string to float: 'old'; expected one number"),
        ("1 2", "holds 2 numbers; expected one number"),
        ("nan", "holds values that are not finite; expected one number"),
    ],
)
def test_manifest__names_a_target_that_is_no_number_before_training(tmp_path, cell, text):
    table = write(tmp_path, f"vec,age,split\n1,40,train\n2,{cell},test\n")
    with pytest.raises(DataError, match=text):
        make(table, task="regression", target="age")


def test_manifest__reads_files_when_asked_and_again_without_cache(tmp_path):
    save_image(tmp_path / "a.png", value=51)
    csv = write(tmp_path, "rgb,label,split\na.png,x,train\na.png,y,train\na.png,x,test\n")
    lazy, cached = make(csv, IMAGE), make(csv, IMAGE, cache=True)
    cached.test[0]
    save_image(tmp_path / "a.png", value=102)
    assert float(lazy.test[0]["inputs"]["rgb"][0, 0, 0]) == pytest.approx(0.4)
    assert float(cached.test[0]["inputs"]["rgb"][0, 0, 0]) == pytest.approx(0.2)


def test_manifest__parts_travel_to_worker_processes(tmp_path):
    part = pickle.loads(pickle.dumps(make(small(tmp_path)).train))
    assert part[1]["inputs"]["vec"].tolist() == [3, 4]


# ---- what cannot be read


def broken_set(folder):
    save_image(folder / "good.png")
    (folder / "bad.png").write_bytes(b"not an image")
    rows = ["good.png,1 2,x,train", "bad.png,3 4,y,train", "gone.png,5 6,x,test", "good.png,7 8 9,y,test"]
    modalities = {**IMAGE, **VECTOR}
    return write(folder, "\n".join(["rgb,vec,label,split", *rows])), modalities


def test_manifest__unreadable_cells_count_as_absent_and_are_reported_once(tmp_path, caplog):
    csv, modalities = broken_set(tmp_path)
    with caplog.at_level(logging.WARNING, logger="robustmm.data"):
        splits = make(csv, modalities, on_unreadable="missing")
        make(csv, modalities, on_unreadable="missing")
    (record,) = caplog.records
    heading, *cells = record.getMessage().split("\n  ")
    counts = "train rgb 1; test rgb 1, vec 1"
    assert heading == f"{csv}: cells that are unreadable and count as absent: 3 ({counts})"
    assert cells[0].startswith(f"{csv}:3 column rgb: bad.png: not a readable image (")
    assert cells[1:] == [
        f"{csv}:4 column rgb: gone.png: there is no such file",
        f"{csv}:5 column vec: 7 8 9: has shape (3,), others have (2,)",
    ]
    assert splits.train.unreadable_cells == cells[:1]
    assert splits.notes["unreadable_cells"] == counts
    assert splits.train.unreadable == {"rgb": 1}
    assert splits.test.unreadable == {"rgb": 1, "vec": 1}
    assert splits.notes["unreadable"] == 3
    assert splits.train[1]["inputs"]["rgb"] is None
    assert splits.train[1]["inputs"]["vec"].tolist() == [3, 4]
    assert splits.test[1]["inputs"]["vec"] is None  # of another length than the training part


def test_manifest__warns_of_ten_unreadable_cells_and_counts_the_others(tmp_path, caplog):
    rows = ["1 2,0,cat,train", "3 4,0,dog,train", *(f"1 2 {row},0,cat,test" for row in range(12))]
    csv = write(tmp_path, "\n".join(["vec,aux,label,split", *rows]))
    with caplog.at_level(logging.WARNING, logger="robustmm.data"):
        make(csv, {**VECTOR, "aux": {"kind": "vector"}}, on_unreadable="missing")
    lines = caplog.records[0].getMessage().split("\n  ")
    assert len(lines) == 12
    assert lines[10] == f"{csv}:13 column vec: 1 2 9: has shape (3,), others have (2,)"
    assert lines[11] == "... and 2 more"


def test_manifest__absent_files_stop_before_training(tmp_path):
    csv, modalities = broken_set(tmp_path)
    with pytest.raises(DataError) as caught:
        make(csv, modalities)
    path = tmp_path / "gone.png"
    problem = f"{csv}:4 column rgb: {path}: there is no such file"
    assert str(caught.value) == f"{problem}; on_unreadable: missing counts it as absent"


def test_manifest__names_ten_absent_files_of_all_parts_and_counts_the_others(tmp_path):
    rows = [f"{row}.npy,{'ab'[row % 2]},{'train' if row < 6 else 'test'}" for row in range(12)]
    csv = write(tmp_path, "\n".join(["vec,label,split", *rows]))
    with pytest.raises(DataError) as caught:
        make(csv)
    heading, *lines = str(caught.value).split("\n  ")
    assert heading == "12 files are not there; on_unreadable: missing counts them as absent"
    assert lines[:-1] == [
        f"{csv}:{row + 2} column vec: {tmp_path / f'{row}.npy'}: there is no such file" for row in range(10)
    ]
    assert lines[-1] == "... and 2 more"


def test_manifest__damaged_file_is_an_error_when_it_is_read(tmp_path):
    csv, modalities = broken_set(tmp_path)
    save_image(tmp_path / "gone.png")
    splits = make(csv, modalities)
    found = r"table\.csv:3 column rgb: bad\.png: not a readable image .*; on_unreadable: missing counts it as absent$"
    with pytest.raises(DataError, match=found):
        splits.train[1]
    assert "unreadable" not in splits.notes


def test_manifest__row_without_anything_readable_is_an_error(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    save_image(tmp_path / "good.png")
    csv = write(tmp_path, "rgb,label,split\ngood.png,x,train\nbad.png,y,train\ngood.png,x,test\n")
    with pytest.raises(DataError, match=r"table\.csv:3 no modality of this row is readable"):
        make(csv, IMAGE, on_unreadable="missing")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (np.array(["a"]), "holds values of type <U1; expected numbers"),
        (np.array([1.0, np.nan]), "holds values that are not finite"),
        (np.zeros((2, 2)), r"has shape \(2, 2\); a vector has 1 axes"),
        (np.array([object()]), "not a readable array"),
    ],
)
def test_manifest__names_what_is_wrong_with_an_array(tmp_path, content, text):
    np.save(tmp_path / "a.npy", content, allow_pickle=True)
    csv = write(tmp_path, "vec,label,split\na.npy,x,train\na.npy,y,train\na.npy,x,test\n")
    with pytest.raises(DataError, match=rf"table\.csv:2 column vec: a\.npy: {text}"):
        make(csv)


@pytest.mark.parametrize(
    ("modality", "cell", "text"),
    [
        ({"kind": "vector"}, "1 two 3", "could not convert string to float: 'two'; expected numbers such as 0.1 0.2"),
        ({"kind": "sequence"}, "a.txt", r"a sequence is read from \.npy, \.npz, not from '\.txt'"),
        ({"kind": "spectrogram"}, "a.wav", "not a readable WAV file .*convert it to 16-bit PCM"),
    ],
)
def test_manifest__names_what_a_cell_may_hold(tmp_path, modality, cell, text):
    for name in ("a.txt", "a.wav"):
        (tmp_path / name).write_text("nothing")
    csv = write(tmp_path, f"m,label,split\n{cell},x,train\n{cell},y,train\n{cell},x,test\n")
    with pytest.raises(DataError, match=rf"table\.csv:2 column m: .*{text}"):
        make(csv, {"m": modality})


# ---- tables that do not fit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vec,split\n1,train\n", r"table\.csv:1 lacks column label; it has vec, split"),
        ("label,split\nx,train\n", r"table\.csv:1 lacks column vec; it has label, split"),
        ("vec,label\n1,x\n", r"table\.csv:1 lacks column split; it has vec, label"),
        ("vec,vec,label,split\n1,1,x,train\n", r"table\.csv:1 names a column twice: vec, vec, label, split"),
        ("vec,label,split\n1,x,tran\n", r"table\.csv:2 column split: split 'tran' is unknown; known: train, val"),
        ("vec,label,split\n1,x,train\n1,x\n", r"table\.csv:3 has fewer cells than the header"),
        ("vec,label,split\n1,x,train,7\n", r"table\.csv:2 has more cells than the header"),
        ("vec,label,split\n1,x,train\n1,y,train\n", r"has no row for test"),
        ("vec,label,split\n1,x,test\n1,y,test\n", r"has no row for train"),
        ("vec,label,split\n1,x,train\n1,y,test\n", r"column label has 1 classes in training; at least 2"),
        (
            "vec,label,split\n1,x,train\n1,y,train\n\n1,zebra,test\n",
            r"table\.csv:5 column label: class 'zebra' is unknown; known: x, y",
        ),
        ("vec,label,split\n1,x,train\n1,y,train\n1, ,test\n", r"table\.csv:4 column label: the cell is empty$"),
        (
            "vec,label,split\n1,x,train\n ,y,train\n1,x,test\n",
            r"table\.csv:3 has no modality at all: column vec is empty",
        ),
    ],
)
def test_manifest__names_file_and_line_of_a_table_that_does_not_fit(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        make(write(tmp_path, text))


def test_manifest__names_modalities_that_are_nowhere_and_names_given_twice(tmp_path):
    csv = write(tmp_path, "vec,aux,label,split,id\n1,,x,train,a\n1,,y,train,b\n1,,x,test,a\n")
    with pytest.raises(DataError, match=r"no training row has a readable cell in column aux"):
        make(csv, {"vec": {"kind": "vector"}, "aux": {"kind": "vector"}})
    with pytest.raises(DataError, match=r"table\.csv:4 column id: 'a' stands already at .*table\.csv:2"):
        make(csv, id_column="id")


def test_manifest__names_a_file_that_is_not_there_and_text_that_is_not_utf8(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"none\.csv: no such file$"):
        make(str(tmp_path / "none.csv"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"^none\.csv: no such file; .* the current folder, {tmp_path}$"):
        make("none.csv")
    (tmp_path / "latin.csv").write_bytes(b"vec,label,split\n1,caf\xe9,train\n")
    with pytest.raises(DataError, match=r"latin\.csv: not a readable CSV file .*utf-8"):
        make(str(tmp_path / "latin.csv"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"modalities": {}}, "at least 1 item"),
        ({"modalities": {"rgb": {"kind": "image"}}}, r"kind image needs size: \[height, width\]"),
        ({"modalities": {"v": {"kind": "vector", "size": [3]}}}, "size has no meaning for a vector"),
        ({"modalities": {"v": {"kind": "vector", "colum": "x"}}}, "Extra inputs are not permitted"),
        ({"csv": {"train": "a.csv"}}, "separate files need at least train and test"),
        ({"task": "segmentation"}, "task segmentation needs classes"),
        ({"classes": ["a", "a"]}, "a name stands there twice"),
    ],
)
def test_manifest__refuses_options_that_do_not_fit(options, text):
    with pytest.raises(ValidationError, match=text):
        plugin.ManifestOptions(**{"csv": "a.csv", "modalities": VECTOR, **options})
