"""Every combination of modalities, and each modality's own prediction."""

from __future__ import annotations

from typing import Any

from robustmm.engine.evaluate import Evaluation, Tally
from robustmm.engine.record import Views
from robustmm.engine.recording import NO_SOURCE, Recording, combination_view, unimodal_view
from robustmm.engine.scores import Summary, summarise
from robustmm.masks import combination_name, presence_of
from robustmm.protocols.protocol import Protocol
from robustmm.report.results import protocol_record
from robustmm.types import Combination

#: With more classes than this confusion matrices are left out of results.
CONFUSION_CLASSES = 128


class Combinations(Protocol):
    """Scores of every combination."""

    name = "combinations"

    def views(self) -> Views:
        """See `Protocol.views`."""
        assembly = self.subject.assembly
        return Views(assembly.combinations, unimodal=assembly.config.evaluation.unimodal)

    def result(self, recording: Recording) -> dict[str, Any]:
        """See `Protocol.result`."""
        task, directions = self.subject.method.task, self.subject.assembly.directions()
        evaluation = self.evaluation(recording)
        summary = summarise(evaluation, task, directions)
        return protocol_record(summary, evaluation.unimodal_source, self._confusions(evaluation, summary))

    def evaluation(self, recording: Recording) -> Evaluation:
        """The counts of every combination."""
        subject = self.subject
        shown = {combo: self.tally(recording, combo) for combo in subject.assembly.combinations}
        known = {name: unimodal_view(name) in recording.views for name in subject.modalities}
        wanted = subject.assembly.config.evaluation.unimodal
        own = {name: self._own(recording, name) for name in subject.modalities if known[name] and wanted}
        source = recording.unimodal_source if own and recording.unimodal_source != NO_SOURCE else None
        return Evaluation(shown, own, source, subject.modalities)

    def tally(self, recording: Recording, combination: Combination) -> Tally:
        """The counts of one combination, over the samples that have any of it."""
        shown, wanted = recording.shown(combination), presence_of(combination, recording.modalities)
        keep = shown.any(dim=1)
        records = recording.combination(combination)
        extra = recording.extra.get(combination_view(combination))
        tally = self.subject.tally(records, recording.target, keep, extra)
        tally.incomplete = int((keep & (shown != wanted).any(dim=1)).sum())
        return tally

    def _own(self, recording: Recording, name: str) -> Tally:
        view = unimodal_view(name)
        keep = recording.observed[:, recording.modalities.index(name)]
        return self.subject.tally(recording.views[view], recording.target, keep, recording.extra.get(view))

    def _confusions(self, evaluation: Evaluation, summary: Summary) -> dict[str, Any]:
        """Counts of the complete and of the worst combination, for the eye."""
        task = self.subject.method.task
        if task.continuous or task.num_outputs > CONFUSION_CLASSES:
            return {}
        better = max if task.directions[task.score] == "max" else min
        values = {row["combination"]: row["metrics"][task.score] for row in summary.rows}
        known = {name: value for name, value in values.items() if value is not None}
        worst = [name for name in known if known[name] == (min if better is max else max)(known.values())][:1]
        named = {combination_name(combo): tally for combo, tally in evaluation.combinations.items()}
        chosen = dict.fromkeys([combination_name(evaluation.modalities), *worst])
        found = {name: named[name].metrics.confusion.tolist() for name in chosen if name in named}
        return {"confusions": found} if found else {}
