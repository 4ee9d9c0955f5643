"""Classification scores from a confusion matrix (C, C + 1); see `robustmm.metrics.confusion`."""

from __future__ import annotations

from torch import Tensor

from robustmm.metrics.confusion import hits, mean_or_none, predicted_counts, true_counts


def accuracy(confusion: Tensor) -> float | None:
    """Share of right predictions, 0..1; None without samples. A prediction that is no class is wrong."""
    total = true_counts(confusion).sum().item()
    return hits(confusion).sum().item() / total if total else None


def recall_per_class(confusion: Tensor) -> Tensor:
    """Share of each class's samples that were found, (C,) float64; NaN for a class that the truth lacks."""
    return hits(confusion) / true_counts(confusion)


def precision_per_class(confusion: Tensor) -> Tensor:
    """Share of each class's predictions that were right, (C,) float64; NaN for a class never predicted."""
    return hits(confusion) / predicted_counts(confusion)


def f1_per_class(confusion: Tensor) -> Tensor:
    """Harmonic mean of precision and recall, (C,) float64; NaN for a class neither in the truth nor predicted.

    Equal to the Dice coefficient.
    """
    return 2 * hits(confusion) / (true_counts(confusion) + predicted_counts(confusion))


def macro_accuracy(confusion: Tensor) -> float | None:
    """Mean recall over the classes that the truth has, 0..1; None without samples."""
    return mean_or_none(recall_per_class(confusion))


def macro_f1(confusion: Tensor) -> float | None:
    """Mean F1 over the classes in truth or prediction, 0..1; None without samples.

    A class that is predicted but not in the truth counts as 0, as in scikit-learn.
    """
    return mean_or_none(f1_per_class(confusion))


def is_degenerate(confusion: Tensor) -> bool:
    """Whether at most one class is ever predicted while the truth has more than one.

    Predictions that are no class do not count as a class: a model with nothing but NaN is degenerate too.
    """
    predicted = int((predicted_counts(confusion) > 0).sum())
    true = int((true_counts(confusion) > 0).sum())
    return predicted <= 1 < true
