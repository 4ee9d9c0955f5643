"""Which epoch is kept, and when to stop: by a named score on the validation part."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from robustmm.errors import ConfigError, did_you_mean


@dataclass
class Selection:
    """The best score so far.

    Args:
        metric: Such as ``mean/accuracy``, ``worst/accuracy``, ``complete/f1`` or ``rgb+depth/accuracy``.
        mode: Whether more or less is better.
        patience: Validations without progress before training stops; None never stops.
        min_delta: What counts as progress.
    """

    metric: str
    mode: Literal["max", "min"]
    patience: int | None = None
    min_delta: float = 0.0
    best: float | None = None
    best_epoch: int | None = None
    waited: int = field(default=0)

    def update(self, scores: Mapping[str, float | None], epoch: int) -> bool:
        """Take an epoch's scores; True where it is the best so far.

        A score that is missing or not finite is never the best.

        Raises:
            ConfigError: there is no such score.
        """
        if self.metric not in scores:
            raise ConfigError(
                [
                    f"train.select.metric: no score '{self.metric}'{did_you_mean(self.metric, scores)} "
                    f"(there are {', '.join(sorted(scores))})"
                ]
            )
        score = scores[self.metric]
        if score is None or not math.isfinite(score):
            self.waited += 1
            return False
        if self._gain(score, self.best) > self.min_delta:
            self.best, self.best_epoch, self.waited = score, epoch, 0
            return True
        self.waited += 1
        return False

    def _gain(self, score: float, best: float | None) -> float:
        if best is None:
            return math.inf
        return score - best if self.mode == "max" else best - score

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.best, self.best_epoch, self.waited = state["best"], state["best_epoch"], state["waited"]
