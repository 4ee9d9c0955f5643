"""Members of a sweep and the plan in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import write_config

from robustmm.config.load import load_config
from robustmm.errors import CheckpointError, ConfigError
from robustmm.plugin_manager import load_plugins
from robustmm.registry import Registry
from robustmm.sweep.plan import Plan, make_plan, read_plan, settle_plan
from robustmm.sweep.tasks import Needs


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_plugins(env={}, entry_points=()).registry


@pytest.fixture
def config(tmp_path: Path) -> str:
    return write_config(tmp_path)


def names(plan: Plan) -> list[str]:
    return [member.name for member in plan.members]


def test_make_plan__is_the_product_seed_by_seed(tmp_path: Path, config: str, registry: Registry) -> None:
    other = write_config(tmp_path, "other")
    overrides = ["method.name=plain,modality_dropout", "train.epochs=1"]
    plan = make_plan([config, other], overrides, (0, 5), ["data.dataset.seed+1"], registry)
    assert names(plan)[:4] == [
        "tiny-method=plain/s0",
        "tiny-method=modality_dropout/s0",
        "other-method=plain/s0",
        "other-method=modality_dropout/s0",
    ]
    assert len(plan.members) == 8
    last = plan.members[-1]
    assert (last.group, last.seed) == ("other-method=modality_dropout", 5)
    assert last.overrides == (
        "train.epochs=1",
        "method.name=modality_dropout",
        "seed=5",
        "data.dataset.seed=6",
    )
    assert load_config([last.config], last.overrides, registry).config.data.dataset.options.model_dump()["seed"] == 6
    assert (plan.varied, plan.needs) == (("data.dataset.seed",), Needs(1, True, True))
    assert {name: len(own) for name, own in plan.groups().items()} == dict.fromkeys(plan.groups(), 2)


def test_make_plan__folders_are_safe_and_distinct(config: str, registry: Registry) -> None:
    overrides = ["model.encoders.default.hidden=[8, 4],[8],[4]", "data.dataset.noise=0.1,0.2"]
    plan = make_plan([config], overrides, (0,), [], registry)
    assert len(set(names(plan))) == 6
    assert names(plan)[2].startswith("tiny-hidden=8~")
    assert names(plan)[2].endswith("-noise=0.1/s0")
    assert not any(letter in name for name in names(plan) for letter in "[] ,")


def test_make_plan__every_error_of_every_member_at_once(config: str, registry: Registry) -> None:
    overrides = ["method.name=plian,plain", "train.epochs=0,1"]
    with pytest.raises(ConfigError) as caught:
        make_plan([config], overrides, (0, 1), [], registry)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("-o method.name=plian  method.name: unknown method 'plian' - did you mean 'plain'?")
    assert lines[1].startswith("-o train.epochs=0  train.epochs: ")


def test_make_plan__clashes(tmp_path: Path, config: str, registry: Registry) -> None:
    (tmp_path / "again").mkdir()
    again = write_config(tmp_path / "again")
    with pytest.raises(ConfigError) as caught:
        make_plan([config, again], ["data.dataset.seed=1"], (0,), ["data.dataset.seed", "data.dataset.seed"], registry)
    assert str(caught.value).splitlines() == [
        f"-c {again}: another configuration is called 'tiny' too; rename one, since folders are named after them",
        "--vary data.dataset.seed: given twice",
        "-o data.dataset.seed: --vary sets this key too; give one of them",
    ]


def test_settle_plan__is_written_once_and_read_back(tmp_path: Path, config: str, registry: Registry) -> None:
    plan = make_plan([config], [], (0, 1), ["data.dataset.seed"], registry)
    folder = tmp_path / "sweep"
    assert settle_plan(folder, plan, extend=False) == plan
    assert settle_plan(folder, plan, extend=False) == plan
    assert read_plan(folder / "sweep.json") == plan
    assert json.loads((folder / "sweep.json").read_text())["varied"] == ["data.dataset.seed"]


def test_settle_plan__other_members_need_extend(tmp_path: Path, config: str, registry: Registry) -> None:
    folder = tmp_path / "sweep"
    settle_plan(folder, make_plan([config], [], (0, 1), [], registry), extend=False)
    more = make_plan([config], [], (1, 2), [], registry)
    with pytest.raises(CheckpointError) as caught:
        settle_plan(folder, more, extend=False)
    assert str(caught.value) == (
        f"{folder} has another plan: tiny/s2 are new and tiny/s0 are no longer asked for; add --extend to add to it, "
        f"or take a new --folder"
    )
    assert names(settle_plan(folder, more, extend=True)) == ["tiny/s0", "tiny/s1", "tiny/s2"]


def test_settle_plan__configurations_with_other_splits_share_a_folder(
    tmp_path: Path, config: str, registry: Registry
) -> None:
    folder, other = tmp_path / "sweep", write_config(tmp_path, "other")
    settle_plan(folder, make_plan([config], [], (0,), ["data.dataset.seed"], registry), extend=False)
    both = settle_plan(folder, make_plan([other], [], (0,), ["data.dataset.samples=16"], registry), extend=True)
    assert names(both) == ["tiny/s0", "other/s0"]
    assert both.varied == ("data.dataset.seed", "data.dataset.samples")


def test_settle_plan__a_changed_configuration_is_refused_even_so(
    tmp_path: Path, config: str, registry: Registry
) -> None:
    folder = tmp_path / "sweep"
    settle_plan(folder, make_plan([config], [], (0,), [], registry), extend=False)
    write_config(tmp_path, train={"epochs": 3})
    with pytest.raises(CheckpointError, match="began with another configuration of tiny/s0"):
        settle_plan(folder, make_plan([config], [], (0,), [], registry), extend=True)


def test_settle_plan__foreign_folders_and_damaged_plans(tmp_path: Path, config: str, registry: Registry) -> None:
    plan = make_plan([config], [], (0,), [], registry)
    with pytest.raises(CheckpointError, match=r"is not empty and has no sweep\.json; name another --folder"):
        settle_plan(tmp_path, plan, extend=False)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"sweep\.json is damaged"):
        settle_plan(tmp_path, plan, extend=False)
