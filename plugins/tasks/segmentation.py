"""Segmentation, and that of one class against the rest as a special case of its metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field, NonNegativeFloat

from robustmm import VOID, Component, Options, SegmentationTask, hookimpl


class SegmentationOptions(Options):
    """Options of segmentation."""

    ignore_index: int = Field(VOID, description="Label of pixels that count nowhere.")
    class_weights: Literal["median_frequency", "log"] | tuple[NonNegativeFloat, ...] | None = Field(
        None,
        description="median_frequency or log from the training labels, one weight per class, or null: all alike.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target mass spread over all classes.")
    dice_weight: float = Field(0.0, ge=0, description="Of a soft Dice loss beside the cross-entropy.")
    foreground: str | None = Field(
        None, description="One of two classes; adds its IoU and Dice, and selects by that IoU."
    )


@hookimpl
def robustmm_register_tasks(register: Callable[[Component], None]) -> None:
    """Offer segmentation."""
    register(
        Component(
            "segmentation",
            SegmentationTask,
            SegmentationOptions,
            "One label per pixel: mIoU as ESANet has it and over present classes, accuracies, Dice; IoU per class.",
            "loss and mIoU as in TUI-NICR/ESANet; D. Seichter et al., ICRA 2021, arXiv:2011.06961",
            fidelity="part",
            provides=frozenset({"class_probability"}),
        )
    )
