"""What each modality brings, over pairs of combinations that differ in it alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from robustmm.report.figure import Figure
from robustmm.report.pair_rows import PairRow, PairWords, pair_figure
from robustmm.report.run_files import RunFiles
from robustmm.report.sections.section import Section
from robustmm.report.summaries import Worth, worth_of_modalities

UNIMODAL_SOURCES = {
    "split": "The own prediction is the modality's exact share of the fused logits while all the others are present: "
    "the fused logits are the sum of these shares.",
    "masked": "The own prediction is the fused model's with every other modality hidden after encoding, since its "
    "logits cannot be split into shares.",
}
#: What follows the words on shares where quantities are predicted.
SHARE_OF_QUANTITY = " A share of a quantity is a part of it, so its errors say less than its correlation."


def worth_sections(run: RunFiles) -> Iterator[Section]:
    """One where there are several modalities."""
    worths = worth_of_modalities(run.record, run.score)
    if len(worths) > 1:
        content = {
            "worths": worths,
            "figure": worth_figure(worths, run.score),
            "own_source": _own_source(run.record),
        }
        yield Section("worth", "What each modality is worth", "Modalities", "sections/worth", content)


def _own_source(record: Mapping[str, Any]) -> str:
    """What a modality's own prediction is, in words; empty where there is none."""
    source = record["unimodal"]["source"] or ""
    more = SHARE_OF_QUANTITY if source == "split" and "targets" in record else ""
    return UNIMODAL_SOURCES.get(source, "") + more


def worth_figure(worths: Sequence[Worth], metric: str) -> Figure:
    """Per modality, the mean score without it and of the same combinations with it, joined by a line."""
    words = PairWords(
        title=f"Mean {metric} without and with each modality",
        text=f"Mean {metric} of the combinations without each modality, and after it has joined them",
        x_label=f"mean {metric}",
        first="without",
        second="with",
    )
    return pair_figure([PairRow(worth.modality, worth.absent, worth.present) for worth in worths], words)
