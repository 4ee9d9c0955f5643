"""Statistics over seeds: bootstrap interval of a mean, paired tests, Holm's correction. Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import stats

#: Share of the intervals, and what a p value must be below.
CONFIDENCE, LEVEL = 0.95, 0.05
RESAMPLES, BOOTSTRAP_SEED = 9999, 0
#: Up to this many pairs every change of signs is counted; 2**16 of them take a tenth of a second.
MOST_EXACT = 16
#: Sums this close are equal: differences of scores are exact to about 1e-16 only.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Args:
        low: Lower end.
        high: Upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """Two groups over common seeds.

    Args:
        differences: Group minus reference, seed by seed.
        mean: Of the differences.
        interval: Of the mean difference, by Student's t, so that it holds 0 where ``p`` is above 0.05.
        p: Two-sided, of the paired t-test.
        p_sign_flip: Two-sided, of the exact permutation test that changes signs of differences.
    """

    differences: tuple[float, ...]
    mean: float
    interval: Interval
    p: float
    p_sign_flip: float


def mean_of(values: Sequence[float]) -> float:
    """Arithmetic mean, without rounding in the sum."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Standard deviation with n - 1 in the denominator; n is at least 2."""
    return float(np.std(np.asarray(values, dtype=np.float64), ddof=1))


def bootstrap_interval(
    values: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = BOOTSTRAP_SEED,
) -> Interval:
    """Percentile bootstrap interval of the mean.

    Args:
        values: One per seed.
        confidence: Share, in (0, 1).
        resamples: Draws with replacement, each of as many values as there are.
        seed: Of the draws; equal values give equal intervals on every machine.
    """
    sample = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(seed).integers(0, len(sample), (resamples, len(sample)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(sample[chosen].mean(axis=1), [tail, 1 - tail])
    return Interval(float(low), float(high))


def t_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """Interval of the mean by Student's t with n - 1 degrees of freedom."""
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * deviation(values) / math.sqrt(len(values))
    return Interval(mean_of(values) - half, mean_of(values) + half)


def paired_test(values: Sequence[float], reference: Sequence[float]) -> PairedTest:
    """Compare a group with the reference, seed by seed.

    Args:
        values: Of the group, in the order of the seeds; at least 2.
        reference: Of the reference, in the same order.
    """
    differences = tuple(own - other for own, other in zip(values, reference, strict=True))
    return PairedTest(
        differences, mean_of(differences), t_interval(differences), _t_p(differences), sign_flip_p(differences)
    )


def _t_p(differences: Sequence[float]) -> float:
    """Two-sided p of the paired t-test; without any spread it is 1 for no difference, else 0."""
    spread = deviation(differences)
    if spread <= ROUNDING:
        return 1.0 if abs(mean_of(differences)) <= ROUNDING else 0.0
    t = mean_of(differences) / (spread / math.sqrt(len(differences)))
    return float(2 * stats.t.sf(abs(t), len(differences) - 1))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p of the permutation test: the share of sign changes whose mean is as far from 0 as the measured one.

    Exact up to `MOST_EXACT` pairs; above that of `RESAMPLES` seeded draws and the measured one. With n pairs it cannot
    be below 2 / 2**n: 0.25 for three seeds, 0.0625 for five.
    """
    sample = np.asarray(differences, dtype=np.float64)
    count = len(sample)
    if count <= MOST_EXACT:
        signs = np.array(list(product((1.0, -1.0), repeat=count)))
    else:
        draws = np.random.default_rng(BOOTSTRAP_SEED).choice((1.0, -1.0), (RESAMPLES, count))
        signs = np.concatenate([np.ones((1, count)), draws])
    sums = np.abs(signs @ sample)
    return float(np.mean(sums >= abs(sample.sum()) - ROUNDING * max(1.0, float(np.abs(sample).sum()))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p values, in the order given.

    The smallest is multiplied by their number m, the next by m - 1, and so on; none is smaller than one before it, none
    above 1.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
