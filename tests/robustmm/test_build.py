"""From configurations to objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_runs import TINY, merged

from robustmm import ArrayDataset, Balancer, Component, DataSplits, Modality, Options, Scaling
from robustmm.build import Assembly, assemble, scaler_statistics
from robustmm.config.load import load_config
from robustmm.data.parts import split_parts
from robustmm.errors import ConfigError, RobustmmError
from robustmm.plugin_manager import get_plugins
from robustmm.registry import KINDS, Registry


def built(folder: Path, registry: Registry | None = None, **changes: Any) -> Assembly:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(merged(TINY, changes)), encoding="utf-8")
    registry = registry or get_plugins().registry
    return assemble(load_config([path], [], registry).config, registry)


def refused(folder: Path, **changes: Any) -> str:
    with pytest.raises(RobustmmError) as caught:
        built(folder, **changes)
    return str(caught.value)


def dataset(**options: Any) -> dict[str, Any]:
    return {"dataset": {**TINY["data"]["dataset"], **options}}


def test_assemble__same_seed_same_weights(tmp_path: Path) -> None:
    torch.rand(5)
    one = built(tmp_path, seed=3).method.state_dict()
    torch.rand(5)
    other = built(tmp_path, seed=3).method.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    third = built(tmp_path, seed=4).method.state_dict()
    assert any(not torch.equal(value, third[name]) for name, value in one.items())


def test_assemble__weights_do_not_depend_on_the_balancer(tmp_path: Path) -> None:
    one = built(tmp_path).method.state_dict()
    other = built(tmp_path, balancer="ogm_ge").method.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_assemble__encoder_is_chosen_by_name_then_kind_then_default(tmp_path: Path) -> None:
    mlp = {"name": "mlp", "hidden": [8]}
    assembly = built(
        tmp_path,
        data=dataset(modalities=3),
        model={"encoders": {"m1": mlp | {"hidden": [5]}, "vector": mlp | {"hidden": [6]}, "default": mlp}},
    )
    widths = {name: encoder.channels[-1] for name, encoder in assembly.method.trunk.encoders.items()}
    assert widths == {"m0": 6, "m1": 5, "m2": 6}
    assert assembly.components["encoder of m1"].name == "mlp"


def test_assemble__image_without_an_encoder_gets_a_small_network(tmp_path: Path) -> None:
    assembly = built(tmp_path, data=dataset(kind="image"), model=None)
    assert assembly.components["encoder of m0"].name == "small_cnn"


def test_assemble__modalities_of_the_run_in_its_order(tmp_path: Path) -> None:
    assembly = built(tmp_path, data={"modalities": ["m2", "m0"]} | dataset(modalities=3))
    assert assembly.method.modalities == ("m2", "m0")
    assert assembly.combinations == [("m2",), ("m0",), ("m2", "m0")]
    batch = next(assembly.loader("test").ordered())
    assert batch.modalities == ("m2", "m0")


def test_assemble__combinations_as_asked_for(tmp_path: Path) -> None:
    assembly = built(tmp_path, data=dataset(modalities=3), evaluation={"combinations": ["m2+m0", "m1"]})
    assert assembly.combinations == [("m0", "m2"), ("m1",)]


def test_assemble__sampler_is_the_methods_own_unless_named(tmp_path: Path) -> None:
    assert built(tmp_path, method="plain").sampler_name == "complete"
    assert built(tmp_path, method="dmrnet").sampler_name == built(tmp_path, method="dmrnet").method.sampler
    assert built(tmp_path, method="dmrnet", sampler="cardinality").sampler_name == "cardinality"


@pytest.mark.parametrize(
    ("metric", "full", "mode"),
    [
        ("mean", "mean/accuracy", "max"),
        ("worst", "worst/accuracy", "max"),
        ("mean/ece", "mean/ece", "min"),
        ("m0+m1", "m0+m1/accuracy", "max"),
        ("m1/auroc", "m1/auroc", "max"),
    ],
)
def test_assemble__selection_asks_the_metric_what_is_better(tmp_path: Path, metric: str, full: str, mode: str) -> None:
    recipe = built(tmp_path, train={"select": {"metric": metric}}).recipe
    assert (recipe.select_metric, recipe.select_mode) == (full, mode)


def test_assemble__evaluation_batch_may_be_larger(tmp_path: Path) -> None:
    assembly = built(tmp_path, evaluation={"batch_size": 16})
    assert len(next(assembly.loader("train").training(0))) == 8
    assert len(next(assembly.loader("validation").ordered())) == 16


# What does not fit


def test_assemble__encoder_that_does_not_take_the_modality(tmp_path: Path) -> None:
    text = refused(tmp_path, model={"encoders": {"default": "small_cnn"}})
    assert text.startswith("model.encoders.default: encoder 'small_cnn' takes ")
    assert "but modality 'm0' is of kind vector; use one of " in text
    assert "mlp" in text.rpartition("use one of")[2]


def test_assemble__encoder_for_a_modality_that_is_not_there(tmp_path: Path) -> None:
    encoders = {"m0": "mlp", "mm1": "mlp"}
    assert refused(tmp_path, model={"encoders": encoders}) == (
        "model.encoders.mm1: no modality 'mm1' - did you mean 'm1'? (the data set has m0, m1; "
        "a kind such as vector or 'default' may stand for several)"
    )


def test_assemble__encoder_of_a_modality_that_this_run_leaves_out_may_stay(tmp_path: Path) -> None:
    encoders = {"m0": {"name": "mlp", "hidden": [5]}}
    assert built(tmp_path, data={"modalities": ["m1"]}, model={"encoders": encoders}).method.modalities == ("m1",)


def test_assemble__unknown_combination(tmp_path: Path) -> None:
    assert "m7" in refused(tmp_path, evaluation={"combinations": ["m0+m7"]})


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("wosrt", "train.select.metric: no 'wosrt' - did you mean 'worst'? (there are mean, worst, "),
        ("mean/auorc", "train.select.metric: no metric 'auorc' - did you mean 'auroc'? (there are accuracy, "),
    ],
)
def test_assemble__selection_by_what_is_not_measured(tmp_path: Path, metric: str, text: str) -> None:
    assert refused(tmp_path, train={"select": {"metric": metric}}).startswith(text)


def test_assemble__capability_that_only_the_data_set_decides(tmp_path: Path) -> None:
    registry, known = Registry(), get_plugins().registry
    for kind in KINDS:
        for component in known.all(kind):
            registry.add(kind, component)
    conflicts = frozenset({"task:classification"})
    registry.add("balancer", Component("picky", Balancer, Options, "Dense alone.", "test", conflicts=conflicts))
    with pytest.raises(ConfigError, match="balancer 'picky' does not work with task 'classification'"):
        built(tmp_path, registry, balancer="picky")


# Statistics of the training part


def test_scaler_statistics__use_training_samples_that_have_the_modality() -> None:
    target = torch.tensor([0, 1, 0, 1])
    observed = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    values = torch.tensor([[1.0, 10.0], [3.0, 10.0], [5.0, 10.0], [7.0, 10.0]])
    train = ArrayDataset({"a": values, "b": values}, target, list("wxyz"), observed)
    far = ArrayDataset({"a": values + 100, "b": values + 100}, target, list("stuv"))
    modalities = (
        Modality("a", "vector", (2,)),
        Modality("b", "vector", (2,)),
    )
    splits = DataSplits(modalities, "classification", ("n", "y"), train, far, validation=far)
    found = scaler_statistics(split_parts(splits, seed=0, fraction=0.5, carve_seed=0), batch_size=2)
    mean, variance = found["a"]
    assert mean.tolist() == [4.0, 10.0]
    assert variance.tolist() == pytest.approx([5.0, 0.0])
    mean, variance = found["b"]  # rows 0 and 2 alone
    assert mean.tolist() == [3.0, 10.0]
    assert variance.tolist() == pytest.approx([4.0, 0.0])


def test_scaler_statistics__leave_alone_what_is_not_to_be_standardised() -> None:
    values = torch.tensor([[1.0], [3.0]])
    part = ArrayDataset({"a": values}, torch.tensor([0, 1]), ["x", "y"])
    modality = Modality("a", "vector", (1,), Scaling("none"))
    splits = DataSplits((modality,), "classification", ("n", "y"), part, part, validation=part)
    assert scaler_statistics(split_parts(splits, seed=0, fraction=0.5, carve_seed=0), batch_size=2) == {}
