"""Every section of a run's page, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from robustmm.report.run_files import RunFiles
from robustmm.report.sections.adapters import adapter_sections
from robustmm.report.sections.calibration import calibration_sections
from robustmm.report.sections.classes import class_sections
from robustmm.report.sections.combinations import combination_sections, few_combination_sections
from robustmm.report.sections.confusion import confusion_sections
from robustmm.report.sections.corruption import corruption_sections
from robustmm.report.sections.customised import customised_sections
from robustmm.report.sections.expected import expected_sections
from robustmm.report.sections.latency import latency_sections
from robustmm.report.sections.missing_rate import missing_rate_sections
from robustmm.report.sections.noise import noise_sections
from robustmm.report.sections.pictures import picture_sections
from robustmm.report.sections.section import Section
from robustmm.report.sections.setup import setup_sections
from robustmm.report.sections.sizes import size_sections
from robustmm.report.sections.summary import summary_sections
from robustmm.report.sections.training import training_sections
from robustmm.report.sections.worth import worth_sections

#: Each gives a section, several, or none where the run has nothing to show there.
SECTIONS: tuple[Callable[[RunFiles], Iterator[Section]], ...] = (
    summary_sections,
    few_combination_sections,
    size_sections,
    worth_sections,
    combination_sections,
    adapter_sections,
    customised_sections,
    expected_sections,
    missing_rate_sections,
    corruption_sections,
    noise_sections,
    calibration_sections,
    class_sections,
    confusion_sections,
    picture_sections,
    latency_sections,
    training_sections,
    setup_sections,
)
