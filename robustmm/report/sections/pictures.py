"""The picture sheet of dense prediction."""

from __future__ import annotations

from collections.abc import Iterator

from robustmm.report.embed import embed_sheet
from robustmm.report.run_files import RunFiles
from robustmm.report.sections.section import Section
from robustmm.report.sheet import SHEET


def picture_sections(run: RunFiles) -> Iterator[Section]:
    """One where a sheet was drawn."""
    sheet = embed_sheet(run.folder / SHEET)
    if sheet is not None:
        yield Section("pictures", "Pictures", "Pictures", "sections/pictures", {"sheet": sheet})
