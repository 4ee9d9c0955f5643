"""Time, work and memory of a prediction from each combination: what is absent need not be computed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from robustmm.engine.record import Views
from robustmm.engine.recording import Recording
from robustmm.masks import combination_name, presence_of
from robustmm.models.modes import evaluating
from robustmm.protocols.memory import peak_memory
from robustmm.protocols.protocol import Protocol
from robustmm.types import Batch, Combination

#: Share of predictions that take no longer than what is reported beside the median.
HIGH_SHARE = 0.95


class Latency(Protocol):
    """Median and 95th percentile of the time, floating-point operations and peak memory of the tensors made.

    Inputs are test samples on the device already; an absent modality is hidden by the presence mask, as in use. The
    device is waited for before and after each prediction.
    """

    name = "latency"

    def views(self) -> Views:
        """See `Protocol.views`: nothing is recorded."""
        return Views()

    def result(self, recording: Recording | None) -> dict[str, Any]:
        """See `Protocol.result`."""
        section, combos = self.subject.assembly.config.evaluation.latency, self.subject.assembly.combinations
        method = self.subject.method
        rows: list[dict[str, Any]] = []
        with evaluating(method), torch.inference_mode(), self.subject.autocast():
            for size in section.batch_sizes:
                batch = self._batch(size)
                for combo in combos:
                    predict = self._prediction(batch, combo)
                    place = {"combination": combination_name(combo), "batch_size": size}
                    metrics = self._measured(predict, section.warmup, section.repeats)
                    rows.append({**place, "repeats": section.repeats, "metrics": metrics})
        parameters = sum(parameter.numel() for parameter in method.parameters())
        directions = dict.fromkeys(rows[0]["metrics"], "min")
        return {
            "rows": rows,
            "measured_on": str(self.subject.device),
            "threads": torch.get_num_threads(),
            "parameters": parameters,
            "directions": directions,
            "score": "median_ms",
        }

    def _batch(self, size: int) -> Batch:
        """The first test samples, over and over where there are fewer."""
        loader, total = self.subject.assembly.loader("test"), len(self.subject.assembly.parts.test)
        positions = torch.arange(min(size, total))
        parts = list(loader.ordered(positions, whole=True))
        inputs = {name: torch.cat([part.inputs[name] for part in parts]) for name in parts[0].inputs}
        rows = torch.arange(size) % len(positions)
        target = torch.cat([part.target for part in parts])[rows]
        ids = tuple(f"{row}" for row in range(size))
        inputs = {name: value[rows].to(self.subject.device) for name, value in inputs.items()}
        observed = torch.ones(size, len(inputs), dtype=torch.bool)
        return Batch(inputs, observed, target, ids, torch.arange(size))

    def _prediction(self, batch: Batch, combination: Combination) -> Callable[[], Tensor]:
        method, presence = self.subject.method, presence_of(combination, self.subject.modalities).expand(len(batch), -1)
        size = method.task.target_size(batch.target)

        def predict() -> Tensor:
            logits: Tensor = method(batch.inputs, presence, size=size).logits
            return logits

        return predict

    def _measured(self, predict: Callable[[], Tensor], warmup: int, repeats: int) -> Mapping[str, float]:
        flops = FlopCounterMode(display=False)
        with flops:
            predict()
        peak = peak_memory(predict)
        for _ in range(warmup):
            predict()
        seconds = sorted(self._timed(predict) for _ in range(repeats))
        high = seconds[min(int(HIGH_SHARE * len(seconds)), len(seconds) - 1)]
        return {
            "median_ms": 1000 * statistics.median(seconds),
            "p95_ms": 1000 * high,
            "flops": float(flops.get_total_flops()),
            "peak_memory_bytes": float(peak),
        }

    def _timed(self, predict: Callable[[], Tensor]) -> float:
        self._wait()
        start = time.perf_counter()
        predict()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.subject.device.type != "cpu":
            torch.accelerator.synchronize(self.subject.device)
