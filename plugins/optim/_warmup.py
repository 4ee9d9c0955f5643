"""What the schedules of this folder share: epochs, progress and a linear warm-up."""

from __future__ import annotations

from pydantic import Field

from robustmm import Options, Schedule, ScheduleValues


class WarmupOptions(Options):
    """Options of every schedule that can be warmed up.

    Args:
        warmup_epochs: Epochs over which the learning rate rises linearly, step by step, to what the schedule says.
    """

    warmup_epochs: int = Field(
        0, ge=0, description="epochs over which the learning rate rises linearly, step by step, from nearly 0"
    )


class WarmedSchedule(Schedule):
    """A factor per step, multiplied by ``(step + 1) / warm-up steps`` while that is below 1.

    Args:
        epochs: Planned epochs.
        steps_per_epoch: Steps in one epoch.
        warmup_epochs: Length of the warm-up.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, warmup_epochs: int) -> None:
        super().__init__(epochs, steps_per_epoch)
        self.warmup_epochs = warmup_epochs

    def __call__(self, step: int) -> ScheduleValues:
        """See `Schedule.__call__`."""
        warmup_steps = self.warmup_epochs * self.steps_per_epoch
        ramp = (step + 1) / warmup_steps if step < warmup_steps else 1.0
        return ScheduleValues(ramp * self.factor(step))

    def factor(self, step: int) -> float:
        """The schedule proper, without warm-up; as it stands, 1."""
        return 1.0

    def epoch(self, step: int) -> int:
        """Epoch of a step, from 0."""
        return step // self.steps_per_epoch

    def progress(self, step: int, per_epoch: bool) -> float:
        """Share of the training after warm-up that lies behind, in [0, 1]; 0 during warm-up.

        Args:
            step: Finished steps.
            per_epoch: Count whole epochs instead of steps.
        """
        unit = 1 if per_epoch else self.steps_per_epoch
        done = (self.epoch(step) if per_epoch else step) - self.warmup_epochs * unit
        total = (self.epochs - self.warmup_epochs) * unit
        return min(max(done / max(total, 1), 0.0), 1.0)
