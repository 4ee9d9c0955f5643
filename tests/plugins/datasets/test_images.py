"""Readers of pictures and label maps, and the data set that is made of them."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from robustmm_plugins.datasets import _images as images
from robustmm_plugins.datasets._cells import Unreadable

from robustmm import VOID, Augmentation, DataError, DataSplits, Modality
from robustmm.data.collate import Collate
from robustmm.data.loaders import PartLoader
from robustmm.data.parts import Part
from robustmm.data.survey import survey

SIZE = (6, 8)
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)
DEPTH = RNG.integers(0, 2**16, (12, 16), dtype=np.uint16)
LABEL = RNG.integers(0, 3, (12, 16), dtype=np.uint8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def make(tmp_path):
    """Write samples and make the data set of them; ``left_out`` names files that are not written."""

    def build(count=3, left_out=(), damage=(), labels=LABEL, places=("rgb", "depth"), **options):
        items = []
        for number in range(count):
            files = {
                "rgb": tmp_path / f"rgb{number}.png",
                "depth": tmp_path / f"depth{number}.png",
                "label": tmp_path / f"label{number}.png",
            }
            for name, array in (("rgb", COLOUR), ("depth", DEPTH), ("label", labels)):
                if f"{name}{number}" not in left_out:
                    save(files[name], array)
                if f"{name}{number}" in damage:
                    files[name].write_bytes(files[name].read_bytes()[:-20])
            label = files.pop("label")
            items.append(images.Item(f"s{number}", {name: files[name] for name in places}, label))
        modalities = (Modality("rgb", "image", (3, *SIZE)), Modality("depth", "image", (1, *SIZE), unit="mm"))
        readers = {"rgb": images.read_colour, "depth": images.read_depth}
        roles = {"rgb": "colour", "depth": "exact"}
        return images.ImageDataset(
            items, modalities, readers, images.read_label_map, num_classes=3, size=SIZE, roles=roles, **options
        )

    return build


# Readers


def test_read_colour__gives_red_green_blue_as_stored(tmp_path):
    assert np.array_equal(images.read_colour(save(tmp_path / "a.png", COLOUR)), COLOUR)
    flat = np.full((8, 8, 3), (200, 30, 90), np.uint8)
    assert np.abs(images.read_colour(save(tmp_path / "a.jpg", flat)).astype(int) - flat).max() <= 3


def test_read_colour__ignores_the_orientation_that_a_camera_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", np.zeros((4, 10, 3), np.uint8), exif=exif)
    assert images.read_colour(path).shape == (4, 10, 3)


def test_read_grey__gives_one_channel(tmp_path):
    assert np.array_equal(images.read_grey(save(tmp_path / "a.png", LABEL)), LABEL)
    assert images.read_grey(save(tmp_path / "b.png", COLOUR)).shape == (12, 16)


def test_read_depth__keeps_16_bits(tmp_path):
    found = images.read_depth(save(tmp_path / "a.png", DEPTH))
    assert found.dtype == np.uint16
    assert np.array_equal(found, DEPTH)
    with pytest.raises(Unreadable, match="has 3 channels; expected one"):
        images.read_depth(save(tmp_path / "b.png", COLOUR))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_read_label_map__reads_palettes_of_few_bits(tmp_path, bits):
    indices = (LABEL % 2**bits).astype(np.uint8)
    picture = Image.fromarray(indices, mode="L").convert("P")
    picture.putdata(indices.flatten().tolist())
    picture.putpalette([7, 7, 7] * 2**bits)
    picture.save(tmp_path / "a.png", bits=bits)
    assert np.array_equal(images.read_label_map(tmp_path / "a.png"), indices)


def test_read_label_map__reads_black_and_white_8_bits_16_bits_and_arrays(tmp_path):
    two = (LABEL == 1).astype(np.uint8)
    Image.fromarray(two * 255).convert("1").save(tmp_path / "a.png")
    assert np.array_equal(images.read_label_map(tmp_path / "a.png"), two)
    assert np.array_equal(images.read_label_map(save(tmp_path / "b.png", LABEL)), LABEL)
    assert np.array_equal(images.read_label_map(save(tmp_path / "c.png", DEPTH)), DEPTH)
    np.save(tmp_path / "d.npy", LABEL.astype(np.int64))
    assert np.array_equal(images.read_label_map(tmp_path / "d.npy"), LABEL)
    with pytest.raises(Unreadable, match="has 3 channels; a label map has one"):
        images.read_label_map(save(tmp_path / "e.png", COLOUR))


@pytest.mark.parametrize("values", [np.full((4, 5), 1.7), np.full((4, 5), np.nan), np.ones((4, 5, 1), np.uint8)])
def test_read_label_map__refuses_arrays_that_are_no_map_of_whole_numbers(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(Unreadable, match=r"has shape \(4, 5.*; a label map is \(H, W\) of whole numbers"):
        images.read_label_map(tmp_path / "a.npy")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_readers__refuse_a_truncated_file(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", COLOUR)
    whole = path.read_bytes()
    for kept in (len(whole) - 5, len(whole) // 2, 10):
        path.write_bytes(whole[:kept])
        with pytest.raises(Unreadable, match="is truncated: its end marker is not there"):
            images.read_colour(path)


def test_readers__refuse_what_is_no_picture(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(Unreadable, match="there is no such file"):
        images.read_colour(path)
    path.touch()
    with pytest.raises(Unreadable, match="is empty"):
        images.read_grey(path)
    path.write_text("hello")
    with pytest.raises(Unreadable, match="is damaged, or no picture"):
        images.read_depth(path)
    with pytest.raises(Unreadable, match="cannot be opened"):
        images.read_label_map(tmp_path)
    damaged = bytearray(save(path, COLOUR).read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(Unreadable, match="is damaged, or no picture"):
        images.read_colour(path)


def test_read_npy__refuses_objects_and_vectors(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(Unreadable, match=r"not a readable \.npy file"):
        images.read_npy(path)
    np.save(path, np.zeros(3))
    with pytest.raises(Unreadable, match="holds no numbers of shape"):
        images.read_npy(path)


# The data set


def test_image_dataset__brings_inputs_to_size_and_leaves_the_label(make):
    sample = make()[1]
    assert sample["id"] == "s1"
    assert {name: (tuple(value.shape), value.dtype) for name, value in sample["inputs"].items()} == {
        "rgb": ((3, *SIZE), torch.uint8),
        "depth": ((1, *SIZE), torch.float32),
    }
    assert torch.equal(sample["target"], torch.from_numpy(LABEL).long())
    assert set(sample["inputs"]["depth"].unique().tolist()) <= set(DEPTH.flatten().tolist())
    # Two by two pixels are averaged.
    corner = torch.from_numpy(COLOUR[:2, :2].reshape(4, 3)).double().mean(dim=0)
    assert (sample["inputs"]["rgb"][:, 0, 0] - corner).abs().max() <= 0.5


def test_image_dataset__target_reads_the_label_alone(make):
    dataset = make(left_out=["rgb0", "depth0"])
    assert torch.equal(dataset.target(0), torch.from_numpy(LABEL).long())


def test_image_dataset__augment_brings_all_to_size_and_starts_from_the_file(make):
    dataset = make(augmentation=Augmentation(rescale=(1.0, 1.0), rescale_from="native"))
    sample = dataset.augment(dataset[0], torch.Generator().manual_seed(0))
    assert sample["target"].shape == SIZE
    depth = sample["inputs"]["depth"][0].numpy()
    # A crop at native resolution: the values stand beside each other in the file as well.
    places = [
        (row, column)
        for row in range(7)
        for column in range(9)
        if np.array_equal(DEPTH[row : row + 6, column : column + 8], depth)
    ]
    assert len(places) == 1
    row, column = places[0]
    assert np.array_equal(sample["target"].numpy(), LABEL[row : row + 6, column : column + 8])
    assert np.array_equal(sample["inputs"]["rgb"].permute(1, 2, 0).numpy(), COLOUR[row : row + 6, column : column + 8])


def test_image_dataset__augment_without_options_resizes_as_reading_does(make):
    dataset = make()
    sample = dataset[0]
    augmented = dataset.augment(sample, torch.Generator())
    for name, value in sample["inputs"].items():
        assert torch.equal(value, augmented["inputs"][name])
    assert augmented["target"].shape == SIZE


def test_image_dataset__at_training_size_changes_nothing_but_the_size(make):
    dataset = make(augmentation=Augmentation(flip=1.0, value=100.0))
    sample = dataset[0]
    still = dataset.at_training_size(sample)
    assert still["target"].shape == SIZE
    for name, value in sample["inputs"].items():
        assert torch.equal(value, still["inputs"][name])


def test_image_dataset__survey_counts_the_sizes_of_the_files(make):
    dataset = make(left_out=["depth1"], on_unreadable="missing")
    modalities = (Modality("rgb", "image", (3, *SIZE)), Modality("depth", "image", (1, *SIZE)))
    splits = DataSplits(modalities, "segmentation", ("a", "b", "c"), dataset, make(count=1))
    found = survey(splits).parts["train"]
    assert dict(found.values["rgb"].sizes) == {(12, 16): 3}
    assert dict(found.values["depth"].sizes) == {(12, 16): 2}
    assert dataset[0]["inputs"]["rgb"].shape == (3, *SIZE)


def test_image_dataset__takes_samples_of_plain_tensors_as_well(make):
    dataset = make(augmentation=Augmentation(flip=1.0))
    sample = dataset[0] | {"inputs": dict(dataset[0]["inputs"])}
    flipped = dataset.augment(sample, torch.Generator())
    assert torch.equal(flipped["inputs"]["depth"], sample["inputs"]["depth"].flip(2))


def test_image_dataset__makes_batches_with_a_modality_missing(make):
    dataset = make(places=("depth",))
    batch = Collate([Modality("rgb", "image", (3, *SIZE)), Modality("depth", "image", (1, *SIZE))])(
        [(0, dataset[0]), (1, dataset[1])]
    )
    assert batch.observed.tolist() == [[False, True]] * 2
    assert (batch.inputs["rgb"] == 0).all()
    assert dataset.augment(dataset[0], torch.Generator())["inputs"]["rgb"] is None


def test_image_dataset__names_the_file_that_cannot_be_read(make, tmp_path):
    with pytest.raises(DataError, match=r"rgb0\.png \(rgb\): there is no such file; mend .* on_unreadable: missing"):
        make(left_out=["rgb0"])[0]
    with pytest.raises(DataError, match=r"depth0\.png \(depth\): is truncated"):
        make(damage=["depth0"])[0]
    save(tmp_path / "depth1.png", COLOUR)
    with pytest.raises(DataError, match=r"depth1\.png \(depth\): has 3 channels"):
        make(left_out=["depth1"])[1]


def test_image_dataset__refuses_another_number_of_channels(make):
    dataset = make()
    dataset.readers["depth"] = images.read_colour
    with pytest.raises(DataError, match=r"depth0\.png \(depth\): has shape \(12, 16, 3\), expected 1 channels"):
        dataset[0]


def test_image_dataset__counts_unreadable_as_missing_where_asked(make, caplog):
    dataset = make(damage=["depth1"], left_out=["rgb2"], on_unreadable="missing")
    with caplog.at_level(logging.WARNING, "robustmm.data"):
        assert [[value is not None for value in dataset[index]["inputs"].values()] for index in (0, 1, 1, 2)] == [
            [True, True],
            [True, False],
            [True, False],
            [False, True],
        ]
    assert len(caplog.records) == 2
    assert len(dataset.unreadable_cells) == 2
    assert "depth1.png (depth): is truncated" in dataset.unreadable_cells[0]
    assert make(left_out=["rgb0"]).unreadable_cells == []


def test_image_dataset__refuses_a_sample_without_any_modality(make):
    with pytest.raises(DataError, match="sample 's0' has nothing that can be read of rgb, depth; leave"):
        make(left_out=["rgb0", "depth0"], on_unreadable="missing")[0]


def test_image_dataset__label_that_cannot_be_read_is_always_an_error(make, tmp_path):
    with pytest.raises(DataError, match=r"label0\.png: is truncated.*; every sample needs its label map"):
        make(damage=["label0"], on_unreadable="missing")[0]
    with pytest.raises(DataError, match=r"label9\.png: there is no such file"):
        images.ImageDataset(
            [images.Item("a", {}, tmp_path / "label9.png")],
            (),
            {},
            images.read_label_map,
            num_classes=3,
            size=SIZE,
            roles={},
            on_unreadable="missing",
        ).target(0)


@pytest.mark.parametrize("value", [3, 254])
def test_image_dataset__names_a_label_that_is_no_class(make, value):
    labels = LABEL.copy()
    labels[4, 4] = value
    text = rf"label0\.png: label {value} is not a class; accepted are 0 to 2 and 255 for void"
    with pytest.raises(DataError, match=text):
        make(labels=labels)[0]
    labels[4, 4] = VOID
    assert make(labels=labels)[0]["target"][4, 4] == VOID


def test_image_dataset__refuses_negative_and_16_bit_labels(make, tmp_path):
    with pytest.raises(DataError, match=r"label 300 is not a class"):
        make(labels=np.full((12, 16), 300, np.uint16))[0]
    dataset = make()
    dataset.read_label = lambda place: np.full((12, 16), -1)
    with pytest.raises(DataError, match=r"label -1 is not a class"):
        dataset.target(0)


def test_image_dataset__worker_processes_draw_what_this_one_draws(make):
    dataset = make(augmentation=Augmentation(rescale=(1.0, 2.0), flip=0.5, rotate=10, noise=0.1, hue=0.1))
    part = Part(dataset, range(3), augment_seed=1)
    modalities = (Modality("rgb", "image", (3, *SIZE)), Modality("depth", "image", (1, *SIZE)))
    alone, shared = (
        next(iter(PartLoader(part, modalities, batch_size=3, workers=workers).training(2))) for workers in (0, 1)
    )
    assert alone.ids == shared.ids
    assert torch.equal(alone.target, shared.target)
    for name in alone.inputs:
        assert torch.equal(alone.inputs[name], shared.inputs[name])


def test_list_files__gives_stems_and_refuses_doubles(tmp_path):
    for name in ("b.png", "a.jpg", "c.txt", ".d.png"):
        (tmp_path / name).touch()
    assert list(images.list_files(tmp_path, (".png", ".jpg"))) == ["a", "b"]
    assert images.list_files(tmp_path / "none", (".png",)) == {}
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"a\.jpg and a\.png are files of one sample; keep one"):
        images.list_files(tmp_path, (".png", ".jpg"))
