"""Each check of tasks, metrics, data sets and callbacks fails on a component that breaks its promise."""

from dataclasses import replace
from pathlib import Path

import broken
import torch
from broken import GENERAL, Broken, component

from robustmm import (
    ArrayDataset,
    Callback,
    ClassificationTask,
    DataSplits,
    Metric,
    Modality,
    RegressionTask,
    Rows,
    SegmentationTask,
)
from robustmm.tasks.classification_metrics import ClassificationMetrics


class NaNLoss(ClassificationTask):
    def loss(self, logits, target):
        return super().loss(logits, target) * torch.nan


class OneLossForAll(ClassificationTask):
    def sample_losses(self, logits, target):
        return self.loss(logits, target)


class MasksNothing(ClassificationTask):
    def masked_loss(self, logits, target, keep):
        return self.loss(logits, target)


class TurnsRows(ClassificationTask):
    def rows(self, logits, target):
        return Rows(logits.flip(0), target, torch.arange(len(target)))


class MeansOfBatches(ClassificationMetrics):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.means = []

    def update(self, logits, target):
        super().update(logits, target)
        self.means.append(float((logits.argmax(dim=1) == target).float().mean()))

    def compute(self):
        return super().compute() | {"accuracy": sum(self.means) / max(len(self.means), 1)}


class DividesByAllPixels(SegmentationTask):
    def loss(self, logits, target):
        return self._pixel_losses(logits, target)[0].mean() + logits.square().mean()


class AveragesBatches(ClassificationTask):
    def metrics(self):
        return MeansOfBatches(len(self.classes))


class LacksDirection(ClassificationTask):
    def __init__(self, classes):
        super().__init__(classes)
        del self.directions["ece"]


class NeverDegenerate(ClassificationMetrics):
    degenerate = False


class SeesNoCollapse(ClassificationTask):
    def metrics(self):
        return NeverDegenerate(len(self.classes))


class ForgetsUnit(RegressionTask):
    def __init__(self, classes):
        super().__init__(classes)
        self._non_persistent_buffers_set |= {"mean", "deviation"}


class LosesTargets(RegressionTask):
    def rows(self, logits, target):
        return Rows(logits, target.flip(1), torch.arange(len(target)))


class RecordsSigns(ClassificationTask):
    def record(self, logits, target):
        return {"logits": logits.sign()}


class LastBatchAlone(Metric):
    value = None

    def update(self, logits, target):
        self.value = float((logits.argmax(dim=1) == target).float().mean())

    def merge(self, other):
        pass

    def compute(self):
        return self.value


def part(name, count=6, *, shape=(4,), seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = {"a": torch.randn(count, *shape, generator=generator), "b": torch.randn(count, 2, generator=generator)}
    return ArrayDataset(inputs, torch.arange(count) % 2, [f"{name}{number}" for number in range(count)])


def splits(**changes):
    modalities = (Modality("a", "vector", (4,)), Modality("b", "vector", (2,)))
    sound = DataSplits(modalities, "classification", ("no", "yes"), part("train"), part("test"))
    return replace(sound, **changes)


def quantities(dtype=torch.float32, names=("age",)):
    parts = [part(name) for name in ("train", "test")]
    for one in parts:
        one.target = one.target.to(dtype)
    train, test = parts
    return dataset(task="regression", classes=names, train=train, test=test)


def dataset(**changes):
    return component(lambda: splits(**changes))


class Unlike:
    def __init__(self):
        self.build = 0

    def __call__(self):
        self.build += 1
        return splits(train=part("train", seed=self.build))


class TakesBackwards(ArrayDataset):
    def take(self, indices):
        batch = super().take(indices)
        return replace(batch, target=batch.target.flip(0))


def backwards():
    sound = part("train")
    return TakesBackwards(sound.inputs, sound.target, sound.ids)


def augmented(augment):
    sound = part("train")
    return ArrayDataset(sound.inputs, sound.target, sound.ids, augment=augment)


def jitter(sample, generator):
    return {**sample, "inputs": {name: x + torch.randn(x.shape) for name, x in sample["inputs"].items()}}


def in_place(sample, generator):
    for x in sample["inputs"].values():
        x += 1
    return sample


class FailsOnSecondRun(Callback):
    def on_run_start(self, run):
        (run.folder / "once").mkdir()


class NeedsStart(Callback):
    def on_run_start(self, run):
        self.folder = run.folder

    def on_run_end(self, status):
        (self.folder / "end").touch()


class Draws(Callback):
    def on_step(self, step, epoch):
        torch.rand(1)


class WritesElsewhere(Callback):
    def on_run_start(self, run):
        Path("stray_file_of_a_callback").touch()


def of_class(callback):
    return component(lambda: callback())


CASES = [
    Broken("task", "losses_are_finite_with_gradients", component(NaNLoss), "the loss is not finite"),
    Broken("task", "losses_are_finite_with_gradients", component(OneLossForAll), r"have shape \(\), not \(12,\)"),
    Broken("task", "masked_loss_sees_kept_samples_alone", component(MasksNothing), "not kept get a gradient"),
    Broken("task", "rows_belong_to_their_samples", component(TurnsRows), "row logits are not those of the sample"),
    Broken("task", "void_pixels_count_nowhere", component(DividesByAllPixels), "the loss with other predictions"),
    Broken("task", "scores_do_not_depend_on_batches", component(AveragesBatches), "three batches and of one: accuracy"),
    Broken("task", "scores_have_directions", component(LacksDirection), "scores and directions differ in ece"),
    Broken("task", "degenerate_predictions_are_found", component(SeesNoCollapse), "one class for everything"),
    Broken("task", "saved_weights_bring_the_scores_back", component(ForgetsUnit), "after a checkpoint: mae"),
    Broken("task", "rows_belong_to_their_samples", component(LosesTargets), "row targets are not those of the sample"),
    Broken("task", "records_give_the_same_scores", component(RecordsSigns), "scores of records: "),
    Broken("metric", "score_does_not_depend_on_batches", component(LastBatchAlone), "one batch and several batches"),
    Broken("dataset", "parts_are_not_empty", dataset(test=part("test", 0)), "the test part is empty"),
    Broken("dataset", "parts_are_not_empty", dataset(classes=("one", "one")), "classes are"),
    Broken("dataset", "samples_are_as_declared", dataset(train=part("train", shape=(5,))), r"a has shape \(5,\)"),
    Broken("dataset", "samples_are_as_declared", dataset(classes=("only",)), "label 1 is not a class"),
    Broken("dataset", "samples_are_as_declared", quantities(torch.int64), "the target is torch.int64, not a float"),
    Broken("dataset", "samples_are_as_declared", quantities(names=("age", "size")), r"shape \(\) for 2 quantities"),
    Broken("dataset", "names_are_unique", dataset(validation=part("train")), "'train0' of validation stands in train"),
    Broken("dataset", "equal_options_give_equal_data", component(Unlike()), "in two builds: a differs"),
    Broken("dataset", "samples_make_batches", dataset(train=backwards()), "take gives other targets"),
    Broken("dataset", "labels_and_groups_fit_training", dataset(train_labels=torch.zeros(3).long()), "has shape"),
    Broken(
        "dataset", "labels_and_groups_fit_training", dataset(train_labels=torch.ones(6).long()), "is not the target"
    ),
    Broken(
        "dataset",
        "augmentation_depends_on_the_generator_alone",
        dataset(train=augmented(jitter)),
        "augmented with equal generators: a differs",
    ),
    Broken(
        "dataset",
        "augmentation_depends_on_the_generator_alone",
        dataset(train=augmented(in_place)),
        "before and after",
    ),
    Broken("callback", "follows_a_whole_run", of_class(FailsOnSecondRun), "File exists"),
    Broken("callback", "ends_without_a_start", of_class(NeedsStart), "no attribute 'folder'"),
    Broken("callback", "changes_nothing", of_class(Draws), "draws from torch's global generator"),
    Broken("callback", "changes_nothing", of_class(WritesElsewhere), "writes stray_file_of_a_callback outside"),
]


@broken.parametrised(CASES)
def test_check__finds_broken_promise(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    broken.assert_caught(case)


def test_checks__are_all_proven():
    broken.assert_complete(CASES, ["task", "metric", "dataset", "callback"], general=GENERAL)
