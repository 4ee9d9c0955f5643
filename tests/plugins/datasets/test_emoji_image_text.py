"""The shipped emoji: table, pictures, vocabulary from training alone, and signal in both modalities."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from robustmm_plugins.datasets import emoji_image_text as plugin
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


@pytest.fixture(scope="module")
def splits():
    return plugin.build_emoji_image_text(**plugin.EmojiOptions().model_dump())


def test_emoji__parts_have_their_sizes_and_are_disjoint(splits):
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1334, 190, 382)
    assert len({*splits.train.ids, *splits.validation.ids, *splits.test.ids}) == 1906
    assert splits.train.inputs["image"].shape == (1334, 3, 32, 32)
    counts = torch.bincount(torch.cat([part.target for part in (splits.train, splits.validation, splits.test)]))
    assert counts.tolist() == [169, 386, 159, 131, 218, 85, 264, 224, 270]


def test_emoji__pictures_lie_in_the_unit_range_on_white(splits):
    images = splits.train.inputs["image"]
    assert images.min() == 0
    assert images.max() == 1
    assert (images[:, :, 0, 0] > 0.85).all(dim=1).float().mean() > 0.9  # corners are hardly covered


def test_emoji__red_heart_is_red_and_green_heart_green(splits):
    colour = {}
    for part in (splits.train, splits.validation, splits.test):
        for code, image in zip(part.ids, part.inputs["image"], strict=True):
            if code in ("2764-FE0F", "1F49A"):
                colour[code] = image[:, 16, 16]
    assert colour["2764-FE0F"].argmax() == 0
    assert colour["1F49A"].argmax() == 1


def test_emoji__text_rows_have_length_one(splits):
    length = splits.train.inputs["text"].norm(dim=1)
    torch.testing.assert_close(length, torch.ones(1334))
    assert splits.modalities[1].shape == splits.train.inputs["text"].shape[1:]


def test_emoji__keywords_add_words():
    few = plugin.build_emoji_image_text(text="name", vocabulary_size=10_000)
    many = plugin.build_emoji_image_text(text="name_keywords", vocabulary_size=10_000)
    assert many.modalities[1].shape[0] > few.modalities[1].shape[0]
    assert few.notes["vocabulary"] == few.modalities[1].shape[0]


@pytest.mark.parametrize(("text", "at_least"), [("name", 0.66), ("name_keywords", 0.8)])
def test_emoji__words_tell_the_groups(text, at_least):
    splits = plugin.build_emoji_image_text(text=text, vocabulary_size=2048)
    model = LogisticRegression(max_iter=100, C=10).fit(splits.train.inputs["text"].numpy(), splits.train.target)
    assert model.score(splits.test.inputs["text"].numpy(), splits.test.target) >= at_least


def test_emoji__pictures_tell_the_groups(splits):
    model = make_pipeline(PCA(40, whiten=True, svd_solver="randomized", random_state=0), LogisticRegression())
    model.fit(splits.train.inputs["image"].flatten(1).numpy(), splits.train.target)
    # The largest group is 20 %; 80 components reach 59 %.
    assert model.score(splits.test.inputs["image"].flatten(1).numpy(), splits.test.target) >= 0.5


@pytest.mark.data("emoji_image_text")
def test_emoji__equals_the_prepared_folder(external_data, splits):
    with (external_data / "emoji.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sheet = Image.open(external_data / "twemoji_sheet_32.png").convert("RGBA")
    blended = np.asarray(Image.alpha_composite(Image.new("RGBA", sheet.size, "white"), sheet).convert("RGB"))
    parts = {"train": splits.train, "val": splits.validation, "test": splits.test}
    position = dict.fromkeys(parts, 0)
    for row in rows:
        sample = parts[row["split"]][position[row["split"]]]
        position[row["split"]] += 1
        x, y = int(row["x"]), int(row["y"])
        assert sample["id"] == row["code"]
        assert splits.classes[sample["target"]] == row["group"]
        assert np.array_equal(
            (sample["inputs"]["image"] * 255).byte().permute(1, 2, 0), blended[y : y + 32, x : x + 32]
        )
