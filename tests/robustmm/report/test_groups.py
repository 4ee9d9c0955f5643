"""Groups and labels of runs, whatever their configurations are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from robustmm.report.groups import group_runs
from robustmm.report.runs import FinishedRun, replicate_texts

KEYS = ("method.name", "balancer.name", "model.fusion.name", "optimizer.lr")
RECIPES = st.fixed_dictionaries({}, optional={key: st.sampled_from(["a", "b", 1, None]) for key in KEYS})


def made(recipe: dict[str, Any], seed: int, name: str = "demo") -> FinishedRun:
    return FinishedRun(Path(f"{name}{seed}"), name, recipe, {"seed": seed, "data.dataset.split_seed": 0}, {}, {})


@given(st.lists(st.tuples(RECIPES, st.integers(0, 2)), min_size=1, max_size=12))
def test_group_runs__parts_runs_by_recipe_with_labels_of_their_own(drawn: list[tuple[dict[str, Any], int]]) -> None:
    runs = [made(recipe, seed) for recipe, seed in drawn]
    groups = group_runs(runs)
    assert sum(len(group.runs) for group in groups) == len(runs)
    assert len(groups) == len({repr(sorted(run.recipe.items())) for run in runs})
    for group in groups:
        assert all(run.recipe == group.runs[0].recipe for run in group.runs)
        assert [run.replicate["seed"] for run in group.runs] == sorted(run.replicate["seed"] for run in group.runs)
        assert all(group.runs[0].recipe[key] == value for key, value in group.differences.items())
    assert len({group.label for group in groups}) == len(groups)


@given(st.lists(st.tuples(RECIPES, st.integers(0, 2)), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_group_runs__order_of_runs_changes_no_group(drawn: list[tuple[dict[str, Any], int]], random: Any) -> None:
    runs = [made(recipe, seed) for recipe, seed in drawn]
    shuffled = random.sample(runs, len(runs))

    def contents(given: list[FinishedRun]) -> set[tuple[str, tuple[int, ...]]]:
        groups = group_runs(given)
        return {
            (repr(sorted(own.runs[0].recipe.items())), tuple(r.replicate["seed"] for r in own.runs)) for own in groups
        }

    assert contents(runs) == contents(shuffled)


def test_replicate_texts__leave_out_what_never_changes() -> None:
    assert list(replicate_texts([made({}, 0), made({}, 1)]).values()) == ["seed 0", "seed 1"]
    assert list(replicate_texts([made({}, 0)]).values()) == ["seed 0"]
