from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run

import pytest

from robustmm.config.load import LoadedConfig, config_from_mapping, load_config
from robustmm.errors import ConfigError
from robustmm.registry import Registry

Load = Callable[..., LoadedConfig]
Lines = Callable[..., list[str]]


def test_load__shows_ten_mistakes_in_ten_lines(lines: Lines) -> None:
    text = """\
seed: -1
data:
  dataset: {name: digits, flod: 2}
  batch_size: many
modle: {}
method: {name: dmrnet, kl_wieght: 1}
balancer: ogm-ge
optimizer:
  name: adam
  lr: fast
train:
  accelerator: gpuu
  deterministic: yes
"""
    assert lines(a=text) == [
        "a.yaml:1:7  seed: expected a whole number at least 0, got -1",
        "a.yaml:3:27  data.dataset.flod: unknown key - did you mean 'fold' (default 0)?",
        "a.yaml:4:15  data.batch_size: expected a whole number at least 1, got 'many'",
        "a.yaml:5:1  modle: unknown key - did you mean 'model'?",
        "a.yaml:6:24  method.kl_wieght: unknown key - did you mean 'kl_weight' (default 0.001)?",
        "a.yaml:7:11  balancer.name: unknown balancer 'ogm-ge' - did you mean 'ogm_ge'? Known: agm, none, ogm_ge, pmr",
        "a.yaml:10:7  optimizer.lr: expected a number greater than 0, got 'fast'",
        "a.yaml:11:1  train.epochs: required key is missing",
        "a.yaml:12:16  train.accelerator: expected auto, cpu, gpu, cuda or mps, got 'gpuu' - did you mean 'gpu'?",
        "a.yaml:13:18  train.deterministic: expected true or false, got 'yes'",
    ]


def test_load__places_missing_sections_at_the_last_file(lines: Lines) -> None:
    assert lines(("a", "b"), a="data: {dataset: digits}\n", b="# later\n\nmethod: plain\n") == [
        "b.yaml:3:1  optimizer: required key is missing",
        "b.yaml:3:1  train: required key is missing",
    ]


def test_load__of_an_empty_file_names_what_is_missing(lines: Lines) -> None:
    missing = [f"a.yaml:1:1  {key}: required key is missing" for key in ("data", "method", "optimizer", "train")]
    assert lines(a="") == missing


def test_load__fills_defaults_and_reads_numbers(load: Load, complete: str) -> None:
    config = load(a=complete).config
    assert config.name == "a"
    assert config.optimizer.kind == "optimizer"
    assert dict(config.optimizer.options) == {"lr": 0.01, "betas": (0.9, 0.999)}
    assert [section.name for section in config.callbacks] == ["console", "jsonl", "tensorboard"]
    assert (config.model.fusion.name, config.model.missing_policy.name, config.balancer.name) == (
        "concat",
        "zero_feature",
        "none",
    )
    assert config.task is config.sampler is config.model.head is None
    assert config.train.precision == "32"


def test_load__takes_a_name_alone_for_a_section(load: Load, complete: str) -> None:
    short = load(a=complete).config
    spelt_out = load(a=complete.replace("method: dmrnet", "method: {name: dmrnet}")).config
    assert short == spelt_out


def test_load__merges_files_left_to_right(load: Load, complete: str) -> None:
    loaded = load(("a", "b"), a=complete, b="optimizer: {lr: 2}\ntrain: {threads: 1}\nname: joint\n")
    assert (loaded.config.optimizer.name, dict(loaded.config.optimizer.options)["lr"]) == ("adam", 2.0)
    assert (loaded.config.train.epochs, loaded.config.train.threads, loaded.config.name) == (3, 1, "joint")
    assert load(("a", "b"), b="seed: 1\n").config.name == "b"


def test_load__drops_options_of_the_component_that_was_replaced(load: Load, complete: str) -> None:
    replaced = load(("a", "b"), a=complete, b="optimizer: sgd\n").config.optimizer
    assert dict(replaced.options) == {"lr": 0.1, "momentum": 0.0}
    kept = load(("a", "b"), b="optimizer: adam\n").config.optimizer
    assert dict(kept.options)["lr"] == 0.01


def test_load__extends_relative_to_the_file(load: Load, folder: Path, complete: str) -> None:
    (folder / "base").mkdir()
    (folder / "base" / "root.yaml").write_text(complete, encoding="utf-8")
    (folder / "base" / "mid.yaml").write_text("extends: root.yaml\nseed: 1\n", encoding="utf-8")
    loaded = load(a="extends: [base/mid.yaml]\nseed: 2\n")
    assert (loaded.config.seed, loaded.config.train.epochs) == (2, 3)
    assert [path.name for path in loaded.sources] == ["root.yaml", "mid.yaml", "a.yaml"]
    assert loaded.origin("train.epochs") == "base/root.yaml:4:17"
    assert loaded.origin("seed") == "a.yaml:2:7"
    assert loaded.origin("data.workers") == "default"


def test_load__extends_several_files_in_order(load: Load, complete: str) -> None:
    loaded = load(
        a="extends: [one, two]\n".replace("one", "one.yaml").replace("two", "two.yaml"), one=complete, two="seed: 5\n"
    )
    assert loaded.config.seed == 5  # fmt: skip


def test_load__shows_files_outside_the_current_folder_in_full(
    folder: Path, registry: Registry, complete: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.yaml").write_text(complete + "seed: x\n", encoding="utf-8")
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    with pytest.raises(ConfigError) as caught:
        load_config(["../a.yaml"], [], registry)
    assert str(caught.value) == f"{folder}/a.yaml:5:7  seed: expected a whole number at least 0, got 'x'"


def test_load__names_the_chain_of_a_cycle(lines: Lines) -> None:
    assert lines(a="extends: b.yaml\n", b="seed: 1\nextends: c.yaml\n", c="extends: [b.yaml]\n") == [
        "c.yaml:1:11  extends: these files extend one another: b.yaml -> c.yaml -> b.yaml"
    ]


def test_load__reports_all_files_that_cannot_be_read(lines: Lines, folder: Path) -> None:
    (folder / "d.yaml").write_bytes(b"a: \xff\n")
    assert lines(a="extends: [no.yaml, b.yaml, d.yaml, 3]\n", b="x: [\n") == [
        "a.yaml:1:11  extends: cannot read 'no.yaml': No such file or directory",
        "a.yaml:1:28  extends: cannot read 'd.yaml': not a UTF-8 text file",
        "a.yaml:1:36  extends: expected a path or a list of paths",
        "b.yaml:2:1  not valid YAML: expected the node content, but found '<stream end>' (while parsing a flow node)",
    ]


def test_load__reports_a_missing_file_of_the_command_line(lines: Lines) -> None:
    assert lines(("no",)) == ["-c  cannot read 'no.yaml': No such file or directory"]


def test_load__refuses_a_file_without_keys(lines: Lines) -> None:
    assert lines(a="- 1\n") == ["a.yaml:1:1  expected a mapping of keys at the top"]


def test_load__reports_duplicate_keys_beside_other_mistakes(lines: Lines, complete: str) -> None:
    assert lines(a=complete + "seed: 1\nseed: x\n") == [
        "a.yaml:6:1  seed: duplicate key, first at a.yaml:5:1",
        "a.yaml:6:7  seed: expected a whole number at least 0, got 'x'",
    ]


def test_overrides__win_over_files(load: Load, complete: str) -> None:
    loaded = load(a=complete, o=("optimizer.lr=1e-4", "train.threads=2", "data.modalities=[rgb, depth]", "sampler="))
    config = loaded.config
    assert (dict(config.optimizer.options)["lr"], config.train.threads) == (1e-4, 2)
    assert config.data.modalities == ("rgb", "depth")
    assert loaded.origin("optimizer.lr") == "-o optimizer.lr=1e-4"
    assert loaded.origin("optimizer.name") == "a.yaml:3:19"


@pytest.mark.parametrize("order", [1, -1])
def test_overrides__may_choose_a_component_before_or_after_its_options(load: Load, complete: str, order: int) -> None:
    config = load(a=complete, o=("optimizer.name=sgd", "optimizer.momentum=0.5")[::order]).config
    assert dict(config.optimizer.options) == {"lr": 0.1, "momentum": 0.5}


def test_overrides__reach_into_lists(load: Load, complete: str) -> None:
    config = load(a=complete + "callbacks: [console, {name: jsonl}]\n", o=("callbacks.1.name=tensorboard",)).config
    assert [section.name for section in config.callbacks] == ["console", "tensorboard"]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.lr=abc", "optimizer.lr: expected a number greater than 0, got 'abc'"),
        ("optimizer.lrr=1", "optimizer.lrr: unknown key - did you mean 'lr' (default 0.001)?"),
        ("lr", "expected key=value, such as -o optimizer.lr=0.01"),
        ("a..b=1", "expected key=value, such as -o optimizer.lr=0.01"),
        ("=1", "expected key=value, such as -o optimizer.lr=0.01"),
        ("seed.x=1", "seed: expected a whole number at least 0, got a mapping"),
        ("seed=[1", "not valid YAML: expected ',' or ']', but got '<stream end>' (while parsing a flow sequence)"),
        ("callbacks.7=console", "callbacks.7: the list takes an index from 0 to 0, got '7'"),
    ],
)
def test_overrides__are_named_in_errors(lines: Lines, complete: str, override: str, line: str) -> None:
    assert lines(a=complete + "callbacks: [console]\n", o=(override,)) == [f"-o {override}  {line}"]


def test_load__refuses_components_that_do_not_fit(lines: Lines, complete: str) -> None:
    text = complete + "sampler: uniform\nmodel: {fusion: gated}\nbalancer: ogm_ge\n"
    assert lines(a=text) == [
        "a.yaml:7:11  balancer.name: balancer 'ogm_ge' does not work with fusion 'gated'; "
        "choose another balancer or fusion"
    ]
    assert lines(a=text.replace("ogm_ge", "pmr")) == [
        "a.yaml:7:11  balancer.name: balancer 'pmr' needs sampler 'complete', not sampler 'uniform'; "
        "choose sampler 'complete' or another balancer"
    ]
    assert lines(a=text.replace("ogm_ge", "agm")) == [
        "a.yaml:7:11  balancer.name: balancer 'agm' needs 'gradient_trace', which no chosen component provides; "
        "choose one that does"
    ]


def test_load__leaves_requirements_to_what_is_not_chosen_yet(load: Load, complete: str) -> None:
    assert load(a=complete + "balancer: pmr\n").config.sampler is None  # the method may bring the sampler
    assert load(a=complete + "balancer: ogm_ge\n").config.task is None  # the data set names the task


def test_config_from_mapping__checks_as_files_are_checked(registry: Registry) -> None:
    data = {"data": {"dataset": "digits"}, "method": "plain", "optimizer": "adam", "train": {"epochs": 1}}
    assert config_from_mapping(data, registry).method.name == "plain"
    with pytest.raises(ConfigError, match=r"^train.epochs: expected a whole number at least 1, got 0$"):
        config_from_mapping(data | {"train": {"epochs": 0}}, registry)


def test_configuration__needs_no_torch() -> None:
    modules = "robustmm.config.load, robustmm.config.render, robustmm.config.starter"
    code = f"import {modules}, sys; exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
