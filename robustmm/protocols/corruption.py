"""Scores while one modality of every test sample is corrupted, by modality, corruption and severity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from robustmm.config.component import ComponentSection
from robustmm.corruption import Corruption, misfit
from robustmm.data.parts import Part
from robustmm.engine.record import Alteration, Views
from robustmm.engine.recording import Recording, combination_view
from robustmm.errors import ConfigError, did_you_mean
from robustmm.protocols.altered import altered, digest_of
from robustmm.protocols.curves import spread_of
from robustmm.protocols.protocol import Protocol, row_of
from robustmm.registry import Component
from robustmm.seeding import generator_for
from robustmm.types import Batch, Modality

#: Draws until another sample that has the modality is found.
TRIES = 1000


@dataclass(frozen=True)
class Case:
    """A corruption of a modality.

    Args:
        modality: Its name.
        name: Of the corruption.
        make: Builds it.
        digest: Of everything that it depends on.
    """

    modality: str
    name: str
    make: Corruption
    digest: str

    def view(self, severity: int) -> str:
        """Name of the view."""
        return f"corruption/{self.modality}/{self.name}/{severity}@{self.digest}"


class Corruptions(Protocol):
    """Each corruption that fits a modality, at each severity, while every modality is shown."""

    name = "corruption"

    def views(self) -> Views:
        """See `Protocol.views`."""
        found: dict[str, Alteration] = {}
        for case in self.cases:
            for severity in self._section.severities:
                found[case.view(severity)] = partial(self._altered, case, severity)
        return Views([self.subject.modalities], found)

    def result(self, recording: Recording) -> dict[str, Any]:
        """See `Protocol.result`."""
        keep = recording.observed.any(dim=1)
        clean = self.subject.tally(recording.views[combination_view(self.subject.modalities)], recording.target, keep)
        scores = clean.compute()
        rows = []
        for case in self.cases:
            had = recording.observed[:, recording.modalities.index(case.modality)]
            for severity in self._section.severities:
                tally = self.subject.tally(recording.views[case.view(severity)], recording.target, keep)
                place = {"modality": case.modality, "corruption": case.name, "severity": severity}
                rows.append({**row_of(tally, **place), "corrupted": int(had.sum())})
        return {
            "rows": rows,
            "clean": scores,
            "means": _means(rows, scores),
            "severities": list(self._section.severities),
            "corruption_seed": self._section.seed,
            "skipped": self._skipped,
        }

    @property
    def _section(self) -> Any:
        return self.subject.assembly.config.evaluation.corruption

    @cached_property
    def cases(self) -> list[Case]:
        """Every corruption of every modality that it fits.

        Raises:
            ConfigError: nothing is left, a modality is unknown, or a corruption that is asked for fits none.
        """
        chosen = list(self._chosen())
        cases = [
            self._case(component, options, modality)
            for modality in self._modalities
            for component, options in chosen
            if misfit(component, modality) is None
        ]
        useless = [component.name for component, _ in chosen if component.name not in {case.name for case in cases}]
        if not cases or (useless and self._section.corruptions != "all"):
            kinds = ", ".join(f"{modality.name} ({modality.kind})" for modality in self._modalities)
            names = ", ".join(useless) or "none"
            raise ConfigError([f"evaluation.corruption.corruptions: {names} fits none of the modalities {kinds}"])
        return cases

    @property
    def _skipped(self) -> list[dict[str, str]]:
        """What was left out, and why."""
        return [
            {"modality": modality.name, "corruption": component.name, "reason": reason}
            for modality in self._modalities
            for component, _ in self._chosen()
            if (reason := misfit(component, modality)) is not None
        ]

    def _chosen(self) -> Iterator[tuple[Component, Mapping[str, Any]]]:
        registry = self.subject.registry
        sections: tuple[ComponentSection, ...] | str = self._section.corruptions
        if isinstance(sections, str):
            for component in registry.all("corruption"):
                yield component, component.options().model_dump()
            return
        for section in sections:
            yield registry.get("corruption", section.name), section.options.model_dump()

    @cached_property
    def _modalities(self) -> list[Modality]:
        known = {modality.name: modality for modality in self.subject.assembly.parts.modalities}
        names = known if self._section.modalities == "all" else self._section.modalities
        for name in names:
            if name not in known:
                what = f"no modality '{name}'{did_you_mean(name, known)} ({', '.join(known)})"
                raise ConfigError([f"evaluation.corruption.modalities: {what}"])
        return [known[name] for name in names]

    def _case(self, component: Component, options: Mapping[str, Any], modality: Modality) -> Case:
        spread = self.subject.spreads[modality.name]
        made = component.build(modality=modality, spread=spread, **options)
        facts = [component.name, dict(options), self._section.seed, [spread.low, spread.high, spread.mean, spread.std]]
        return Case(modality.name, component.name, made, digest_of(facts))

    def _altered(self, case: Case, severity: int, batch: Batch) -> dict[str, Tensor]:
        had = batch.observed[:, batch.modalities.index(case.modality)].nonzero().flatten().tolist()
        # Read before the samples are changed, perhaps in threads: not every data set can be read in several.
        others = {row: self._other(case.modality, batch, row) for row in had} if case.make.needs_other else {}

        def change(value: Tensor, row: int) -> Tensor:
            generator = generator_for("corruption", self._section.seed, case.name, case.modality, batch.ids[row])
            return case.make(value, severity, generator, others.get(row))

        return altered(batch, {case.modality: change})

    def _other(self, modality: str, batch: Batch, row: int) -> Tensor:
        """The modality of another test sample, of another class where samples have one; the same at every severity."""
        key = (modality, batch.ids[row])
        if key not in self._others:
            self._others[key] = self._find_other(modality, batch.ids[row], batch.target[row])
        return self._others[key]

    @cached_property
    def _others(self) -> dict[tuple[str, str], Tensor]:
        return {}

    def _find_other(self, modality: str, name: str, target: Tensor) -> Tensor:
        part: Part = self.subject.assembly.parts.test
        task = self.subject.method.task
        generator = generator_for("other", self._section.seed, modality, name)
        for _ in range(TRIES):
            position = int(torch.randint(len(part), (), generator=generator))
            sample = part[position, 0][1]
            value = sample["inputs"].get(modality)
            same = sample["id"] == name if task.dense or task.continuous else bool(sample["target"] == target)
            if value is not None and not same:
                return value.float()
        raise ConfigError(
            [f"evaluation.corruption: no other test sample that differs from {name} has {modality}; leave conflict out"]
        )


def _means(rows: list[dict[str, Any]], clean: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Mean over severities, and what is lost against clean values."""
    groups: dict[tuple[str, str], list[Mapping[str, float | None]]] = {}
    for row in rows:
        groups.setdefault((row["modality"], row["corruption"]), []).append(row["metrics"])
    found = []
    for (modality, corruption), metrics in groups.items():
        mean = {name: spread_of([one[name] for one in metrics])["mean"] for name in clean}
        drop = {name: _difference(clean[name], mean[name]) for name in clean}
        found.append({"modality": modality, "corruption": corruption, "metrics": mean, "drop": drop})
    return found


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second
