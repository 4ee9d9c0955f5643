"""A small registry, and a folder to write configurations in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from robustmm.config.load import LoadedConfig, load_config
from robustmm.errors import ConfigError
from robustmm.registry import Component, Options, Registry

#: The shortest configuration that is complete.
COMPLETE = """\
data: {dataset: digits}
method: dmrnet
optimizer: {name: adam, lr: 1e-2}
train: {epochs: 3}
"""


class NoOptions(Options):
    """Nothing to set."""


class DigitsOptions(Options):
    """Options of the data set."""

    fold: int = Field(0, ge=0, description="which fold is tested")
    folder: Path | None = None


class MLPOptions(Options):
    """Options of the encoder."""

    hidden: tuple[Annotated[int, Field(gt=0)], ...] = (64,)
    note: str = ""


class DMRNetOptions(Options):
    """Options of the method."""

    kl_weight: float = Field(0.001, ge=0, description="weight of the divergence")
    form: Literal["masked", "outer"] = "masked"
    hard: Literal["mined"] | list[str] = "mined"
    detached: bool = False
    weights: dict[Literal["task", "teacher"], float] = Field({}, description="weights of the losses")
    hidden: list[int] = Field([1], min_length=1)


class MMANetOptions(Options):
    """Options of the method."""

    teacher: Path


class AdamOptions(Options):
    """Options of the optimiser."""

    lr: float = Field(0.001, gt=0, description="learning rate")
    betas: tuple[float, float] = (0.9, 0.999)


class SGDOptions(Options):
    """Options of the optimiser."""

    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)


def component(name: str, options: type[Options] = NoOptions, **declared: frozenset[str]) -> Component:
    """A component that builds nothing."""
    return Component(name, dict, options, f"The {name} of the tests.", "standard", **declared)


@pytest.fixture(scope="session")
def registry() -> Registry:
    """Two methods, three balancers, and whatever the defaults name."""
    made = Registry()
    named = frozenset
    for kind, one in (
        ("task", component("classification", provides=named({"class_probability"}))),
        ("dataset", component("digits", DigitsOptions)),
        ("encoder", component("mlp", MLPOptions, suits=named({"vector"}))),
        ("fusion", component("concat")),
        ("fusion", component("gated", MLPOptions)),
        ("head", component("linear")),
        ("trunk", component("late")),
        ("missing_policy", component("zero_feature")),
        ("sampler", component("uniform")),
        ("sampler", component("complete")),
        ("method", component("plain")),
        ("method", component("dmrnet", DMRNetOptions)),
        ("method", component("mmanet", MMANetOptions)),
        ("balancer", component("none")),
        ("balancer", component("agm", requires=named({"gradient_trace"}))),
        ("balancer", component("ogm_ge", requires=named({"class_probability"}), conflicts=named({"fusion:gated"}))),
        ("balancer", component("pmr", requires=named({"sampler:complete"}))),
        ("optimizer", component("adam", AdamOptions)),
        ("optimizer", component("sgd", SGDOptions)),
        ("schedule", component("constant")),
        ("metric", component("brier")),
        *(("callback", component(name)) for name in ("console", "jsonl", "tensorboard")),
    ):
        made.add(kind, one)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


Load = Callable[..., LoadedConfig]


@pytest.fixture
def load(folder: Path, registry: Registry) -> Load:
    """``load(a=text, base=text, use=[names], o=[overrides])``: write the files, load those named (by default ``a``)."""

    def write_and_load(use: tuple[str, ...] = ("a",), o: tuple[str, ...] = (), **files: str) -> LoadedConfig:
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
        return load_config([f"{name}.yaml" for name in use], o, registry)

    return write_and_load


@pytest.fixture
def lines(load: Load) -> Callable[..., list[str]]:
    """As ``load``, for a configuration that must be refused: the lines of the error."""

    def refused(*args: str, **files: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(*args, **files)
        return str(caught.value).splitlines()

    return refused


@pytest.fixture
def complete() -> str:
    """The shortest configuration that is complete."""
    return COMPLETE
