"""Trusted and dynamic fusion with equal networks, on clean and on conflicting test samples.

    python tools/compare_fusion.py                        # six views of digits, about ten minutes on one core
    python tools/compare_fusion.py --sets handwritten scene15 cub    # needs ROBUSTMM_DATA for the latter two

Every method has one linear layer per view. Set-up of the published comparisons: features brought to [0, 1], 80/20
splits, Adam at 3e-3 with weight decay 1e-5, batches of 200, 500 epochs, the last epoch is scored, so that nothing is
selected.
Scaling is fitted on the training part alone. Clean accuracy on these sets proves nothing: the standardised logistic
regression on all views side by side, which is printed beside the methods, matches the papers.

A conflicting test part is the clean one in which a tenth of the samples get noise N(0, 0.5^2) on some of their views,
and then four tenths, drawn independently, get one view from the first sample of the next class (RCML's protocol).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from lightning.fabric import Fabric
from robustmm_plugins.datasets import handwritten_6views, multiview_features
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from robustmm import (
    Balancer,
    Batch,
    Blueprint,
    ClassificationTask,
    Clock,
    Encoder,
    LateTrunk,
    Method,
    MissingPolicy,
    Modality,
    Scaling,
    Trunk,
    generator_for,
)
from robustmm.engine.evaluate import evaluate_combinations
from robustmm.engine.step import StepContext, train_step
from robustmm.models.fusion import NoFusion
from robustmm.plugin_manager import get_plugins
from robustmm.seeding import seed_torch

EPOCHS, BATCH, RATE, DECAY = 500, 200, 3e-3, 1e-5
NOISY, MISMATCHED, NOISE = 0.1, 0.4, 0.5
Views = Mapping[str, Tensor]

#: Compared methods: label -> (registered name, options).
METHODS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "late_fusion": ("late_fusion", {}),
    "tmc": ("tmc", {"anneal_epochs": 50}),
    "qmf, no rank term": ("qmf", {"rank_weight": 0.0}),
    "qmf, released margin": ("qmf", {"margin": "code"}),
    "qmf": ("qmf", {}),
}
#: Clean (mean, deviation) and conflicting mean, in percent, of an earlier set-up with other code: five splits, scaling
#: fitted on all rows.
EARLIER = {
    ("handwritten", "late_fusion"): (98.70, 0.29, 96.60),
    ("handwritten", "tmc"): (98.10, 0.46, 95.05),
    ("handwritten", "qmf, no rank term"): (97.75, 0.65, 90.95),
    ("handwritten", "qmf, released margin"): (97.90, 0.70, 91.10),
    ("handwritten", "qmf"): (97.90, 0.70, 91.15),
    ("scene15", "late_fusion"): (76.52, 1.23, 63.68),
    ("scene15", "tmc"): (73.00, 1.11, 62.14),
    ("scene15", "qmf, no rank term"): (77.95, 1.31, 64.66),
    ("scene15", "qmf, released margin"): (77.90, 1.34, 64.73),
    ("scene15", "qmf"): (77.90, 1.27, 64.73),
    ("cub", "late_fusion"): (92.83, 2.61, 72.00),
    ("cub", "tmc"): (89.83, 1.43, 71.83),
    ("cub", "qmf, no rank term"): (92.67, 2.66, 73.33),
    ("cub", "qmf, released margin"): (92.67, 2.66, 72.67),
    ("cub", "qmf"): (92.83, 2.77, 73.00),
}


def read(name: str) -> tuple[Views, Tensor]:
    """All rows of a set: views in raw units, labels from 0."""
    if name == "handwritten":
        return handwritten_6views.read_views()
    root = "$ROBUSTMM_DATA/multiview_features"
    return multiview_features.read_views(name, root)  # type: ignore[arg-type]  # argparse allows no other


def scaled(views: Views, train: Tensor) -> Views:
    """Each feature brought to [0, 1] by the smallest and largest value of the training rows."""
    result = {}
    for name, x in views.items():
        low, high = x[train].aminmax(dim=0)
        result[name] = (x - low) / (high - low).clamp_min(1e-8)
    return result


def conflicting(views: Views, labels: Tensor, classes: int, seed: int) -> Views:
    """Test views with noise and with views of other classes; see the top of this file."""
    generator = generator_for(seed, "conflict")
    changed = {name: x.clone() for name, x in views.items()}
    names, count = list(views), len(labels)
    for row in torch.randperm(count, generator=generator)[: int(NOISY * count)].tolist():
        amount = int(torch.randint(len(names), (1,), generator=generator))
        for place in torch.randperm(len(names), generator=generator)[:amount].tolist():
            x = changed[names[place]]
            x[row] += NOISE * torch.randn(x.shape[1], generator=generator)
    first = {label: int((labels == label).nonzero()[0]) for label in range(classes)}
    for row in torch.randperm(count, generator=generator)[: int(MISMATCHED * count)].tolist():
        name = names[int(torch.randint(len(names), (1,), generator=generator))]
        changed[name][row] = views[name][first[(int(labels[row]) + 1) % classes]]
    return changed


def batch_of(views: Views, labels: Tensor, rows: Tensor) -> Batch:
    """The rows as a batch in which everything is observed."""
    observed = torch.ones(len(rows), len(views), dtype=torch.bool)
    inputs = {name: x[rows] for name, x in views.items()}
    return Batch(inputs, observed, labels[rows], tuple(map(str, rows.tolist())), rows)


def blueprint(views: Views, classes: int, samples: int) -> Blueprint:
    """No encoder, one linear layer per view."""
    modalities = tuple(Modality(name, "vector", (x.shape[1],), Scaling("none")) for name, x in views.items())
    head = get_plugins().registry.get("head", "linear")

    def make_trunk(*, only: object = None, fused: bool = True) -> Trunk:
        encoders = {m.name: Encoder(nn.ModuleList([nn.Identity()]), m.shape, (0,)) for m in modalities}
        return LateTrunk(modalities, encoders, NoFusion(), MissingPolicy())

    return Blueprint(
        modalities,
        ClassificationTask([str(number) for number in range(classes)]),
        make_trunk,
        lambda channels: head.build(channels=channels, num_outputs=classes),
        samples,
    )


def train(label: str, views: Views, labels: Tensor, classes: int, seed: int, epochs: int) -> Method:
    """A method after its last epoch."""
    name, given = METHODS[label]
    component = get_plugins().registry.get("method", name)
    options = component.options(**given)
    seed_torch(seed, "weights")
    own = blueprint(views, classes, len(labels))
    method: Method = component.build(
        blueprint=own, **{key: getattr(options, key) for key in type(options).model_fields}
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    optimizer = fabric.setup_optimizers(torch.optim.Adam(method.parameters(), lr=RATE, weight_decay=DECAY, fused=True))
    steps = -(-len(labels) // BATCH)
    clock = Clock(epoch=0, step=0, epochs=epochs, steps_per_epoch=steps)
    run = StepContext(fabric, method, Balancer(), optimizer, {}, None, seed, clock)  # type: ignore[arg-type]
    method.train()
    for epoch in range(epochs):
        order = torch.randperm(len(labels), generator=generator_for(seed, "order", epoch))
        for rows in order.split(BATCH):
            batch = batch_of(views, labels, rows)
            train_step(run, [batch], batch.observed)
            run.clock = replace(run.clock, epoch=epoch, step=run.clock.step + 1)
    return method


def accuracy(method: Method, views: Views, labels: Tensor) -> float:
    """In percent, with all views."""
    batches = [batch_of(views, labels, torch.arange(len(labels)))]
    evaluation = evaluate_combinations(method, batches, torch.device("cpu"), combinations=[method.modalities])
    value = evaluation.combinations[method.modalities].metrics.compute()["accuracy"]
    assert value is not None
    return 100 * value


def logistic_regression(train_views: Views, labels: Tensor, test: Mapping[str, Views], truth: Tensor) -> list[float]:
    """Accuracies in percent of a standardised logistic regression on all views side by side."""

    def flat(views: Views) -> np.ndarray:
        return torch.cat(list(views.values()), dim=1).numpy()

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(flat(train_views), labels.numpy())
    return [100 * model.score(flat(views), truth.numpy()) for views in test.values()]


def rows_of(views: Views, rows: Tensor) -> Views:
    """The same rows of every view."""
    return {name: x[rows] for name, x in views.items()}


def compare(name: str, labels_of: Sequence[str], seeds: int, epochs: int) -> dict[str, list[list[float]]]:
    """Label -> for each split [clean, conflicting] accuracy."""
    raw, labels = read(name)
    classes = int(labels.max()) + 1
    scores: dict[str, list[list[float]]] = {label: [] for label in ("logistic regression", *labels_of)}
    for seed in range(seeds):
        inside, outside = handwritten_6views.stratified_split(labels, 0.2, generator_for(name, "split", seed))
        views = scaled(raw, inside)
        own, clean, truth = rows_of(views, inside), rows_of(views, outside), labels[outside]
        test = {"clean": clean, "conflicting": conflicting(clean, truth, classes, seed)}
        scores["logistic regression"].append(logistic_regression(own, labels[inside], test, truth))
        for label in labels_of:
            method = train(label, own, labels[inside], classes, seed, epochs)
            scores[label].append([accuracy(method, part, truth) for part in test.values()])
    return scores


def spread(values: list[float]) -> str:
    """``mean ± sd``."""
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def report(name: str, scores: Mapping[str, list[list[float]]]) -> None:
    """Print a Markdown table."""
    print(f"\n{name}, {len(next(iter(scores.values())))} splits, accuracy in percent:\n")
    print("| method | clean | conflicting | earlier, clean | earlier, conflicting |\n|---|---|---|---|---|")
    for label, splits in scores.items():
        cells = [spread([split[column] for split in splits]) for column in range(2)]
        known = EARLIER.get((name, label))
        cells += ["-", "-"] if known is None else [f"{known[0]:.2f} ± {known[1]:.2f}", f"{known[2]:.2f}"]
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def main(clock: Callable[[], float] = time.perf_counter) -> None:
    """Compare on each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=["handwritten", "scene15", "cub"], default=["handwritten"])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = clock()
    for name in arguments.sets:
        report(name, compare(name, arguments.methods, arguments.seeds, arguments.epochs))
    print(f"\n{(clock() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
