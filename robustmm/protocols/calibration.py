"""Whether confidence means what it says on each combination, and whether it tells that something is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robustmm.engine.record import Views
from robustmm.engine.recording import Recording, Records
from robustmm.errors import ConfigError
from robustmm.masks import combination_name
from robustmm.metrics.calibration import (
    brier_score,
    calibration_bins,
    equal_mass_bins,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
)
from robustmm.metrics.confusion import predicted_class
from robustmm.metrics.ranking import aurc, auroc
from robustmm.protocols.protocol import Protocol
from robustmm.types import Combination

#: Metric -> which way is better.
DIRECTIONS = {
    "ece": "min",
    "adaptive_ece": "min",
    "mce": "min",
    "brier": "min",
    "nll": "min",
    "aurc": "min",
    "ood_auroc": "max",
}


class Calibration(Protocol):
    """Calibration errors, risk against coverage, and detection of missing modalities, by combination.

    ``ece`` and ``mce`` have 15 bins of equal width, ``adaptive_ece`` bins of equal mass. ``aurc`` ranks by the method's
    uncertainty (`robustmm.Method.uncertainty`). ``ood_auroc`` is the probability that a prediction from the combination
    is less sure than one from complete data: 0.5 where uncertainty does not notice that something is missing. Of maps
    only the bins of pixels are kept, so that ``ece`` and ``mce`` alone are known.
    """

    name = "calibration"

    def views(self) -> Views:
        """See `Protocol.views`."""
        if self.subject.method.task.continuous:
            raise ConfigError(["evaluation.protocols: calibration needs probabilities of classes, the task has none"])
        return Views([*self.subject.assembly.combinations, self.subject.modalities])

    def result(self, recording: Recording) -> dict[str, Any]:
        """See `Protocol.result`."""
        score = _of_maps if self.subject.method.task.dense else self._of_samples
        rows = []
        for combo in self.subject.assembly.combinations:
            keep = recording.shown(combo).any(dim=1)
            metrics, bins = score(recording, combo, keep)
            rows.append(
                {
                    "combination": combination_name(combo),
                    "metrics": metrics,
                    "samples": int(keep.sum()),
                    "excluded": int((~keep).sum()),
                    "bins": _readable(bins),
                }
            )
        return {"rows": rows, "directions": DIRECTIONS, "score": "ece"}

    def _of_samples(
        self, recording: Recording, combination: Combination, keep: Tensor
    ) -> tuple[dict[str, float | None], Tensor]:
        logits, target = recording.combination(combination)["logits"][keep], recording.target[keep]
        probabilities = logits.softmax(dim=1)
        bins = calibration_bins(probabilities, target)
        unsure = self.subject.method.uncertainty(logits)
        right = predicted_class(logits) == target
        return {
            "ece": expected_calibration_error(bins),
            "adaptive_ece": expected_calibration_error(equal_mass_bins(probabilities, target)),
            "mce": maximum_calibration_error(bins),
            "brier": _mean(brier_score(probabilities, target)),
            "nll": _mean(negative_log_likelihood(logits, target)),
            "aurc": None if unsure is None else aurc(-unsure, right),
            "ood_auroc": self._detection(recording, combination, unsure),
        }, bins

    def _detection(self, recording: Recording, combination: Combination, unsure: Tensor | None) -> float | None:
        if unsure is None or combination == self.subject.modalities:
            return None
        whole = recording.observed.all(dim=1)
        known = self.subject.method.uncertainty(recording.combination(self.subject.modalities)["logits"][whole])
        assert known is not None, "the same method has just told its uncertainty"
        positive = torch.cat([torch.ones_like(unsure), torch.zeros_like(known)]).bool()
        return auroc(torch.cat([unsure, known]), positive)


def _of_maps(recording: Recording, combination: Combination, keep: Tensor) -> tuple[Mapping[str, float | None], Tensor]:
    records: Records = recording.combination(combination)
    bins = records["bins"][keep].sum(dim=0)
    found = {"ece": expected_calibration_error(bins), "mce": maximum_calibration_error(bins)}
    return {name: found.get(name) for name in DIRECTIONS}, bins


def _readable(bins: Tensor) -> list[list[float | None]]:
    """Count, mean confidence and accuracy of each bin; None where it is empty."""
    return [
        [count, confidence / count, right / count] if count else [0.0, None, None]
        for count, confidence, right in bins.tolist()
    ]


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
