"""Scores under noise on all modalities."""

from __future__ import annotations

from collections.abc import Iterator

from robustmm.report.curves import Plot, curve_figure
from robustmm.report.run_files import RunFiles
from robustmm.report.sections.points import curve_points, metric_columns, with_counts
from robustmm.report.sections.section import Section


def noise_sections(run: RunFiles) -> Iterator[Section]:
    """One where noise was measured."""
    record = run.protocols.get("noise")
    if record is None:
        return
    points = with_counts(record["curves"], record["rows"], ("noise", "strength"))
    kinds = dict.fromkeys(point["noise"] for point in points)
    curves = {
        kind: curve_points([point for point in points if point["noise"] == kind], "strength", run.score)
        for kind in kinds
    }
    content = {
        "points": points,
        "columns": metric_columns(points, run.metrics),
        "figure": curve_figure(curves, Plot(f"{run.score} under noise", "strength epsilon", run.score)),
    }
    yield Section("noise", "Noise on every modality at once", "Noise", "sections/noise", content)
