"""The reader of CUB and Scene-15: on files of the same layout written here, and on the real ones where they are."""

import numpy as np
import pytest
import torch
from robustmm_plugins.datasets import multiview_features as plugin
from scipy.io import savemat

from robustmm import DataError


def write_mat(folder, collection, **changes):
    known = plugin.SETS[collection]
    cells = np.empty((1, len(known.views)), dtype=object)
    for place, size in enumerate(known.views.values()):
        cells[0, place] = np.full((known.samples, size), place + 1.0) + np.arange(known.samples)[:, None]
    labels = (np.arange(known.samples) % known.classes + 1).astype(np.uint8)[:, None]
    content = {"X": cells, known.labels: labels} | changes
    savemat(folder / known.file, {key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize("collection", ["cub", "scene15"])
def test_views__stand_in_order_and_labels_begin_at_0(tmp_path, collection):
    write_mat(tmp_path, collection)
    views, labels = plugin.read_views(collection, str(tmp_path))
    assert {name: x.shape[1] for name, x in views.items()} == plugin.SETS[collection].views
    assert [float(x[5, 0]) for x in views.values()] == [place + 6.0 for place in range(len(views))]
    assert labels[:3].tolist() == [0, 1, 2]


def test_split__takes_a_fifth_of_each_class_and_follows_its_seed(tmp_path):
    write_mat(tmp_path, "cub")
    first, again, other = (plugin.build_multiview_features("cub", str(tmp_path), seed) for seed in (0, 0, 1))
    assert torch.bincount(first.test.target).tolist() == [12] * 10
    assert list(first.test.ids) == list(again.test.ids) != list(other.test.ids)
    assert not set(first.test.ids) & set(first.train.ids)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"X": None}, "lacks X; expected the cells X and the labels gt"),
        ({"gt": np.zeros((600, 1), np.uint8)}, "gt must hold 600 labels, 1 to 10"),
        (
            {"X": np.zeros((1, 0), dtype=object)},
            r"X holds views of shapes \[\], expected \[\(600, 1024\)",
        ),
    ],
)
def test_reading__names_what_is_wrong_in_the_file(tmp_path, changes, text):
    write_mat(tmp_path, "cub", **changes)
    with pytest.raises(DataError, match=text):
        plugin.read_views("cub", str(tmp_path))


def test_reading__names_what_to_obtain_when_the_file_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"lacks Scene-15\.mat; expected .*ProImp"):
        plugin.read_views("scene15", str(tmp_path))


@pytest.mark.data("multiview_features")
@pytest.mark.parametrize(("collection", "counts"), [("cub", [60] * 10), ("scene15", None)])
def test_real_files__have_the_published_sizes(external_data, collection, counts):
    views, labels = plugin.read_views(collection, str(external_data))
    assert all(len(x) == len(labels) and x.isfinite().all() for x in views.values())
    assert counts is None or torch.bincount(labels).tolist() == counts
