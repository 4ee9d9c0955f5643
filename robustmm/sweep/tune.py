"""Search for settings by the score on validation, with Optuna, which is imported when it is asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustmm.errors import CheckpointError, ConfigError, RobustmmError
from robustmm.report.results import COMBINATIONS, read_results
from robustmm.sweep.values import split_values

STUDY = "study.db"
#: Of the sampler; the same study proposes the same first trials.
SAMPLER_SEED = 0


@dataclass(frozen=True)
class Space:
    """What a key may be.

    Args:
        key: Dotted.
        low: Smallest number; None where values are listed.
        high: Largest number.
        whole: Whole numbers only.
        log: Drawn evenly by the logarithm.
        values: Listed values, as YAML; empty where there is a range.
    """

    key: str
    low: float | None = None
    high: float | None = None
    whole: bool = False
    log: bool = False
    values: tuple[str, ...] = ()

    def ends(self) -> tuple[str, ...]:
        """Both ends of the range, or every listed value, as YAML."""
        return self.values or (str(self.low), str(self.high))

    def suggest(self, trial: Any) -> str:
        """The value of a trial, as YAML."""
        if self.values:
            return str(trial.suggest_categorical(self.key, list(self.values)))
        draw = trial.suggest_int if self.whole else trial.suggest_float
        return str(draw(self.key, self.low, self.high, log=self.log))


def parse_space(text: str) -> Space:
    """``KEY=1e-4:1e-1:log``, ``KEY=1:8`` or ``KEY=a,b,c``.

    Raises:
        ConfigError: it is none of these, or the range is empty.
    """
    key, equals, rest = text.partition("=")
    usage = f"--tune {text}: expected KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A,B,..., such as optimizer.lr=1e-4:1e-1:log"
    if not equals or not key.strip() or not rest.strip():
        raise ConfigError([usage])
    if ":" not in rest:
        values = tuple(split_values(rest))
        if len(values) < 2:
            raise ConfigError([usage])
        return Space(key.strip(), values=values)
    parts = rest.split(":")
    numbers = [_number(part) for part in parts[:2]]
    if None in numbers or parts[2:] not in ([], ["log"]):
        raise ConfigError([usage])
    low, high = numbers
    assert low is not None  # just seen to
    assert high is not None
    if low >= high or (parts[2:] and low <= 0):
        raise ConfigError([f"--tune {text}: the range must rise{', from above 0' if parts[2:] else ''}"])
    whole = all(isinstance(end, int) for end in numbers)
    return Space(key.strip(), low, high, whole, bool(parts[2:]))


def _number(text: str) -> float | int | None:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Found:
    """A score on validation.

    Args:
        value: As measured.
        better: ``max`` or ``min``.
    """

    value: float
    better: str

    @property
    def objective(self) -> float:
        """More is better."""
        return self.value if self.better == "max" else -self.value


def validation_score(folder: Path) -> Found:
    """The score that selected a run's weights on validation; the test part's, in the same file, are not looked at.

    Raises:
        CheckpointError: the run's weights were not selected on validation, or there are no results.
    """
    record = read_results(folder / "results.json")["protocols"][COMBINATIONS]
    selection = record["selection"]
    if selection["part"] != "validation":
        raise CheckpointError(f"{folder}: weights were selected on '{selection['part']}', which cannot be tuned on")
    return Found(float(selection["value"]), str(record["directions"][selection["metric"].rpartition("/")[2]]))


def mean_score(folders: Sequence[Path]) -> Found:
    """Over the seeds of a trial."""
    scores = [validation_score(folder) for folder in folders]
    return Found(sum(score.value for score in scores) / len(scores), scores[0].better)


#: Trains the runs of trials, {number: overrides}; returns each trial's score over its seeds, None where a run failed.
Train = Callable[[Mapping[int, Sequence[str]]], Mapping[int, Found | None]]


@dataclass(frozen=True)
class Best:
    """The best trial.

    Args:
        number: From 0.
        score: On validation, over its seeds.
        overrides: What it changed.
    """

    number: int
    score: float
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Search:
    """A study in a sweep's folder.

    Args:
        folder: Holds ``study.db``; the same search goes on there.
        spaces: By key.
        facts: What trials have in common; another search in the folder is refused.
    """

    folder: Path
    spaces: Sequence[Space]
    facts: Mapping[str, Any]

    def run(self, trials: int, at_once: int, train: Train) -> Best:
        """Bring the number of ended trials to ``trials``.

        Args:
            trials: Those of earlier calls included.
            at_once: Trials that are proposed together and trained at the same time.
            train: See `Train`.

        Raises:
            RobustmmError: Optuna is missing, the folder holds another search, or no trial finished.
        """
        optuna = _import_optuna()
        study, states = self._study(optuna), optuna.trial.TrialState
        begun = {
            left.number: left.user_attrs.get("overrides", ()) for left in study.get_trials(states=[states.RUNNING])
        }
        if begun:  # an earlier call was stopped: its runs go on
            self._train(study, begun, train, states)
        while (count := trials - len(study.get_trials(states=[states.COMPLETE, states.FAIL]))) > 0:
            asked = [study.ask() for _ in range(min(at_once, count))]
            self._train(study, {trial.number: self._propose(trial) for trial in asked}, train, states)
        if not study.get_trials(states=[states.COMPLETE]):
            raise RobustmmError(f"no trial in {self.folder} finished; the logs beside the runs' folders say why")
        best = study.best_trial
        score = best.value if study.user_attrs["better"] == "max" else -best.value
        return Best(best.number, float(score), tuple(best.user_attrs["overrides"]))

    def _study(self, optuna: Any) -> Any:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{(self.folder / STUDY).absolute()}"
        study = optuna.create_study(study_name="tune", storage=storage, direction="maximize", load_if_exists=True)
        # A resumed search would propose its first trials again with the same seed.
        study.sampler = optuna.samplers.TPESampler(seed=SAMPLER_SEED + len(study.trials))
        self._settle(study)
        return study

    def _settle(self, study: Any) -> None:
        """Remember what the search is about, or make sure that it is the same."""
        facts = json.loads(json.dumps(dict(self.facts)))
        before = study.user_attrs.get("facts")
        if before is None:
            study.set_user_attr("facts", facts)
        elif before != facts:
            changed = [key for key in facts if before.get(key) != facts[key]]
            raise CheckpointError(
                f"{self.folder} holds another search ({', '.join(changed)} differ); take a new --folder"
            )

    def _propose(self, trial: Any) -> list[str]:
        """The overrides of a trial, kept with it, so that a later call can go on with its runs."""
        overrides = [f"{space.key}={space.suggest(trial)}" for space in self.spaces]
        trial.set_user_attr("overrides", overrides)
        return overrides

    def _train(self, study: Any, trials: Mapping[int, Sequence[str]], train: Train, states: Any) -> None:
        """Train trials and tell the study; one that was stopped before its settings were kept counts as failed."""
        scores = train({number: overrides for number, overrides in trials.items() if overrides})
        for number in trials:
            found = scores.get(number)
            if found is None:
                study.tell(number, state=states.FAIL)
            else:
                study.set_user_attr("better", found.better)
                study.tell(number, found.objective)


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise RobustmmError("--tune needs the package optuna; install it with: pip install 'robustmm[tune]'") from error
    return optuna
