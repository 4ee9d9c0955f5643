"""What tasks and metrics promise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustmm.metrics.metric import Metric
from robustmm.registry import Component
from robustmm.tasks.task import Metrics, Task
from robustmm.testing.contract import build, check, require, require_close, require_finite, through_checkpoint
from robustmm.testing.tiny import CLASSES, GRID, TARGET_DEVIATION, TARGET_MEAN
from robustmm.types import VOID

BATCH = 12
COUNT = len(CLASSES)

Part = tuple[Tensor, Tensor]
Scores = dict[str, float | None]


def make(component: Component) -> Task:
    """The task over three classes or quantities, with what it learns from targets."""
    task: Task = build(component, classes=CLASSES)
    if task.needs_targets:
        task.fit(examples(task)[1])
    return task


def examples(task: Task) -> Part:
    """Random logits, and targets that a task may meet."""
    return quantities() if task.continuous else predictions(dense=task.dense)


def quantities() -> Part:
    """Random logits of three quantities, and targets of another size."""
    return torch.randn(BATCH, COUNT), TARGET_MEAN + TARGET_DEVIATION * torch.randn(BATCH, COUNT)


def predictions(*, dense: bool, size: int = BATCH) -> Part:
    """Random logits, and labels in which every class occurs."""
    grid = GRID if dense else ()
    target = torch.arange(size) % COUNT
    target = target.view(-1, *[1] * len(grid)).expand(size, *grid).contiguous()
    return torch.randn(size, COUNT, *grid), target


def counted(task: Task, parts: Sequence[Part]) -> Metrics:
    """Counters after some batches."""
    metrics = task.metrics()
    for logits, target in parts:
        metrics.update(logits, target)
    return metrics


def parts_of(whole: Part) -> list[Part]:
    """A batch in three of different size."""
    logits, target = whole
    return [(logits[a:b], target[a:b]) for a, b in ((0, 5), (5, 6), (6, BATCH))]


def require_equal_scores(ours: Scores, theirs: Scores, what: str) -> None:
    """Fail unless both have the same scores, up to rounding."""
    require(ours.keys() == theirs.keys(), f"{what}: {sorted(ours)} and {sorted(theirs)}")
    for name, value in ours.items():
        other = theirs[name]
        same = value == other if value is None or other is None else abs(value - other) <= 1e-6
        require(same, f"{what}: {name} is {value} and {other}")


@check("task")
def losses_are_finite_with_gradients(component: Component) -> None:
    """The loss is a scalar with a gradient, finite and not zero; each sample has one of its own."""
    task = make(component)
    logits, target = examples(task)
    logits.requires_grad_()
    loss = task.loss(logits, target)
    require(loss.shape == (), f"the loss has shape {tuple(loss.shape)}, not a scalar")
    require_finite(loss, "the loss")
    (gradient,) = torch.autograd.grad(loss, logits)
    require_finite(gradient, "the gradient of the loss")
    require(gradient.any(), "the loss has no gradient")
    own = task.sample_losses(logits, target)
    require(own.shape == (BATCH,), f"sample_losses have shape {tuple(own.shape)}, not ({BATCH},)")
    require_finite(own, "sample_losses")
    few = task.sample_losses(logits[3:5], target[3:5])
    require_close(few, own[3:5], "sample_losses of two samples and of the batch")


@check("task")
def masked_loss_sees_kept_samples_alone(component: Component) -> None:
    """Samples that are not kept give no gradient; where none is kept the loss and its gradient are 0."""
    task = make(component)
    logits, target = examples(task)
    logits.requires_grad_()
    for keep in (torch.arange(BATCH) < 4, torch.zeros(BATCH, dtype=torch.bool)):
        loss = task.masked_loss(logits, target, keep)
        require(loss.shape == (), f"masked_loss has shape {tuple(loss.shape)}, not a scalar")
        (gradient,) = torch.autograd.grad(loss, logits)
        require_finite(gradient, "the gradient of masked_loss")
        require(not gradient[~keep].any(), "samples that are not kept get a gradient from masked_loss")
        if keep.any():
            require(gradient[keep].flatten(1).any(dim=1).all(), "a kept sample gets no gradient from masked_loss")
        else:
            require(loss.item() == 0, f"masked_loss is {loss.item()} where no sample is kept")


@check("task")
def rows_belong_to_their_samples(component: Component) -> None:
    """Each row holds logits and label of the sample that it names."""
    task = make(component)
    logits, target = examples(task)
    number = torch.arange(BATCH).float().view(-1, *[1] * (logits.dim() - 1))
    rows = task.rows(number.expand_as(logits).contiguous(), target)
    count = len(rows.sample)
    shape = (count, *target.shape[1:]) if task.continuous else (count,)
    expected = target[rows.sample] if task.continuous else rows.sample % COUNT
    require(rows.logits.shape == (count, COUNT), f"row logits have shape {tuple(rows.logits.shape)}")
    require(rows.target.shape == shape, f"row targets have shape {tuple(rows.target.shape)}")
    require(count >= BATCH if task.dense else count == BATCH, f"{count} rows of {BATCH} samples")
    require(torch.equal(rows.logits[:, 0].long(), rows.sample), "row logits are not those of the sample they name")
    require(torch.equal(rows.target, expected), "row targets are not those of the sample they name")


@check("task")
def void_pixels_count_nowhere(component: Component) -> None:
    """What is predicted where a label map is void changes neither losses nor scores; rows leave such pixels out."""
    task = make(component)
    if not task.dense:
        return
    logits, target = predictions(dense=True)
    target[:, 0] = VOID
    others = logits.clone()
    others[:, :, 0] = logits[:, :, 0].flip(1) + 3
    require_close(task.loss(others, target), task.loss(logits, target), "the loss with other predictions for void")
    own = task.sample_losses(logits, target)
    require_close(task.sample_losses(others, target), own, "sample_losses with other predictions for void")
    ours, theirs = (counted(task, [(given, target)]).compute() for given in (others, logits))
    require_equal_scores(ours, theirs, "scores with other predictions for void")
    count = len(task.rows(logits, target).sample)
    require(count == int((target != VOID).sum()), f"{count} rows of {int((target != VOID).sum())} valid pixels")
    void = torch.full_like(target, VOID)
    require(task.loss(logits, void).item() == 0, f"the loss of void alone is {task.loss(logits, void).item()}, not 0")


@check("task")
def scores_do_not_depend_on_batches(component: Component) -> None:
    """The same scores in one batch, in several, in another order, and counted by several processes."""
    task = make(component)
    whole = examples(task)
    parts = parts_of(whole)
    expected = counted(task, [whole]).compute()
    require_equal_scores(counted(task, parts).compute(), expected, "scores of three batches and of one")
    require_equal_scores(counted(task, parts[::-1]).compute(), expected, "scores of batches in another order")
    merged = counted(task, parts[:1])
    merged.merge(counted(task, parts[1:]))
    merged.merge(task.metrics())
    require_equal_scores(merged.compute(), expected, "scores merged from three processes, one of them idle")
    require(merged.count == BATCH, f"count is {merged.count} after {BATCH} samples")
    with torch.inference_mode():
        metrics = counted(task, parts)
    require_equal_scores(metrics.compute(), expected, "scores counted under inference_mode")


@check("task")
def scores_have_directions(component: Component) -> None:
    """Every score says whether more or less is better; the one that stands for a model is among them."""
    task = make(component)
    scores = counted(task, [examples(task)]).compute()
    undirected = sorted(set(scores) ^ set(task.directions))
    require(not undirected, f"scores and directions differ in {', '.join(undirected)}")
    require(set(task.directions.values()) <= {"max", "min"}, f"directions are max or min: {task.directions}")
    require(task.score in scores, f"score '{task.score}' is none of {', '.join(scores)}")
    require(scores[task.score] is not None, f"score '{task.score}' is None on {BATCH} varied samples")
    require(bool(task.default_head), "default_head must name a head")
    require(task.num_outputs == COUNT, f"{task.num_outputs} outputs for {COUNT} classes")
    chances = task.chances(task.directions)
    require(chances.keys() == task.directions.keys(), f"chances of {sorted(chances)}, scores {sorted(task.directions)}")


@check("task")
def degenerate_predictions_are_found(component: Component) -> None:
    """A constant prediction and non-finite logits are flagged, an ordinary prediction is not."""
    task = make(component)
    logits, target = examples(task)
    right = logits if task.continuous else torch.nn.functional.one_hot(target, COUNT).movedim(-1, 1).float()
    constant, broken = torch.zeros_like(logits), logits.clone()
    constant[:, 1] = 1.0
    broken[0] = torch.nan
    for what, given, expected in (
        ("a varied prediction" if task.continuous else "a right prediction", right, False),
        ("one class for everything", constant, True),
        ("NaN logits of one sample", broken, True),
    ):
        metrics = counted(task, [(given, target)])
        require(metrics.degenerate == expected, f"{what}: degenerate is {metrics.degenerate}")
        metrics.compute()
        if not task.continuous:
            shape, found = (COUNT, COUNT + 1), tuple(metrics.confusion.shape)
            require(found == shape, f"confusion is {found}, not {shape}")


@check("task")
def saved_weights_bring_the_scores_back(component: Component) -> None:
    """A task that never saw the training targets, as in evaluation, scores alike once it has the saved weights."""
    task, loaded = make(component), build(component, classes=CLASSES)
    loaded.load_state_dict(through_checkpoint(task.state_dict()))
    whole = examples(task)
    require_equal_scores(
        counted(loaded, [whole]).compute(), counted(task, [whole]).compute(), "scores after a checkpoint"
    )
    require(loaded.chances(loaded.directions) == task.chances(task.directions), "chances after a checkpoint differ")


@check("task")
def records_give_the_same_scores(component: Component) -> None:
    """Counting records of samples equals counting the samples, in parts, in another order and in a selection."""
    task = make(component)
    whole = examples(task)
    records = [task.record(*part) for part in parts_of(whole)]
    kept = {name: torch.cat([record[name] for record in records]) for name in records[0]}
    require(all(len(values) == BATCH for values in kept.values()), "a record does not have one row per sample")
    require_equal_scores(task.count(kept, whole[1]).compute(), counted(task, [whole]).compute(), "scores of records")
    few = torch.randperm(BATCH)[: BATCH // 2]
    chosen = task.count({name: values[few] for name, values in kept.items()}, whole[1][few])
    own = counted(task, [(whole[0][few], whole[1][few])])
    require_equal_scores(chosen.compute(), own.compute(), "scores of some records")
    require(chosen.count == len(few), f"{chosen.count} samples counted of {len(few)}")


@check("metric")
def score_does_not_depend_on_batches(component: Component) -> None:
    """The same score in one batch, in several, in another order, and counted by several processes."""
    dense_only = component.suits == {"dense"} or "task:segmentation" in component.requires
    continuous = "task:regression" in component.requires
    whole = quantities() if continuous else predictions(dense=dense_only)
    parts = parts_of(whole)

    def make_metric() -> Metric:
        metric: Metric = build(component, classes=CLASSES)
        return metric

    require(make_metric().direction in ("max", "min"), "direction must be max or min")
    expected = _score(make_metric(), [whole])
    for what, metric in (
        ("several batches", _updated(make_metric(), parts)),
        ("another order", _updated(make_metric(), parts[::-1])),
    ):
        require_equal_scores({"score": metric.compute()}, {"score": expected}, f"one batch and {what}")
    merged = _updated(make_metric(), parts[:1])
    merged.merge(_updated(make_metric(), parts[1:]))
    merged.merge(make_metric())
    require_equal_scores({"score": merged.compute()}, {"score": expected}, "one process and three, one of them idle")


def _updated(metric: Metric, parts: Sequence[Part]) -> Metric:
    for logits, target in parts:
        metric.update(logits, target)
    return metric


def _score(metric: Metric, parts: Sequence[Part]) -> float | None:
    score = _updated(metric, parts).compute()
    require(score is None or isinstance(score, float), f"compute gives {type(score).__name__}, not float or None")
    return score
