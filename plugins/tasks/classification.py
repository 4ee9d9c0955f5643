"""Classification, and binary spoofing detection as a special case of its metrics."""

from __future__ import annotations

from typing import Any

from pydantic import Field, NonNegativeFloat

from robustmm import ClassificationTask, Component, Options, hookimpl


class ClassificationOptions(Options):
    """Options of classification."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target mass spread over all classes.")
    class_weights: tuple[NonNegativeFloat, ...] | None = Field(
        None, description="One loss weight per class; null weighs all alike."
    )
    live_class: str | None = Field(
        None, description="Genuine class of a binary spoofing task; adds APCER, BPCER and ACER, and selects by ACER."
    )


@hookimpl
def robustmm_register_tasks(register: Any) -> None:
    """Offer classification."""
    register(
        Component(
            "classification",
            ClassificationTask,
            ClassificationOptions,
            "One label per sample: accuracy, macro accuracy and F1, AUROC, calibration error; ACER for spoofing.",
            "standard; ACER as in ISO/IEC 30107-3 with all attacks pooled",
            provides=frozenset({"class_probability"}),
        )
    )
