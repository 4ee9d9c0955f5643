"""The recorded predictions of a run: those that are there are used, those that lack are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustmm import distributed
from robustmm.engine.record import Recorder, Views, record
from robustmm.engine.recording import Recording, load_recording
from robustmm.models.modes import evaluating
from robustmm.protocols.altered import digest_of
from robustmm.protocols.protocol import Protocol, Subject
from robustmm.registry import Track
from robustmm.types import Batch

PREDICTIONS = Path("eval") / "predictions.npz"
#: Finished parts of a pass that has not come to its end.
UNFINISHED = Path("eval") / ".recording"


def recorded(subject: Subject, wanted: Sequence[Views], track: Track) -> Recording:
    """Everything that several protocols want, each view once.

    Args:
        subject: The run.
        wanted: Of the protocols.
        track: Shows how far it is.

    Returns:
        The same on every process.
    """
    views, path, facts = _united(wanted), subject.folder.path / PREDICTIONS, origin(subject)
    known = load_recording(path) if path.is_file() else None
    if known is None or not known.same_origin(facts):
        known = None
    lacking = _lacking(known, views, subject)
    if known is not None and not lacking.names(subject.modalities):
        return known
    extra = {view: subject.assembly.make_metrics() for view in _with_logits(lacking, subject)}
    recorder = Recorder(subject.method, subject.device, lacking, subject.autocast, extra)
    loader = subject.assembly.loader("test")
    new = record(recorder, loader, subject.folder.path / UNFINISHED, facts, track=track)
    made = new if known is None else known.with_views(new)
    if distributed.rank() == 0:
        made.save(path)
    distributed.barrier()
    return made


def rehearse(protocols: Sequence[Protocol], batch: Batch | None = None) -> None:
    """Find out before training what would stop the protocols after it.

    Args:
        protocols: Of one run.
        batch: Where given, its views are recorded too, and thrown away.

    Raises:
        ConfigError: one does not fit the run.
    """
    views = _united([protocol.views() for protocol in protocols])
    if batch is None:
        return
    subject = protocols[0].subject
    with evaluating(subject.method):
        Recorder(subject.method, subject.device, views, subject.autocast)(batch)


def origin(subject: Subject) -> dict[str, Any]:
    """What predictions depend on: weights, numbers and data, as JSON values."""
    config = subject.assembly.config
    data = config.data.model_dump(mode="json", exclude={"batch_size", "workers", "pin_memory", "validation"})
    return {
        "weights": subject.weights,
        "part": "test",
        "device": subject.device.type,
        "precision": config.train.precision,
        "data": data,
        "samples": len(subject.assembly.parts.test),
        "content": subject.content,
    }


def fingerprint(subject: Subject) -> str:
    """A short name of `origin`, which results of the same weights and data share."""
    return digest_of(origin(subject))


def _united(wanted: Sequence[Views]) -> Views:
    combinations = dict.fromkeys(combo for views in wanted for combo in views.combinations)
    alterations = {name: one for views in wanted for name, one in views.alterations.items()}
    return Views(tuple(combinations), alterations, any(views.unimodal for views in wanted))


def _with_logits(views: Views, subject: Subject) -> list[str]:
    """Views of which plugin metrics must see the logits."""
    shown = Views(views.combinations, {}, views.unimodal)
    return shown.names(subject.modalities) if subject.streams_extra else []


def _lacking(known: Recording | None, views: Views, subject: Subject) -> Views:
    """What is not recorded yet."""
    if known is None:
        return views
    absent = {*known.lacks(views.names(subject.modalities)), *_with_logits(views, subject)}
    chosen = [combo for combo in views.combinations if Views([combo]).names(())[0] in absent]
    altered = {name: one for name, one in views.alterations.items() if name in absent}
    own = views.unimodal and any(name in absent for name in Views(unimodal=True).names(subject.modalities))
    return Views(chosen, altered, own)
