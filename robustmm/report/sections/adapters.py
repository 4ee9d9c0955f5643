"""Every combination with an adapter at test time, beside the scores without one."""

from __future__ import annotations

from collections.abc import Iterator

from robustmm.report.rendering import flat
from robustmm.report.results import adapted_records
from robustmm.report.run_files import RunFiles
from robustmm.report.sections.section import Section
from robustmm.report.summaries import changes


def adapter_sections(run: RunFiles) -> Iterator[Section]:
    """One for each adapter that was measured."""
    for one in adapted_records(run.protocols):
        name = one["adapter"]
        content = {"adapted": one, "changes": changes(one, run.record), "options": flat(one["adapter_options"])}
        title = f"With adapter {name} at test time"
        yield Section(f"adapter-{name}", title, f"Adapter {name}", "sections/adapters", content)
