"""What the run was made of: data, configuration, environment, masks."""

from __future__ import annotations

from collections.abc import Iterator

from robustmm.report.rendering import flat
from robustmm.report.run_files import RunFiles
from robustmm.report.sections.section import Section


def setup_sections(run: RunFiles) -> Iterator[Section]:
    """Always one."""
    masks = run.protocols.get("missing-rate", {}).get("masks")
    content = {
        "config": run.config,
        "environment": flat(run.environment or {}),
        "masks": flat(masks) if masks else [],
    }
    yield Section("setup", "Data, configuration, environment", "Setup", "sections/setup", content)
