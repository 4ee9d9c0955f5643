"""The search space, and the study that is kept in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from fake_runs import combinations, config_with, write_run

from robustmm.errors import CheckpointError, ConfigError
from robustmm.sweep.tune import Found, Search, Space, mean_score, parse_space, validation_score


def test_parse_space__ranges_and_lists() -> None:
    assert parse_space("a.b=1e-4:1e-1:log") == Space("a.b", 1e-4, 1e-1, log=True)
    assert parse_space("a.b=1:8") == Space("a.b", 1, 8, whole=True)
    assert parse_space("a.b=0.5:1") == Space("a.b", 0.5, 1)
    assert parse_space("a.b=[1,2],[3]") == Space("a.b", values=("[1,2]", "[3]"))


@pytest.mark.parametrize("text", ["a", "a=", "=1:2", "a=1", "a=1:b", "a=1:2:lin", "a=1:inf", "a=1:2:log:3"])
def test_parse_space__shows_the_usage(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--tune {text}: expected KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A,B"):
        parse_space(text)


@pytest.mark.parametrize("text", ["a=2:1", "a=0:1:log"])
def test_parse_space__the_range_must_rise(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--tune {text}: the range must rise"):
        parse_space(text)


def test_validation_score__is_what_selected_the_weights(tmp_path: Path) -> None:
    record = combinations(config_with(), {"a": 0.9})
    run = write_run(tmp_path / "a", config_with(), {"combinations": record})
    assert validation_score(run) == Found(0.5, "max")
    assert Found(0.5, "min").objective == -0.5
    assert mean_score([run, run]) == Found(0.5, "max")
    record["selection"]["part"] = "test"
    run = write_run(tmp_path / "b", config_with(), {"combinations": record})
    with pytest.raises(CheckpointError, match="weights were selected on 'test', which cannot be tuned on"):
        validation_score(run)


class Trainer:
    """Scores a trial by its only setting; stops at a trial once."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.seen: list[tuple[int, tuple[str, ...]]] = []
        self.stop_at = stop_at

    def __call__(self, trials: Mapping[int, Sequence[str]]) -> dict[int, Found | None]:
        self.seen += [(number, tuple(overrides)) for number, overrides in trials.items()]
        if self.stop_at in trials:
            self.stop_at = None
            raise KeyboardInterrupt
        return {number: Found(abs(float(texts[0].partition("=")[2]) - 3), "min") for number, texts in trials.items()}


def test_search__goes_on_with_the_trial_that_was_stopped(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    search, train = Search(tmp_path, [Space("x", 0.0, 9.0)], {"seeds": (0, 1)}), Trainer(stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        search.run(4, 1, train)
    best = search.run(4, 1, train)
    assert [number for number, _ in train.seen] == [0, 1, 1, 2, 3]
    assert train.seen[1] == train.seen[2]
    assert len({overrides for _, overrides in train.seen}) == 4
    assert best.score == min(abs(float(texts[0].partition("=")[2]) - 3) for _, texts in train.seen)
    assert search.run(4, 1, train) == best
    assert len(train.seen) == 5


def test_search__two_at_once_and_the_same_every_time(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    trainers = [Trainer(), Trainer()]
    for place, train in enumerate(trainers):
        Search(tmp_path / str(place), [Space("x", 1, 9, whole=True)], {}).run(3, 2, train)
    assert trainers[0].seen == trainers[1].seen
    assert all(texts[0].removeprefix("x=").isdigit() for _, texts in trainers[0].seen)
