"""The synthetic generator: its construction, and the accuracy that each combination can and cannot reach."""

from itertools import combinations

import pytest
import torch
from pydantic import ValidationError
from robustmm_plugins.datasets import synthetic as plugin


def make(**options):
    return plugin.build_synthetic(**plugin.SyntheticOptions(**options).model_dump())


def every_combination(modalities):
    return [combo for count in range(modalities) for combo in combinations(range(modalities), count + 1)]


def nearest_class(splits, combination):
    """Predict test labels (rows) by the nearest class mean of training over the modalities of ``combination``."""

    def rows(part):
        values = torch.cat([part.inputs[f"m{m}"] for m in combination], dim=1)
        return values if values.ndim == 2 else values.movedim(1, -1).flatten(0, -2)

    def labels(part, values):
        return (
            part.target.flatten() if part.target.ndim == 3 else part.target.repeat_interleave(len(values) // len(part))
        )

    train, test = rows(splits.train), rows(splits.test)
    target = labels(splits.train, train)
    means = torch.stack([train[target == label].mean(dim=0) for label in range(len(splits.classes))])
    return torch.cdist(test, means).argmin(dim=1), labels(splits.test, test)


@pytest.mark.parametrize(
    ("modalities", "classes", "seen"),
    [
        (1, 4, [(0, 1)]),
        (2, 4, [(0,), (1,)]),
        (2, 8, [(0, 2), (1,)]),
        (3, 8, [(0,), (1,), (2,)]),
        (4, 4, [(0,), (1,), (0,), (1,)]),
        (3, 2, [(0,), (0,), (0,)]),
    ],
)
def test_seen_bits__spreads_bits_over_modalities(modalities, classes, seen):
    assert plugin.seen_bits(modalities, classes) == seen


@pytest.mark.parametrize(
    ("combination", "modalities", "classes", "best"),
    [
        ((0,), 2, 4, 1 / 2),
        ((0, 1), 2, 4, 1),
        ((2,), 3, 8, 1 / 4),
        ((0, 2), 3, 8, 1 / 2),
        ((0,), 2, 8, 1 / 2),
        ((1,), 2, 8, 1 / 4),
        ((0, 2), 4, 4, 1 / 2),  # both see bit 0
        ((0, 1), 4, 4, 1),
        ((0,), 2, 3, 2 / 3),  # classes 0, 1, 2 = 00, 01, 10: bit 0 leaves {0, 2} together
    ],
)
def test_best_accuracy__counts_patterns(combination, modalities, classes, best):
    assert plugin.best_accuracy(combination, modalities, classes) == pytest.approx(best)


@pytest.mark.parametrize("options", [{"modalities": 2, "classes": 4}, {"modalities": 3, "classes": 8}])
@pytest.mark.parametrize("shape", [{}, {"kind": "image", "size": 8}, {"dense": True, "size": 16, "noise": 0.3}])
def test_synthetic__a_combination_reaches_its_best_accuracy_and_no_more(options, shape):
    splits = make(samples=160, seed=3, **options, **shape)
    for combination in every_combination(options["modalities"]):
        prediction, target = nearest_class(splits, combination)
        best = plugin.best_accuracy(combination, options["modalities"], options["classes"])
        assert (prediction == target).float().mean() == pytest.approx(best, abs=0.12 if best < 1 else 0.01)


def test_synthetic__complete_bayes_classifier_is_bounded_by_the_seen_bits():
    """However the labels that share a pattern are told apart, no more than one of them can be right."""
    splits = make(modalities=2, classes=4, noise=0.0, samples=64)
    values = splits.test.inputs["m0"]
    same = torch.cdist(values, values) < 1e-4
    for label in range(4):
        partners = {int(other) for other in splits.test.target[same[splits.test.target == label].any(dim=0)]}
        assert partners == {label, label ^ 0b10}


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
@pytest.mark.parametrize("dense", [False, True])
def test_synthetic__keeps_the_data_contract(modalities, dense):
    splits = make(modalities=modalities, dense=dense, samples=12, size=8)
    sample = splits.train[3]
    assert list(sample["inputs"]) == [modality.name for modality in splits.modalities]
    assert len(splits.modalities) == modalities
    for modality in splits.modalities:
        assert sample["inputs"][modality.name].shape == modality.shape
        assert sample["inputs"][modality.name].dtype == torch.float32
    assert sample["target"].shape == ((8, 8) if dense else ())
    assert sample["target"].dtype == torch.int64
    assert splits.task == ("segmentation" if dense else "classification")
    assert (splits.train_labels is None) == dense
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (12, 6, 6)


def test_synthetic__one_seed_is_one_data_set_and_parts_differ():
    first, again, other = make(seed=1), make(seed=1), make(seed=2)
    assert torch.equal(first.train.inputs["m1"], again.train.inputs["m1"])
    assert not torch.equal(first.train.inputs["m1"], other.train.inputs["m1"])
    assert not torch.equal(first.train.inputs["m0"][:128], first.test.inputs["m0"])


def test_synthetic__classes_are_balanced():
    assert torch.bincount(make(classes=3, samples=10).train.target).tolist() == [4, 3, 3]


def test_synthetic__missing_rate_is_met_and_one_modality_stays():
    observed = make(modalities=4, missing_rate=0.5, samples=4000).train.observed
    assert observed.any(dim=1).all()
    # One in sixteen rows would lose all four and keeps one: the share of present cells is (0.5 * 4 + 1 / 16) / 4.
    assert observed.float().mean() == pytest.approx((0.5 * 4 + 1 / 16) / 4, abs=0.02)


def test_synthetic__absent_modality_is_none():
    train = make(modalities=2, missing_rate=0.9, samples=20).train
    number = int((~train.observed[:, 0]).nonzero()[0])
    assert train[number]["inputs"]["m0"] is None
    assert train[number]["inputs"]["m1"] is not None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dense": True, "kind": "vector"}, "dense: true needs kind: image"),
        ({"modalities": 1, "classes": 16, "kind": "image"}, "16 classes over 1 modalities put 4 bits into one of them"),
        ({"modalities": 5}, "less than or equal to 4"),
        ({"colour": 1}, "Extra inputs are not permitted"),
    ],
)
def test_synthetic__refuses_options_that_do_not_fit(options, text):
    with pytest.raises(ValidationError, match=text):
        plugin.SyntheticOptions(**options)


def test_synthetic__notes_name_the_best_accuracy_of_each_combination():
    assert make(modalities=2, classes=4).notes["best accuracy"] == "m0 0.5, m1 0.5, m0+m1 1"
