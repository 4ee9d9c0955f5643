"""Every protocol by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robustmm.protocols.calibration import Calibration
from robustmm.protocols.combinations import Combinations
from robustmm.protocols.corruption import Corruptions
from robustmm.protocols.expected import Expected
from robustmm.protocols.latency import Latency
from robustmm.protocols.missing_rate import MissingRate
from robustmm.protocols.noise import Noise
from robustmm.protocols.protocol import Protocol, Subject

#: In the order in which they are measured and shown; the names are those of `robustmm.config.evaluation.ProtocolName`.
PROTOCOLS: Mapping[str, type[Protocol]] = {
    one.name: one for one in (Combinations, Expected, MissingRate, Corruptions, Noise, Calibration, Latency)
}


def make_protocols(names: Sequence[str], subject: Subject) -> list[Protocol]:
    """The named protocols of a run, in the order of `PROTOCOLS`."""
    return [make(subject) for name, make in PROTOCOLS.items() if name in names]
